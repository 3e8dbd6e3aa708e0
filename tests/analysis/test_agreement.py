"""Which cells methods keep: cases by hand, a slow literal version, chance by enumeration, and run folders."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from synthetic import METHODS, FakeMethod, write_run

from atp_eval.analysis import Agreement, agreement, measure, measure_agreement, summarise, tally, write_summary
from atp_eval.analysis.agreement import agreement_rows
from atp_eval.analysis.export import agreement_frame
from atp_eval.analysis.reading import entries
from atp_eval.analysis.summary import plain
from atp_eval.analysis.tally import ByChance, Running
from atp_eval.records import asked_text
from atp_eval.trace import KeepTrace, Stage

GRID, LAYERS = (24, 24), 4
CELLS = 576
Keep = dict[int, set[int]]  # layer -> cells that stay from it on


def text(keep: Keep | None, grid: tuple[int, int] = GRID, merged: int = 0) -> str | None:
    if keep is None:
        return None
    cells = np.arange(grid[0] * grid[1])
    stages = tuple(Stage(layer, np.isin(cells, list(kept)), merged) for layer, kept in sorted(keep.items()))
    return json.dumps(KeepTrace(grid, LAYERS, stages).to_json())


def rows(keeps: Sequence[Keep | None], asked: Sequence[set[int] | None] | None = None, **options: Any) -> pd.DataFrame:
    """One question a picture, unless `image_id` says otherwise."""
    count = len(keeps)
    known = [None] * count if asked is None else [None if a is None else asked_text(sorted(a)) for a in asked]
    columns = {"doc_id": range(count), "image_id": [f"picture {i}" for i in range(count)]}
    traces = [text(k, **{k: v for k, v in options.items() if k in ("grid", "merged")}) for k in keeps]
    frame = pd.DataFrame({**columns, "trace": traces, "asked_map": known}).astype(
        {"trace": object, "asked_map": object}
    )
    return frame.assign(**{k: v for k, v in options.items() if k not in ("grid", "merged")})


def measured(methods: Mapping[str, pd.DataFrame], **options: Any) -> Agreement:
    options = {"resamples": 200, **options}
    found = measure_agreement([("gqa", dict(methods))], [list(methods)], **options)
    assert found is not None
    return found


# ------------------------------------------------------------------ by hand


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


# ------------------------------------------------------------------ intervals


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


# ------------------------------------------------------------------ against a literal version


def literal(
    a: Sequence[Keep | None], b: Sequence[Keep | None], asked: Sequence[set[int]], layer: int
) -> dict[str, list[float]]:
    """Sample by sample, with sets."""
    everything = set(range(CELLS))
    found: dict[str, list[float]] = {"jaccard": [], "recall": [], "row": []}
    for one, other, wanted in zip(a, b, asked, strict=True):
        sets = []
        for keep in (one, other):
            entering = everything
            for start, cells in sorted((keep or {}).items()):
                entering = cells if start <= layer else entering
            sets.append(entering if keep is not None else set())
        first, second = sets
        if first and second:
            found["jaccard"].append(len(first & second) / len(first | second))
        if first and wanted:
            found["recall"].append(len(first & wanted) / len(wanted))
        if first:
            found["row"].append(sum(cell // 24 / 23 for cell in first) / len(first))
    return found


some_cells = st.sets(st.integers(0, CELLS - 1), max_size=12)
keeps_of = st.one_of(st.none(), st.dictionaries(st.integers(0, LAYERS - 1), some_cells, max_size=3))
questions = st.lists(st.tuples(keeps_of, keeps_of, some_cells), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(questions, st.integers(1, 4))
def test_it_is_what_a_literal_version_gives_in_any_pieces(samples: list[Any], size: int) -> None:
    a, b, asked = ([s[i] for s in samples] for i in range(3))
    frames = {"a": rows(a, asked), "b": rows(b, asked)}

    def pieces() -> Iterator[tuple[str, dict[str, pd.DataFrame]]]:
        for start in range(0, len(samples), size):
            yield "gqa", {label: frame.iloc[start : start + size] for label, frame in frames.items()}

    found = measure_agreement(pieces(), [["a", "b"]], resamples=20)
    if all(keep is None for keep in (*a, *b)):
        assert found is None
        return
    assert found is not None
    for layer in range(LAYERS):
        want = literal(a, b, asked, layer)
        overlap, place = found.overlap("a", "b"), found.place("a")
        if want["jaccard"]:
            assert overlap is not None
            value = overlap.at(layer)
            assert value.value.value == pytest.approx(np.mean(want["jaccard"]))
            assert 0 <= value.value.value <= 1 and 0 < value.chance <= 1 + 1e-12
            assert value.gain.value == pytest.approx(value.value.value - value.chance)
        if want["row"]:
            assert place is not None
            assert place.row[place.span(layer)].value == pytest.approx(np.mean(want["row"]))
            assert 0 <= place.row[place.span(layer)].value <= 1
        if want["recall"]:
            assert place is not None
            recall = place.recall[place.span(layer)]
            assert recall.value.value == pytest.approx(np.mean(want["recall"]))
            assert 0 <= recall.value.value <= 1 and 0 <= recall.chance <= 1


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(some_cells, some_cells), min_size=1, max_size=5))
def test_overlap_is_symmetric_and_whole_with_oneself(samples: list[tuple[set[int], set[int]]]) -> None:
    a, b = rows([{1: first} for first, _ in samples]), rows([{1: second} for _, second in samples])
    found = measured({"a": a, "b": b, "same": a}, resamples=20)
    turned = measured({"b": b, "a": a}, resamples=20)
    for layer in range(LAYERS):
        one, other = found.overlap("a", "b"), turned.overlap("a", "b")
        assert one is not None and other is not None
        assert one.at(layer).value.value == pytest.approx(other.at(layer).value.value, nan_ok=True)
        assert one.at(layer).chance == pytest.approx(other.at(layer).chance, nan_ok=True)
    same = found.overlap("a", "same")
    assert same is not None
    assert all(v.value.value == pytest.approx(1.0) for v in same.values if v.value.value == v.value.value)


def test_a_layer_at_which_something_changes_may_come_late() -> None:
    """The first pieces change at layer 2 only, a later one at layer 1: before, layer 1 was like layer 0."""
    running = Running(2)
    one = sparse.csr_array(np.ones((1, 1)))
    running.add((0, 2), np.array([[[10.0, 1], [20, 1]]]), one)
    running.add((0, 1), np.array([[[1.0, 1], [2, 1]]]), one)
    running.add((0,), np.array([[[np.nan, np.nan]]]), one)
    assert running.starts == (0, 1, 2)
    assert running.sums.tolist() == [[[11, 2], [12, 2], [22, 2]]]
    assert running.samples == 2


# ------------------------------------------------------------------ from run folders


def test_a_summary_holds_the_pruning_methods(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", methods=METHODS | {"pool@144": FakeMethod(0.7, [(0, 144)], merged=144)})
    found = summarise([run], resamples=50).agreement
    assert found is not None
    assert found.groups == (("fastv@144", "random@144", "grid@144", "pool@144"),)
    assert {p.label for p in found.places} == {"fastv@144", "random@144", "grid@144"}
    assert len(found.overlaps) == 3 and all(o.samples == 72 for o in found.overlaps)
    traces = run.samples().groupby("method")["trace"].apply(list)
    keeps = [[KeepTrace.from_json(json.loads(t)).keep_at(7) for t in traces[m]] for m in ("fastv@144", "grid@144")]
    both = np.mean([(a & b).sum() / (a | b).sum() for a, b in zip(*keeps, strict=True)])
    overlap = found.overlap("grid@144", "fastv@144")
    assert overlap is not None and overlap.at(7).value.value == pytest.approx(both)
    grid = found.place("grid@144")
    assert grid is not None and grid.asked == sum(3 for i in range(24) if i % 7)
    assert grid.recall[0].chance == pytest.approx(0.25)


def test_pieces_of_files_are_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", documents=20)
    whole = agreement_frame(summarise([run], resamples=50).agreement)
    monkeypatch.setattr(agreement, "PIECE", 12)
    sizes = [len(f) for _, piece in agreement_rows(entries([run])) for f in piece.values()]
    assert max(sizes) == 3 and sum(sizes) == 20 * 3 * 4
    pd.testing.assert_frame_equal(agreement_frame(summarise([run], resamples=50).agreement), whole)


def test_many_methods_are_compared_within_budgets_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = {f"m{i}@{n}": FakeMethod(0.5, [(0, n)]) for n in (144, 64) for i in (1, 2)}
    run = write_run(tmp_path / "run", methods=METHODS | methods, benchmarks=["gqa"], documents=6)
    together = summarise([run], resamples=20).agreement
    assert together is not None and len(together.groups) == 1 and len(together.overlaps) == 21
    monkeypatch.setattr(measure, "MOST_TOGETHER", 6)
    apart = summarise([run], resamples=20).agreement
    assert apart is not None
    assert set(apart.groups) == {
        ("m1@64", "m2@64"),
        ("fastv@144", "random@144", "grid@144", "m1@144", "m2@144"),
    }
    assert len(apart.overlaps) == 11


def test_the_unpruned_model_alone_says_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", methods={"upper_bound": METHODS["upper_bound"]}, benchmarks=["gqa"])
    assert summarise([run], resamples=20).agreement is None


def test_a_run_of_before_asked_cells_were_recorded_is_measured_without_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", benchmarks=["gqa"])
    for path in run.path.rglob("samples.parquet"):
        pd.read_parquet(path).drop(columns="asked_map").to_parquet(path, index=False)
    found = summarise([run], resamples=20).agreement
    assert found is not None and found.asked_row is None
    assert all(p.recall == () and p.asked == 0 for p in found.places)


def test_the_table_has_a_row_for_every_stretch_of_layers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", benchmarks=["gqa"])
    summary = summarise([run], resamples=50)
    write_summary(summary, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "agreement.csv")
    pairs = table[table["measure"] == "overlap"]
    assert pairs[["method", "other", "first_layer", "last_layer"]].values.tolist() == [
        ["fastv@144", "random@144", 0, 1],
        ["fastv@144", "random@144", 2, 7],
        ["fastv@144", "grid@144", 0, 1],
        ["fastv@144", "grid@144", 2, 7],
        ["random@144", "grid@144", 0, 1],
        ["random@144", "grid@144", 2, 7],
    ]
    found = summary.agreement
    assert found is not None
    overlap = found.overlap("fastv@144", "grid@144")
    assert overlap is not None
    assert pairs["value"].tolist()[3] == pytest.approx(overlap.at(7).value.value)
    assert pairs["chance"].tolist()[3] == pytest.approx(overlap.at(7).chance)
    assert pairs["gain"].tolist()[3] == pytest.approx(overlap.at(7).gain.value)
    assert set(table["measure"]) == {"overlap", "asked", "row", "column"}
    grid = table[(table["measure"] == "row") & (table["method"] == "grid@144")]
    assert grid[["first_layer", "last_layer"]].values.tolist() == [[0, 7]] and grid["chance"].isna().all()


def test_files_without_rows_are_not_left_from_before(tmp_path: Path) -> None:
    names = ("agreement.csv", "fairness.csv", "adaptivity.csv")
    for name in names:
        (tmp_path / name).write_text("old")
    run = write_run(tmp_path / "run", methods={"upper_bound": METHODS["upper_bound"]}, benchmarks=["gqa"])
    written = write_summary(summarise([run], resamples=20), tmp_path)
    assert [(tmp_path / name).exists() for name in names] == [False, True, False]
    assert (tmp_path / "fairness.csv") in written and (tmp_path / "fairness.csv").read_text() != "old"
