"""Tables and figures about kept cells and equal budgets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.axes import Axes
from reporting.overlaps import FOUND, NUMBERS, OVERLAPS, PLACES, costs, part, said

from atp_eval.analysis import (
    Interval,
)
from atp_eval.plotting import drawn
from atp_eval.reporting.agreement import agreement_parts, shade
from atp_eval.reporting.places import places_chart, recall_panels


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
