"""Which cells methods keep: cases worked out by hand, and intervals."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from analysis.kept import CELLS, Keep, measured, rows

from atp_eval.analysis import measure_agreement, tally
from atp_eval.analysis.summary import plain
from atp_eval.analysis.tally import ByChance


def test_overlap_is_the_jaccard_index_in_each_layer() -> None:
    """Layer 0: all of both. Layer 1: {0, 1, 2} and all: 3 of 576. From 2 on: {0, 1, 2} and {2, 3}: 1 of 4. The second
    sample: {5} and all, {5} and {5}: 1 of 1."""
    a = rows([{1: {0, 1, 2}}, {1: {5}}])
    b = rows([{2: {2, 3}}, {2: {5}}])
    (found,) = measured({"a": a, "b": b}).overlaps
    assert (found.first, found.second, found.samples, found.starts) == ("a", "b", 2, (0, 1, 2))
    means = [1.0, (3 / 576 + 1 / 576) / 2, (1 / 4 + 1) / 2]
    assert [v.value.value for v in found.values] == pytest.approx(means)
    assert found.at(3) == found.values[2] and found.at(1) == found.values[1]


def test_chance_is_that_of_the_same_counts() -> None:
    """Of 576 cells: one and one meet with probability 1 / 576; all and any are the any's share."""
    a, b = rows([{1: {7}}, {1: {7}}]), rows([{2: {9}}, {2: {7}}])
    (found,) = measured({"a": a, "b": b}).overlaps
    assert [v.chance for v in found.values] == pytest.approx([1.0, 1 / 576, 1 / 576])
    assert found.values[2].gain.value == pytest.approx(0.5 - 1 / 576)


@pytest.mark.parametrize("cells", [5, 6])
def test_chance_is_the_mean_over_all_draws(cells: int) -> None:
    chance = ByChance(cells)
    for a, b in itertools.product(range(1, cells + 1), repeat=2):
        first = set(range(a))
        draws = [set(draw) for draw in itertools.combinations(range(cells), b)]
        mean = np.mean([len(first & draw) / len(first | draw) for draw in draws])
        assert chance(np.array([a]), np.array([b]))[0] == pytest.approx(mean)
    assert np.isnan(chance(np.array([0, 2]), np.array([2, 0]))).all()


def test_chance_is_near_the_expected_intersection_where_counts_are_large() -> None:
    """E|A & B| = 144 * 82 / 576 = 20.5, of a union of 205.5."""
    found = ByChance(CELLS)(np.array([144]), np.array([82]))[0]
    assert found == pytest.approx(20.5 / 205.5, rel=0.01)
    assert found > 20.5 / 205.5


def test_recall_is_the_share_of_the_asked_cells_and_chance_that_of_all() -> None:
    """First: {0, 1} of {1, 2, 3, 4} is 1/4, kept are 2 of 576. Second: {0, 1} of {0, 1} is all, kept are 4 of 576."""
    a = rows([{1: {0, 1}}, {1: {0, 1, 2, 3}}], asked=[{1, 2, 3, 4}, {0, 1}])
    (found,) = measured({"a": a}).places
    assert (found.samples, found.asked, found.starts) == (2, 2, (0, 1))
    assert [v.value.value for v in found.recall] == pytest.approx([1.0, (1 / 4 + 1) / 2])
    assert [v.chance for v in found.recall] == pytest.approx([1.0, 3 / 576])
    assert found.kept == pytest.approx((1.0, 3 / 576))
    assert found.recall[1].gain.value == pytest.approx(5 / 8 - 3 / 576)


def test_questions_about_nothing_known_count_for_places_only() -> None:
    a = rows([{1: {0}}, {1: {0}}, {1: {0}}], asked=[{0, 1}, set(), None])
    found = measured({"a": a})
    (place,) = found.places
    assert (place.samples, place.asked) == (3, 1)
    assert place.recall[1].value.value == 0.5
    without = measured({"a": a.assign(asked_map=None)})
    assert without.places[0].recall == () and without.places[0].asked == 0
    assert without.asked_row is None and without.asked_column is None


