"""The sentences, tables and figures about kept cells and equal budgets, and their sections on the page."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.axes import Axes
from synthetic import METHODS, FakeMethod, write_run
from test_page import HOSTILE, Outline, build

from atp_eval.analysis import (
    Agreement,
    Compared,
    Cost,
    Fairness,
    Interval,
    Overlap,
    Place,
    compare_budgets,
    measure,
    summarise,
)
from atp_eval.analysis.cells import Shape
from atp_eval.analysis.tokens import TokenAverages
from atp_eval.plotting import drawn
from atp_eval.records import Run
from atp_eval.reporting.agreement import Part, agreement_parts, overlap_words, place_words, recall_words, shade
from atp_eval.reporting.contents import numbered
from atp_eval.reporting.fairness import quantity, verdict
from atp_eval.reporting.places import places_chart, recall_panels
from atp_eval.reporting.svg import UNSAFE, clean

NBSP = "\u00a0"
WHOLE = Compared(Interval(1.0), 1.0, Interval(0.0))


def compared(value: float, chance: float, half: float = 0.02) -> Compared:
    gain = value - chance
    return Compared(Interval(value, value - half, value + half), chance, Interval(gain, gain - half, gain + half))


def overlap(first: str, second: str, value: float, chance: float) -> Overlap:
    return Overlap(first, second, 48, (0, 2), (WHOLE, compared(value, chance)))


def placed(label: str, row: float, recall: float | None, chance: float = 0.14, half: float = 0.02) -> Place:
    found = () if recall is None else (WHOLE, compared(recall, chance))
    rows = (Interval(0.5), Interval(row, row - half, row + half))
    return Place(label, 48, 40, (0, 2), (1.0, chance), rows, (Interval(0.5), Interval(0.5)), found, False)


OVERLAPS = (overlap("a@9", "b@9", 0.4, 0.1), overlap("a@9", "c@9", 0.05, 0.1), overlap("b@9", "c@9", 0.11, 0.1))
PLACES = (placed("a@9", 0.7, 0.25), placed("b@9", 0.3, 0.05), placed("c@9", 0.5, 0.15))
FOUND = Agreement(
    Shape(4, 6, 6), 30, (("a@9", "b@9", "c@9", "pool@9"),), OVERLAPS, PLACES, Interval(0.52, 0.5, 0.54), Interval(0.5)
)
NUMBERS = {label: i for i, label in enumerate(["upper_bound", "a@9", "b@9", "c@9", "pool@9"])}.__getitem__


def costs(**tokens: float) -> Fairness:
    rows = [
        Cost(k.replace("_", "@"), k == "upper", TokenAverages(v, v, v, 36.0), v, v, None, None, None)
        for k, v in tokens.items()
    ]
    return compare_budgets(rows)


def part(found: Agreement = FOUND) -> Part:
    (only,) = agreement_parts(found, costs(a_9=9.0, b_9=9.0), NUMBERS)
    return only


def said(text: str) -> str:
    return text.replace(NBSP, " ")


# ------------------------------------------------------------------ words


def test_overlaps_in_words() -> None:
    assert said(overlap_words(OVERLAPS, 3)) == (
        "a@9 and b@9 have most in common beyond chance: of the cells that either keeps, both keep 40.0 % [38.0, 42.0] "
        "at the last layer; chance alone would give 10.0 %. Of 3 pairs, 1 has more in common than chance gives, 1 "
        "less; of 1 the interval includes chance."
    )
    assert said(overlap_words(OVERLAPS[:1], 3)).startswith(
        "a@9 and b@9: of the cells that either keeps, both keep 40.0"
    )
    assert overlap_words(OVERLAPS[1:], 3).startswith("No two methods have clearly more cells in common")
    assert overlap_words((), 3) == ""


def test_an_overlap_that_is_always_the_same_counts_as_it_is() -> None:
    steady = Overlap("a", "b", 9, (0,), (Compared(Interval(0.5), 0.1, Interval(0.4)),))
    chance = Overlap("a", "c", 9, (0,), (Compared(Interval(0.1), 0.1, Interval(0.0)),))
    assert "1 has more in common than chance gives, 0 less; of 1" in overlap_words((steady, chance), 3)


def test_two_controls_lead_no_sentence_about_overlaps_and_are_not_counted() -> None:
    controls = (overlap("random@9", "oracle@9:layer=0", 0.9, 0.1), overlap("random@9", "random@9:seed=1", 0.8, 0.1))
    text = overlap_words((*controls, overlap("random@9", "a@9", 0.6, 0.1), *OVERLAPS), 3)
    assert text.startswith("random@9 and a@9 have most in common") and "Of 4 pairs, 2 have more" in text
    assert text.endswith("Pairs of controls, which draw alike, are not counted.")
    assert overlap_words(controls, 3) == ""


def test_what_is_given_the_cells_asked_about_is_named_apart() -> None:
    oracle = placed("oracle@9:layer=0", 0.5, 0.9)
    text = said(recall_words((oracle, *PLACES), 3))
    assert text.startswith(said(recall_words(PLACES, 3)))
    end = "Chosen by these cells: oracle@9:layer=0 (90.0 % [88.0, 92.0] against 14.0 %)."
    assert text.endswith(end) and said(recall_words((oracle,), 3)) == end


def test_recall_in_words() -> None:
    assert said(recall_words(PLACES, 3)) == (
        "Of the cells that a question is about, a@9 keeps 25.0 % [23.0, 27.0] to the last layer, where it keeps 14.0 % "
        "of all cells: further above chance than the other 2 methods. Less than chance: b@9 (5.0 % [3.0, 7.0] "
        "against 14.0 %)."
    )
    better = (*PLACES, placed("d@9", 0.5, 0.2))
    text = said(recall_words(better, 3))
    assert (
        "the other 3 methods. More than chance also: d@9 (20.0 % [18.0, 22.0] against 14.0 %). Less than chance: b@9"
        in text
    )
    assert said(recall_words(PLACES[1:], 3)) == (
        "No method clearly keeps more of the cells that a question is about than of all cells. Less than chance: b@9 "
        "(5.0 % [3.0, 7.0] against 14.0 %)."
    )
    assert said(recall_words(PLACES[:1], 3)).endswith("14.0 % of all cells: more than chance would.")
    assert recall_words(PLACES[1:2], 3).endswith("less than chance would.")
    assert recall_words(PLACES[2:], 3).endswith("no more or less than chance would.")
    assert recall_words((), 3) == ""


def test_places_in_words() -> None:
    assert said(place_words(PLACES, FOUND, 3)) == (
        "At the last layer, kept cells lie lower than the middle of the picture under a@9 (0.70 [0.68, 0.72]); higher "
        "than the middle of the picture under b@9 (0.30 [0.28, 0.32]), as mean rows from 0 at the top to 1 at the "
        "bottom. Those asked about lie at 0.52 [0.50, 0.54]."
    )
    assert place_words(PLACES[2:], replace(FOUND, asked_row=None), 3) == (
        "No method's kept cells lie clearly lower or higher than the middle of the picture."
    )


def test_a_bias_too_small_to_see_and_a_place_without_an_interval_are_not_named() -> None:
    near = (placed("a@9", 0.508, None, half=0.001), replace(PLACES[0], label="b@9", row=(Interval(0.5), Interval(0.9))))
    assert place_words(near, FOUND, 3).startswith("No method's kept cells")
    assert place_words(near[1:], FOUND, 3) == ""


def test_many_methods_are_not_all_named() -> None:
    many = [placed(f"m{i}@9", 0.6 + i / 50, 0.3 + i / 50) for i in range(7)]
    text = said(place_words(many, FOUND, 3))
    assert "under m6@9 (0.72 [0.70, 0.74]), m5@9" in text and "and 3 more, as" in text
    assert re.search(r"More than chance also: m5@9 \(.*m2@9 \([^()]*\) and 2 more\.$", recall_words(many, 3))


def test_equal_budgets_in_words() -> None:
    assert said(verdict(costs(upper=36.0, a_9=9.0, b_9=9.05))) == (
        "The 2 pruned methods have 9.0 to 9.1 visual tokens at layer inputs: they differ by 0.6 % at most, and may be "
        "compared."
    )
    assert verdict(costs(a_9=9.0)) == verdict(costs(a_9=9.0, b_9=18.0)) == verdict(costs()) == ""


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (75_497_472, "B", "75.5 MB"),
        (999, "B", "999 B"),
        (999.6, "B", "1.00 kB"),
        (3_434_157_056, "", "3.43 G"),
        (588_800.0, "B", "589 kB"),
        (99_960, "B", "100 kB"),
        (8.7e12, "FLOPs", "8.70 TFLOPs"),
        (0.0, "B", "0 B"),
        (None, "B", "–"),
        (float("nan"), "B", "–"),
    ],
)
def test_quantities_have_three_digits(value: float | None, unit: str, expected: str) -> None:
    assert said(quantity(value, unit)) == expected


# ------------------------------------------------------------------ tables and figures


def test_the_heat_map_has_overlap_below_and_chance_above() -> None:
    assert [[c.text for c in row] for row in part().heat] == [["", "10", "10"], ["40", "", "10"], ["5", "11", ""]]
    assert [[c.kind for c in row] for row in part().heat] == [
        ["self", "chance", "chance"],
        ["overlap", "self", "chance"],
        ["overlap", "overlap", "self"],
    ]
    assert said(part().heat[1][0].said) == "b@9 and a@9: 40.0 % [38.0, 42.0], by chance 10.0 %"


def test_a_pair_that_no_sample_compares_is_a_dash() -> None:
    row = part(replace(FOUND, overlaps=OVERLAPS[:1])).heat[2]
    assert [(c.kind, c.text) for c in row] == [("none", "–"), ("none", "–"), ("self", "")]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.01, 1), (0.25, 5), (1.0, 10), (1.2, 10)])
def test_shades_tell_small_shares_apart(share: float, expected: int) -> None:
    assert shade(share) == f"shade-{expected}"


def test_tables_begin_at_the_first_prune_point() -> None:
    found = part()
    assert found.overlaps.columns == found.recalls.columns == found.rows.columns == ("2–3",)
    assert [row.labels for row in found.overlaps.rows] == [("a@9", "b@9"), ("a@9", "c@9"), ("b@9", "c@9")]
    early = replace(PLACES[0], label="pool@9", starts=(0, 1, 2), kept=(0.5, 0.5, 0.1), row=(Interval(0.1),) * 3)
    early = replace(early, column=early.row, recall=())
    found = part(replace(FOUND, places=(*PLACES, early)))
    assert found.rows.columns == ("0", "1", "2–3")
    assert [v.value for v in found.rows.rows[0].values] == [0.5, 0.5, 0.7]  # type: ignore[union-attr]


def test_who_is_not_shown_is_named() -> None:
    assert (part().silent, part().merging) == ("pool@9", "")
    merging = replace(FOUND, groups=(("a@9",),), places=(replace(PLACES[0], merged=True),), overlaps=())
    assert (part(merging).silent, part(merging).merging) == ("", "a@9")


def test_one_method_has_no_overlaps_and_unknown_cells_no_panels() -> None:
    alone = part(replace(FOUND, groups=(("a@9",),), overlaps=(), places=(replace(PLACES[0], recall=()),)))
    assert alone.heat == () and alone.overlaps.rows == () and alone.panels is None and alone.recalls.rows == ()
    assert len(alone.words) == 1 and alone.chart.data["method"].tolist() == ["a@9"]


def test_nobody_nothing() -> None:
    assert agreement_parts(None, costs(), NUMBERS) == []
    assert agreement_parts(replace(FOUND, places=(), overlaps=()), costs(), NUMBERS) == []


def test_the_largest_group_comes_first_with_its_tokens() -> None:
    groups = (("c@9",), ("a@9", "b@9"))
    parts = agreement_parts(replace(FOUND, groups=groups), costs(a_9=9.0, b_9=9.01, c_9=20.0), NUMBERS)
    assert [p.labels for p in parts] == [("a@9", "b@9"), ("c@9",)]
    assert [p.title for p in parts] == ["About 9 tokens", "About 20 tokens"]
    assert parts[0].name != parts[1].name
    wide = agreement_parts(FOUND, costs(a_9=9.0, b_9=20.0), NUMBERS)
    assert wide[0].title == "9 to 20 tokens"


def lines(axes: Axes, marked: bool) -> list[list[list[float]]]:
    """Corners of the lines, or places of the marks, that were drawn."""
    return [
        line.get_xydata().tolist() for line in axes.lines if (line.get_marker() not in ("None", None)) == marked
    ]  # fmt: skip


def test_panels_have_equal_axes_and_start_where_something_is_pruned() -> None:
    panels = recall_panels(PLACES, 4, "1", NUMBERS)
    assert panels is not None and [p.label for p in panels.panels] == ["a@9", "b@9", "c@9"]
    limits = []
    for chart in panels.charts:
        with drawn(chart) as figure:
            (axes,) = figure.axes
            limits.append((axes.get_xlim(), axes.get_ylim()))
            chance, own = lines(axes, marked=False)
            assert [x for x, _ in own] == [x for x, _ in chance] == [2, 4]
            assert [y for _, y in chance] == pytest.approx([14, 14])
    assert len(set(limits)) == 1 and limits[0] == ((0, 4), (0, pytest.approx(28.35)))
    assert panels.charts[0].alt == "a@9: kept of the cells asked about. from layer 2: 25.0 %, by chance 14.0 %."
    assert panels.whole.data["kept"].tolist() == [0.25, 0.05, 0.15]
    assert recall_panels((), 4, "1", NUMBERS) is None


def test_lower_rows_lie_further_right() -> None:
    chart = places_chart(PLACES, FOUND, "1", NUMBERS)
    with drawn(chart) as figure:
        (axes,) = figure.axes
        marks = [where for (where,) in lines(axes, marked=True)]
        names = [tick.get_text() for tick in axes.get_yticklabels()]
        asked = [corners for corners in lines(axes, marked=False) if corners[0][0] == corners[1][0] == 0.52]
        assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first is on top
    assert marks == [[0.7, 0], [0.3, 1], [0.5, 2]] and names == ["a@9", "b@9", "c@9"]
    assert len(asked) == 1
    with drawn(places_chart(PLACES, replace(FOUND, asked_row=None), "1", NUMBERS)) as figure:
        assert not [c for c in lines(figure.axes[0], marked=False) if c[0][0] == c[1][0] == 0.52]
    assert chart.data["mean_row_high"].tolist() == pytest.approx([0.72, 0.32, 0.52])


# ------------------------------------------------------------------ on the page


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    methods = METHODS | {
        "pool@144": FakeMethod(0.7, [(0, 144)], merged=144),
        "m@144": FakeMethod(0.7, [(0, 144)], merged=7),
    }
    return write_run(tmp_path_factory.mktemp("run") / "one", methods=methods, benchmarks=["gqa"])


def section(page: str, name: str) -> str:
    found = re.search(rf'<section aria-labelledby="{name}">.*?</section>', page, re.S)
    return found[0] if found else ""


def test_the_sections_say_what_was_measured(run: Run, tmp_path: Path) -> None:
    page = build(run, tmp_path)
    kept, budgets = (" ".join(" ".join(Outline(section(page, s)).text).split()) for s in ("agreement", "fairness"))
    assert "Without a cell of their own, so not shown: pool@144" in kept
    assert "which count nowhere here: m@144" in kept
    assert "24 × 24 grid" in kept and "FEATHER" in kept and "Every layer in numbers" in kept
    fairness = summarise([run], resamples=20).fairness
    grid = fairness.row("grid@144")
    assert grid is not None
    for value in (quantity(grid.kv_bytes, "B"), quantity(grid.flops, ""), "144.0", "576.0", "all alike"):
        assert value.replace(NBSP, " ") in budgets.replace(NBSP, " ")
    assert "may be compared" in budgets and "Unequal" not in budgets


def test_rows_that_differ_are_warned_of_in_both_places(tmp_path: Path) -> None:
    methods = METHODS | {"far@144": FakeMethod(0.8, [(0, 160)])}
    page = build(write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=8), tmp_path)
    warning = "Rows at @144 do not have equal budgets"
    assert warning in section(page, "fairness") and "Unequal." in section(page, "fairness")
    notes = re.search(r"<aside.*?</aside>", page, re.S)
    assert notes and warning in notes[0]
    assert "far@144 has 160.0 (11.1 % more)" in notes[0]


def test_one_method_without_known_cells_has_a_short_section(tmp_path: Path) -> None:
    methods = {name: METHODS[name] for name in ("upper_bound", "fastv@144")}
    run = write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=6)
    for path in run.path.rglob("samples.parquet"):
        pd.read_parquet(path).drop(columns="asked_map").to_parquet(path, index=False)
    found = section(build(run, tmp_path), "agreement")
    assert found.count("<figure>") == 1 and "overlap" not in found.split('<p class="fine">')[0].lower()


def test_a_method_that_loses_its_last_cells_is_shown_up_to_there(tmp_path: Path) -> None:
    methods = METHODS | {"fading@144": FakeMethod(0.8, [(0, 144), (4, 5)], merged=5)}
    run = write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=8)
    page = build(run, tmp_path)
    found = section(page, "agreement")
    assert "nan" not in " ".join(Outline(found).text) and "nan" not in re.sub("aria-[a-z]*=", "", found)
    assert found.count(" fading@144: unknown") == found.count('title="fading@144 and ') == 3
    assert "fading@144: kept of the cells asked about. from layer 0: " in found and "fading@144: –" in found
    assert "Of 3 pairs, " in found  # of the other methods; a fourth would make 6


def test_the_unpruned_model_alone_has_no_section(tmp_path: Path) -> None:
    methods = {"upper_bound": METHODS["upper_bound"]}
    page = build(write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=6), tmp_path)
    assert section(page, "agreement") == "" and "#agreement" not in page
    assert section(page, "fairness")


def test_other_budgets_fold_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "MOST_TOGETHER", 2)
    methods = METHODS | {f"m{i}@64": FakeMethod(0.5, [(0, 64)]) for i in range(2)}
    found = section(
        build(write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=6), tmp_path), "agreement"
    )
    assert "<h3>About 144 tokens</h3>" in found and "<summary>About 64 tokens: 2 methods</summary>" in found
    assert found.count("overlaps-by-layer") == 2  # the table's caption and what points to it; of one group only
    ids = re.findall(r' id="([^"]+)"', found)
    assert len(ids) == len(set(ids))


@pytest.fixture(scope="module")
def harmless(run: Run, tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    page = build(run, tmp_path_factory.mktemp("page"))
    return {
        (t, name)
        for s in ("agreement", "fairness")
        for t, found in Outline(section(page, s)).elements
        for name in found
    }


@pytest.mark.parametrize("label", [h for h in HOSTILE if len(h) < 100])
def test_hostile_names_of_methods_do_nothing(label: str, harmless: set[tuple[str, str]], tmp_path: Path) -> None:
    label = label.replace("\x00", "")  # no manifest holds one
    names = {"upper_bound": "upper_bound", label: "fastv@144", f"{label}@144": "grid@144", "z@64": "random@144"}
    methods = {name: METHODS[old] for name, old in names.items()}
    methods["m@144"] = FakeMethod(0.5, [(0, 160)], merged=3)
    page = build(write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=6), tmp_path)
    for name in ("agreement", "fairness"):
        found = Outline(section(page, name))
        assert clean(label) in "".join(found.text)
        assert {(t, attribute) for t, a in found.elements for attribute in a} <= harmless
        assert not {"script", "img", "style", "iframe"} & set(found.tags())
        assert not UNSAFE.search(section(page, name).replace("\n", " "))


def test_series_are_those_of_the_page(run: Run) -> None:
    summary = summarise([run], resamples=20)
    (only,) = agreement_parts(summary.agreement, summary.fairness, numbered(summary))
    assert only.panels is not None
    assert [panel.label for panel in only.panels.panels] == ["fastv@144", "random@144", "grid@144", "m@144"]
