"""The section on tokens: its sentences, figures and tables, and what is left out where there is nothing to say."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from reporting.outline import Outline, build
from synthetic import METHODS, FakeMethod, write_run

from atp_eval.analysis import Summary, summarise
from atp_eval.plotting import drawn
from atp_eval.records import Run
from atp_eval.reporting.contents import numbered
from atp_eval.reporting.inline import inline
from atp_eval.reporting.keepmaps import MAPS
from atp_eval.reporting.tokens import ROWS, TokenParts, token_parts, words

WIDE = {
    "wide@144": FakeMethod(0.8, [(1, (100, 300)), (4, (20, 90))], merged=5),
    "narrow": FakeMethod(0.8, [(2, (140, 148))]),
    "pool@144": FakeMethod(0.7, [(0, 144)], merged=144),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("run") / "one"
    return write_run(path, methods=METHODS | WIDE, benchmarks=["gqa", "mme"], documents=40)


@pytest.fixture(scope="module")
def summary(run: Run) -> Summary:
    return summarise([run], resamples=20)


@pytest.fixture(scope="module")
def parts(summary: Summary) -> TokenParts:
    found = token_parts(summary, numbered(summary))
    assert found is not None
    return found


def only(axes: list[Axes]) -> Axes:
    (found,) = axes
    return found


def test_sentences_are_about_methods_whose_counts_vary(summary: Summary, parts: TokenParts) -> None:
    use = {u.label: u for u in summary.token_use}["wide@144"]
    assert len(parts.words) == 2
    first = parts.words[0]
    assert first.startswith(f"wide@144 spends {use.question.mean:.0f} tokens on the average question, and ")
    assert f"{use.question.middle[0]:.0f} to {use.question.middle[1]:.0f} on nine questions in ten; most on " in first
    assert words([]) == []
    many = [replace(use, label=f"m{i}") for i in range(5)]
    assert words(many)[-1] == "Counts vary also under m3 and m4."


def test_histograms_are_those_of_questions_and_marks_stand_at_means(summary: Summary, parts: TokenParts) -> None:
    assert parts.questions is not None
    data = parts.questions.data
    shown = [u for u in summary.token_use if not u.is_reference]
    assert list(dict.fromkeys(data["method"])) == [u.label for u in shown]
    assert data.groupby("method")["share"].sum().to_numpy() == pytest.approx(1.0)
    with drawn(parts.questions) as figure:
        axes = only(figure.axes)
        marks = [line.get_xydata()[0] for line in axes.lines if line.get_marker() not in ("None", None)]
        heights = [c.get_paths()[0].vertices[:, 1] for c in axes.collections]
        low, high = axes.get_xlim()
    assert [x for x, _ in marks] == pytest.approx([u.question.mean for u in shown])
    assert len(heights) == 2  # two vary
    assert all(np.ptp(h) == pytest.approx(0.78) for h in heights)
    assert low < data["from"].min() and data["to"].max() < high + 1


def test_fans_hold_deciles_from_the_first_prune_point_on(summary: Summary, parts: TokenParts) -> None:
    assert parts.points is not None and [p.label for p in parts.points.panels] == ["wide@144", "narrow"]
    use = {u.label: u for u in summary.token_use}["wide@144"]
    limits = []
    for chart in parts.points.charts:
        with drawn(chart) as figure:
            axes = only(figure.axes)
            limits.append(axes.get_ylim())
            bands = [c.get_paths()[0].vertices for c in axes.collections]
        if chart.name.endswith("-1"):
            assert len(bands) == 5
            spans = [(b[:, 1].min(), b[:, 1].max()) for b in bands]
            assert spans[0] == (use.points[1].deciles[0], use.points[0].deciles[-1])
            assert {float(b[:, 0].min()) for b in bands} == {1.0} and {float(b[:, 0].max()) for b in bands} == {8.0}
            widths = [high - low for low, high in spans]
            assert widths == sorted(widths, reverse=True)
    assert limits[0] == limits[1]
    table = parts.points.panels[0].data
    assert table["first_layer"].tolist() == [1, 4] and table["q50"].tolist() == [p.deciles[5] for p in use.points]


def test_groups_are_benchmarks_with_their_categories(parts: TokenParts) -> None:
    assert [m.label for m in parts.methods] == ["wide@144", "narrow"]
    named = [(g.benchmark, g.category) for g in parts.table]
    assert named[0] == ("gqa", "") and ("mme", "") in named and len([n for n in named if n[0] == "mme"]) > 2
    assert ("gqa", "color") not in named  # its only category
    assert all(len(g.values) == 2 for g in parts.table)
    assert parts.groups is not None
    with drawn(parts.groups) as figure:
        axes = only(figure.axes)
        texts = [t.get_text() for t in axes.texts]
        colours = {t.get_color() for t in axes.texts}
        top, bottom = axes.get_ylim()[1], axes.get_ylim()[0]
    expected = [f"{a.tokens:.0f}" for g in parts.table for a in g.values if a]
    assert texts == expected and colours <= {"#000001", "#fffffe"} and (top, bottom) == (0, len(parts.table))
    means = [use.question.mean for use in parts.methods]
    off = [abs(a.tokens / m - 1) for g in parts.table for a, m in zip(g.values, means, strict=True) if a]
    assert parts.limit == pytest.approx(max(1.0, 100 * max(off)))


def test_many_categories_are_in_the_table_and_not_in_the_figure(summary: Summary) -> None:
    uses = []
    for use in summary.token_use:
        first = use.averages[0]
        more = tuple(replace(first, category=f"c{i}") for i in range(ROWS))
        uses.append(replace(use, averages=(*use.averages, *more)))
    found = token_parts(replace(summary, token_use=tuple(uses)), numbered(summary))
    assert found is not None and found.groups is not None and len(found.table) > ROWS
    assert set(found.groups.data["category"]) == {""}


def test_maps_share_a_scale_and_state_the_uniform_rate(summary: Summary, parts: TokenParts) -> None:
    assert parts.maps is not None and parts.scale is not None and summary.agreement is not None
    labels = [p.label for p in parts.maps.panels]
    assert "upper_bound" not in labels and "pool@144" not in labels and labels.count("wide@144") == 2
    by_label = {m.label: m for m in summary.agreement.maps}
    limits = set()
    for panel, chart in zip(parts.maps.panels, parts.maps.charts, strict=True):
        with drawn(chart) as figure:
            (image,) = only(figure.axes).images
            limits.add(image.get_clim())
            shown = np.asarray(image.get_array())
        layer = int(panel.data["first_layer"].iloc[0])
        found = by_label[panel.label]
        rates = found.rates[found.starts.index(layer)]
        assert (shown == rates).all()
        assert panel.note == f"from layer {layer}: {100 * rates.mean():.1f}\u00a0%"
        np.testing.assert_allclose(panel.data.filter(like="column_"), rates, atol=5e-5)
    (limit,) = limits
    assert limit == (0, pytest.approx(max(m.rates.max() for m in by_label.values())))
    assert parts.scale.alt.endswith(f"to {100 * limit[1]:.0f} % of questions.")
    page = inline(parts.maps.charts[0])
    assert 'href="data:image/png;base64,' in page and len(page) < 6000


def test_of_many_prune_points_the_last_maps_are_shown(tmp_path: Path) -> None:
    stages = [(layer, 500 - 80 * layer) for layer in range(6)]
    methods = {"upper_bound": METHODS["upper_bound"], "stairs": FakeMethod(0.8, stages)}
    found = summarise([write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=6)], resamples=20)
    parts = token_parts(found, numbered(found))
    assert parts is not None and parts.maps is not None and len(parts.maps.panels) == MAPS
    assert [p.data["first_layer"].iloc[0] for p in parts.maps.panels] == [2, 3, 4, 5]


def test_without_varying_counts_there_are_layers_and_maps_only(tmp_path: Path) -> None:
    found = summarise([write_run(tmp_path / "run", benchmarks=["gqa"], documents=6)], resamples=20)
    parts = token_parts(found, numbered(found))
    assert parts is not None and parts.layers is not None and parts.maps is not None
    assert parts.words == parts.table == parts.methods == ()
    assert parts.questions is parts.points is parts.groups is None
    assert token_parts(replace(found, token_use=()), numbered(found)) is None


def test_figures_are_small_enough_for_a_page(parts: TokenParts) -> None:
    charts = [parts.layers, parts.questions, parts.groups, parts.scale]
    panels = [*(parts.points.charts if parts.points else ()), *(parts.maps.charts if parts.maps else ())]
    assert all(chart is not None and len(inline(chart)) < 25_000 for chart in [*charts, *panels])


def test_the_page_shows_it_all(run: Run, tmp_path: Path) -> None:
    page = build(run, tmp_path)
    found = re.search(r'<section aria-labelledby="tokens">.*?</section>', page, re.S)
    assert found is not None
    text = " ".join(" ".join(Outline(found[0]).text).split())
    for said in (
        "wide@144 spends",
        "Every prune point in numbers",
        "Where in the picture tokens survive",
        "keep_rate.csv",
    ):
        assert said in text
    assert "nan" not in text.replace("nance", "") and found[0].count("data:text/csv") >= 4
    assert found[0].count("<figure>") == 5 and found[0].count("<table") == 2
    shares = [float(v) for v in re.findall(r"from layer \d+: ([\d.]+) %", text)]
    assert len(shares) >= 4 and all(0 < v < 100 and math.isfinite(v) for v in shares)