def test_places_go_from_the_top_left_to_the_bottom_right() -> None:
    """Row r of 24 is r / 23. Cells 0 and 24 * 23: rows 0 and 1. Second sample: the last cell of all."""
    (found,) = measured({"a": rows([{2: {0, 24 * 23}}, {2: {CELLS - 1}}])}).places
    assert found.starts == (0, 2)
    assert [r.value for r in found.row] == pytest.approx([0.5, (0.5 + 1) / 2])
    assert [c.value for c in found.column] == pytest.approx([0.5, (0 + 1) / 2])
    found = measured({"a": rows([{0: {46}}] * 2)}).places[0]  # row 1, column 22
    assert (found.row[0].value, found.column[0].value) == pytest.approx((1 / 23, 22 / 23))


def test_a_grid_of_one_row_lies_in_the_middle() -> None:
    (found,) = measured({"a": rows([{0: {4}}], grid=(1, 5))}).places
    assert (found.row[0].value, found.column[0].value) == (0.5, 1.0)


def test_the_cells_asked_about_have_a_place_whatever_is_kept() -> None:
    """Of rows 0 and 23 once, of row 23 once; the third is about nothing, and no method has a cell of it."""
    asked = [{0, CELLS - 1}, {CELLS - 24}, set()]
    found = measured({"a": rows([{0: {3}}, {0: set()}, None], asked=asked)})
    assert found.asked_row is not None and found.asked_column is not None
    assert found.asked_row.value == pytest.approx((0.5 + 1) / 2)
    assert found.asked_column.value == pytest.approx((0.5 + 0) / 2)


def test_methods_without_cells_of_their_own_are_left_out() -> None:
    """Pooled tokens stand for no cell; a method that merges some has cells and is marked."""
    pooled, merging = rows([{0: set()}] * 2, merged=144), rows([{0: {1, 2}}] * 2, merged=5)
    found = measured({"pool": pooled, "merge": merging, "plain": rows([{0: {1}}] * 2)})
    assert [p.label for p in found.places] == ["merge", "plain"]
    assert [p.merged for p in found.places] == [True, False]
    assert [(o.first, o.second) for o in found.overlaps] == [("merge", "plain")]
    assert found.overlap("plain", "merge") is found.overlaps[0]
    assert found.overlap("pool", "plain") is None and found.place("pool") is None


def test_a_layer_without_a_cell_left_is_unknown_there_alone() -> None:
    found = measured({"a": rows([{1: {0}, 2: set()}] * 2, merged=3), "b": rows([{0: {0}}] * 2)})
    assert [v.value.value for v in found.overlaps[0].values][:2] == pytest.approx([1 / 576, 1.0])
    assert np.isnan(found.overlaps[0].values[2].value.value) and np.isnan(found.places[0].row[2].value)
    json.dumps(plain(found), allow_nan=False)


def test_only_samples_that_both_answered_are_compared() -> None:
    a, b = rows([{0: {0}}, {0: {0}}, {0: {0}}]), rows([{0: {0}}, None, {0: {1}}])
    found = measured({"a": a, "b": b.iloc[:2]})
    assert found.overlaps[0].samples == 1 and found.overlaps[0].values[0].value.value == 1.0
    assert [p.samples for p in found.places] == [3, 1]


def test_benchmarks_are_put_together_and_every_question_weighs_alike() -> None:
    a, b = rows([{0: {0}}] * 3), rows([{0: {0}}] * 3)
    pieces = [("gqa", {"a": a, "b": b}), ("pope", {"a": rows([{0: {1}}]), "b": rows([{0: {2}}])})]
    found = measure_agreement(pieces, [["a", "b"]], resamples=50)
    assert found is not None
    assert found.overlaps[0].samples == 4
    assert found.overlaps[0].values[0].value.value == 0.75
    assert found.pictures == 3  # the same names are the same pictures


