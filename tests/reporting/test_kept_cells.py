"""What is said about kept cells and equal budgets."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from reporting.overlaps import FOUND, OVERLAPS, PLACES, costs, overlap, placed, said

from atp_eval.analysis import (
    Compared,
    Interval,
    Overlap,
)
from atp_eval.reporting.agreement import overlap_words, place_words, recall_words
from atp_eval.reporting.fairness import quantity, verdict


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
