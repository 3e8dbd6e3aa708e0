"""Figure 4: what it shows, where texts break, files fit for a paper, hostile texts as they are."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from synthetic import METHODS, FakeMethod, Texts, plain_picture, write_run

from atp_eval.analysis.overlays import Sample, interesting_samples, named_samples
from atp_eval.errors import UserError
from atp_eval.plotting import DPI, PAGE, Chart, drawn, write_chart
from atp_eval.records import Run
from atp_eval.reporting.figure4 import borders, covered, figure4
from atp_eval.reporting.svg import clean
from atp_eval.reporting.typeset import drawable, measure, wrapped
from atp_eval.trace import KeepTrace, Stage, unpack

THREE = "atp@144"
SHOWN = METHODS | {THREE: FakeMethod(0.8, [(1, (180, 220)), (4, 60), (6, 20)], merged=7)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run") / "one"
    return write_run(folder, methods=SHOWN, benchmarks=("gqa", "mme"), pictures=plain_picture, keep_images=12)


@pytest.fixture(scope="module")
def samples(run: Run) -> list[Sample]:
    return interesting_samples([run], 6)


def texts_of(chart: Chart) -> list[str]:
    """All that stands on a chart."""
    with drawn(chart) as figure:
        return [t.get_text() for t in figure.texts] + [a.get_title(loc="left") for a in figure.axes]


def test_it_shows_the_cells_that_enter_each_prune_layer(samples: list[Sample]) -> None:
    chart = figure4(samples, THREE)
    assert len(chart.data) == 6 * 3 and chart.data["layer"].tolist()[:3] == [1, 4, 6]
    for row in chart.data.itertuples():
        trace = next(
            a.trace for s in samples if (s.benchmark, s.doc_id) == (row.benchmark, row.doc_id)
            for a in s.answers if a.label == THREE
        )  # fmt: skip
        assert trace is not None
        np.testing.assert_array_equal(unpack(row.kept_cells, (row.rows, row.columns)), trace.keep_at(row.layer))
        assert (row.tokens, row.merged) == (trace.tokens_per_layer()[row.layer], 7)
    means = chart.data.groupby("layer")["tokens"].mean()
    assert chart.alt.endswith(f"Mean tokens entering layer 1: {means[1]:.0f}, layer 4: 60, layer 6: 20.")
    assert chart.size[0] == PAGE == 7.2


def test_layers_can_be_chosen(samples: list[Sample]) -> None:
    chart = figure4(samples[:1], THREE, [5, 0])
    assert chart.data[["layer", "tokens", "merged"]].values.tolist() == [[0, 576, 0], [5, 60, 7]]
    with pytest.raises(UserError, match="--layers 8: this model has layers 0 to 7"):
        figure4(samples, THREE, [8])
    with pytest.raises(UserError, match="upper_bound prunes none of these samples"):
        figure4(samples, "upper_bound")


def test_what_cannot_be_drawn_is_named(run: Run, samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nobody has no answer to gqa:"):
        figure4(samples, "nobody")
    with pytest.raises(UserError, match="the run kept no picture of mme:20"):
        figure4(named_samples([run], [("mme", 20)]), THREE)
    broken = write_run(tmp_path / "r", methods={"m": FakeMethod(0.5, [(1, 9)])}, documents=2, pictures=plain_picture)
    for path in broken.path.rglob("samples.parquet"):
        pd.read_parquet(path).assign(trace=None, error="out of memory").to_parquet(path, index=False)
    with pytest.raises(UserError, match="gqa:0 has no visual tokens of m: out of memory"):
        figure4(named_samples([broken], [("gqa", 0)]), "m")
    with pytest.raises(UserError, match="400 samples: a figure holds 60"):
        figure4(samples[:1] * 400, THREE)


def test_files_are_fit_for_a_paper(samples: list[Sample], tmp_path: Path) -> None:
    pdf, png, csv = write_chart(figure4(samples, THREE), tmp_path)
    data = pdf.read_bytes()
    assert b"/Subtype /Type3" not in data and b"/FontFile2" in data  # fonts are embedded, as TrueType
    shown = texts_of(figure4(samples, THREE))
    assert sum("What color is thing" in text for text in shown) == 6
    assert shown.count("layer 4: 60") == 6 and shown.count("image") == 6
    with Image.open(png) as image:
        assert image.width == round(PAGE * DPI)
        middle = image.convert("RGB").resize((8, 8))
    assert middle.getextrema() != ((255, 255), (255, 255), (255, 255))
    assert len(pd.read_csv(csv)) == 18


def test_veils_are_vectors_and_pictures_are_not_blown_up(samples: list[Sample], tmp_path: Path) -> None:
    pdf = write_chart(figure4(samples[:1], THREE), tmp_path, ("pdf",))[0].read_bytes()
    streams = [
        part.split(b"endstream")[0].strip(b"\r\n")
        for part in pdf.split(b"stream\r\n" if b"stream\r\n" in pdf else b"stream\n")[1:]
    ]
    unpacked = []
    for stream in streams:
        try:
            unpacked.append(zlib.decompress(stream))
        except zlib.error:
            continue
    drawing = max(unpacked, key=lambda s: s.count(b" l\n"))
    assert drawing.count(b" l\n") > 500
    images = [line for line in pdf.split(b"\n") if b"/Subtype /Image" in line]
    assert images and all(b"/Width 48" in line for line in images if b"/ColorSpace" in line)


DOLLARS = "What costs $5_000^2 and $10\\frac{1}{0}$ or ${?"


def test_formulas_and_hostile_texts_are_drawn_as_they_are(tmp_path: Path) -> None:
    texts = Texts(
        lambda benchmark, i: DOLLARS if i else "</svg>\x00\u202e" + "w" * 3000, right="$\\undefined$", wrong="=1+1"
    )
    run = write_run(tmp_path / "r", texts=texts, methods=SHOWN, documents=4, benchmarks=["gqa"], pictures=plain_picture)
    samples = named_samples([run], [("gqa", 0), ("gqa", 1)])
    pdf, _, csv = write_chart(figure4(samples, THREE), tmp_path)
    assert pdf.stat().st_size > 10_000
    shown = texts_of(figure4(samples, THREE))
    assert DOLLARS in shown
    cut = next(text for text in shown if text.startswith("</svg>⟨U+0000⟩⟨U+202E⟩www"))
    lines = shown[shown.index(cut) :][:3]
    assert lines[2].endswith("w…") and len("".join(lines)) < 300
    assert "\n=1+1" not in csv.read_text(encoding="utf-8") and ",=1+1" not in csv.read_text(encoding="utf-8")


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=400), st.floats(0.5, 6.0), st.integers(1, 4))
@example("w" * 400, 0.5, 2)
@example("a " * 200, 3.0, 1)
@example("", 1.0, 1)
def test_lines_fit_and_lose_words_only_at_the_end(text: str, width: float, lines: int) -> None:
    found = wrapped(text, width, lines)
    assert len(found) <= lines
    assert all(measure(line) <= width for line in found)
    whole = drawable(clean(" ".join(text.split()), 600)).replace(" ", "")
    joined = "".join(found).replace(" ", "")
    assert joined == whole or (joined.endswith("…") and whole.startswith(joined[:-1]))


def test_what_the_font_has_not_is_replaced_not_left_out() -> None:
    assert drawable("naïve ✓ → 󋸟 漢") == "naïve ✓ → � �"


def test_short_texts_are_one_line() -> None:
    assert wrapped("What colour is it?", 3.0, 2) == ["What colour is it?"]


def test_covered_cells_and_their_borders() -> None:
    keep = np.array([[1, 1, 0], [1, 0, 0]], dtype=bool)
    trace = KeepTrace((2, 3), 4, (Stage(1, keep.ravel()),))
    assert covered(trace, 0) is None and borders(trace, 0) == []
    outline = covered(trace, 1)
    assert outline is not None
    inside = [[outline.contains_point((c + 0.5, r + 0.5)) for c in range(3)] for r in range(2)]
    np.testing.assert_array_equal(inside, ~keep)
    assert sorted(borders(trace, 1)) == [[(1, 1), (1, 2)], [(1, 1), (2, 1)], [(2, 0), (2, 1)]]


def test_drawing_leaves_no_figure_open(samples: list[Sample], tmp_path: Path) -> None:
    before = plt.get_fignums()
    write_chart(figure4(samples, THREE), tmp_path, ("png",))
    assert plt.get_fignums() == before


def test_all_samples_and_panels_lie_inside_without_overlap(samples: list[Sample]) -> None:
    for count, layers in ((1, None), (5, None), (6, [0, 1, 2, 3, 4, 5, 6])):
        chart = figure4(samples[:count], THREE, layers)
        with drawn(chart) as figure:
            boxes: list[Any] = [a.get_position() for a in figure.axes]
            figure.canvas.draw()
            texts = [t.get_window_extent() for t in figure.texts]
        assert len(boxes) == count * (1 + len(layers or [1, 4, 6]))
        assert all(0 <= b.x0 < b.x1 <= 1 and 0 <= b.y0 < b.y1 <= 1 for b in boxes)
        width, height = (inches * 100 for inches in chart.size)
        ratios = [(b.width * width) / (b.height * height) for b in boxes]
        np.testing.assert_allclose(ratios, 1.0)  # a panel is a square, as what the model saw
        for i, b in enumerate(boxes):
            assert not any(b.overlaps(c) for c in boxes[:i])
        for i, t in enumerate(texts):
            assert not any(t.overlaps(c) for c in texts[:i])