def test_documents_without_a_picture_stand_alone() -> None:
    frame = rows([{0: {0}}] * 2, image_id=None)
    found = measure_agreement([("gqa", {"a": frame}), ("pope", {"a": frame})], [["a"]], resamples=20)
    assert found is not None and found.pictures == 4


def test_nothing_to_measure_is_none() -> None:
    assert measure_agreement([], [["a"]]) is None
    assert measure_agreement([("gqa", {"a": rows([None, None])})], [["a"]]) is None


def test_traces_of_another_shape_are_left_out() -> None:
    found = measured({"a": rows([{0: {0}}] * 2), "b": rows([{0: {0}}] * 2, grid=(6, 6))})
    assert [p.label for p in found.places] == ["a"] and found.overlaps == ()


def test_only_methods_of_a_group_are_compared() -> None:
    one = rows([{0: {0}}] * 2)
    groups = [["a", "b"], ["c"]]
    found = measure_agreement([("gqa", {"a": one, "b": one, "c": one, "d": one})], groups, resamples=20)
    assert found is not None and found.groups == (("a", "b"), ("c",))
    assert [(o.first, o.second) for o in found.overlaps] == [("a", "b")]
    assert [p.label for p in found.places] == ["a", "b", "c"]


def test_what_is_the_same_for_every_question_has_no_interval() -> None:
    found = measured({"a": rows([{0: {0, 3, 7}}] * 9), "b": rows([{0: {0}}] * 9)})
    assert not found.overlaps[0].values[0].value.bounded and not found.overlaps[0].values[0].gain.bounded
    assert not found.places[0].row[0].bounded


def test_intervals_hold_the_value_and_the_gain_moves_with_it() -> None:
    """Every second pair of questions agrees; each of 40 pictures has two."""
    a = rows([{0: {0}}] * 80, image_id=[f"p{i // 2}" for i in range(80)])
    b = rows([{0: {i // 2 % 2}} for i in range(80)], image_id=[f"p{i // 2}" for i in range(80)])
    value = measured({"a": a, "b": b}, resamples=2000).overlaps[0].values[0]
    assert value.value.value == 0.5
    # The standard error of 40 pictures is 0.079.
    assert value.value.low == pytest.approx(0.5 - 1.96 * 0.079, abs=0.03)
    assert value.value.high == pytest.approx(0.5 + 1.96 * 0.079, abs=0.03)
    assert value.gain.low == pytest.approx(value.value.low - 1 / 576)


def test_questions_about_one_picture_are_drawn_together() -> None:
    """As above with each picture's questions counted as independent, the interval would be narrower by root 2."""
    keeps: list[Keep] = [{0: {i // 2 % 2}} for i in range(80)]
    alone, together = (
        measured(
            {"a": rows([{0: {0}}] * 80, image_id=names), "b": rows(keeps, image_id=names)}, resamples=2000
        ).overlaps[0].values[0].value
        for names in ([f"p{i}" for i in range(80)], [f"p{i // 2}" for i in range(80)])
    )  # fmt: skip
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(2**0.5, rel=0.15)


def test_more_pictures_than_are_held_give_about_the_same_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    keeps: list[Keep] = [{0: {int(i)}} for i in rng.integers(0, 2, 3000)]
    methods = {"a": rows([{0: {0}}] * 3000), "b": rows(keeps)}
    exact = measured(methods, resamples=1000).overlaps[0].values[0].value
    monkeypatch.setattr(tally, "MOST_CLUSTERS", 300)
    pooled = measured(methods, resamples=1000)
    assert pooled.pictures == 3000
    value = pooled.overlaps[0].values[0].value
    assert value.value == pytest.approx(exact.value)
    assert value.high - value.low == pytest.approx(exact.high - exact.low, rel=0.2)
