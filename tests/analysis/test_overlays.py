"""Which samples are shown, and the runs of cells that are drawn over them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from synthetic import METHODS, FakeMethod, plain_picture, write_run

from atp_eval.analysis.overlays import cell_runs, choose, fair_shares, interesting_samples, named_samples, spread
from atp_eval.errors import UserError
from atp_eval.records import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("run") / "one"
    return write_run(path, benchmarks=("gqa", "pope", "mme"), pictures=plain_picture, keep_images=12, documents=40)


def candidates(differs: list[bool], **columns: object) -> pd.DataFrame:
    """Documents 0, 1, ... as `choose` takes them, shuffled as they are numbered."""
    n = len(differs)
    frame = {"pictured": [True] * n, "pattern": [b"x"] * n, "image": [f"i{i}" for i in range(n)], "range": [1.0] * n}
    return pd.DataFrame({"doc_id": range(n), "differs": differs, "dice": range(n), **frame, **columns})


def test_every_benchmark_has_the_same_share_and_pictures_come_first(run: Run) -> None:
    found = interesting_samples([run], 18)
    assert Counter(s.benchmark for s in found) == {"gqa": 6, "pope": 6, "mme": 6}
    assert all(s.image is not None for s in found)
    assert [(s.benchmark, s.doc_id) for s in found] == sorted(
        [(s.benchmark, s.doc_id) for s in found], key=lambda pick: (("gqa", "pope", "mme").index(pick[0]), pick[1])
    )


def test_a_quarter_is_random_and_the_rest_is_where_methods_differ(run: Run) -> None:
    found = interesting_samples([run], 24)
    assert sum(s.at_random for s in found) == 6
    labels = [a.label for a in found[0].answers]
    assert labels == list(METHODS)
    trace = found[0].answers[1].trace
    assert trace is not None and trace.final == 1


def test_what_is_drawn_at_random_knows_nothing_of_the_answers() -> None:
    dull, lively = [choose(candidates([value] * 20), 8, 0.5) for value in (False, True)]
    assert (
        [doc for doc, drawn in dull.items() if drawn] == [doc for doc, drawn in lively.items() if drawn] == [0, 1, 2, 3]
    )


def test_samples_that_differ_come_before_others_and_fillers_are_not_called_random() -> None:
    differs = [False, False, False, True, False, True]
    assert choose(candidates(differs), 4, 0.25) == {0: True, 3: False, 5: False, 1: False}


def test_a_picture_goes_before_a_difference() -> None:
    frame = candidates([True, True, False, False], pictured=[False, False, True, True])
    assert list(choose(frame, 2, 0.0)) == [2, 3]


def test_patterns_and_pictures_take_turns() -> None:
    frame = candidates([True] * 6, pattern=[b"a", b"a", b"a", b"b", b"b", b"c"], image=list("uvwuxu"))
    # First of pattern and picture: 0 (a, u). 3 and 5 are new patterns of u; 1 and 2 new pictures of a; 4 a second b.
    assert set(choose(frame, 1, 0.0)) == {0}
    assert set(choose(frame, 4, 0.0)) == {0, 1, 3, 4}


@settings(max_examples=40)
@given(st.dictionaries(st.text(max_size=3), st.integers(0, 30), max_size=6), st.integers(0, 100))
def test_shares_are_even_where_sizes_allow(sizes: dict[str, int], count: int) -> None:
    shares = fair_shares(sizes, count)
    assert sum(shares.values()) == min(count, sum(sizes.values()))
    assert all(0 <= shares[name] <= size for name, size in sizes.items())
    unfilled = [shares[name] for name, size in sizes.items() if shares[name] < size]
    assert not unfilled or max(shares.values()) - min(unfilled) <= 1


def test_the_choice_is_the_same_each_time(run: Run) -> None:
    first, second = ([(s.benchmark, s.doc_id, s.at_random) for s in interesting_samples([run], 9)] for _ in range(2))
    assert first == second


def test_runs_without_pictures_or_with_few_samples_still_show_what_there_is(tmp_path: Path) -> None:
    lonely = write_run(tmp_path / "run", methods={"m": FakeMethod(0.5)}, benchmarks=["gqa"], documents=3)
    found = interesting_samples([lonely], 8)
    assert [s.doc_id for s in found] == [0, 1, 2]
    assert all(s.image is None for s in found)


def test_benchmarks_can_be_chosen_and_unknown_ones_are_named(run: Run) -> None:
    assert {s.benchmark for s in interesting_samples([run], 4, ["pope"])} == {"pope"}
    with pytest.raises(UserError, match=r"unknown benchmark of this run 'popp'\. Did you mean: pope"):
        interesting_samples([run], 4, ["popp"])


def test_named_samples_come_in_the_order_they_were_named(run: Run) -> None:
    found = named_samples([run], [("pope", 30), ("gqa", 2)])
    assert [(s.benchmark, s.doc_id, s.image is None) for s in found] == [("pope", 30, True), ("gqa", 2, False)]
    with pytest.raises(UserError, match=r"gqa:40: no method has answered it\. gqa has documents 0 to 39"):
        named_samples([run], [("gqa", 40)])


def test_a_few_samples_are_of_many_benchmarks_and_pictures(run: Run) -> None:
    few = spread(interesting_samples([run], 24), 5)
    assert Counter(s.benchmark for s in few).most_common(1)[0][1] == 2
    assert len({s.image for s in few}) == 5


def test_a_run_that_squares_pictures_otherwise_lends_no_picture(tmp_path: Path) -> None:
    made = {"benchmarks": ["gqa"], "documents": 4}
    padded = write_run(tmp_path / "a", pictures=plain_picture, protocol={"image": "pad"}, **made)
    others = [write_run(tmp_path / mode, protocol={"image": mode}, **made) for mode in ("pad", "crop")]
    for other, lent in zip(others, (True, False), strict=True):
        sample = interesting_samples([padded, other], 1)[0]
        theirs = [a.image for a in sample.answers if other.path.name in a.label]
        assert len(theirs) == len(METHODS) and all((image is not None) is lent for image in theirs)


@given(st.integers(1, 6).flatmap(lambda c: st.tuples(st.just(c), arrays(bool, st.integers(1, 6).map(lambda r: r * c)))))
def test_runs_cover_exactly_the_cells(case: tuple[int, np.ndarray]) -> None:
    columns, cells = case
    drawn = np.zeros((len(cells) // columns, columns), dtype=int)
    for row, column, length in cell_runs(cells, columns):
        assert length > 0
        drawn[row, column : column + length] += 1
        assert column + length == columns or not cells.reshape(-1, columns)[row, column + length]
    np.testing.assert_array_equal(drawn, cells.reshape(-1, columns))
