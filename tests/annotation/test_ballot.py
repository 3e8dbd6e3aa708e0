"""What is voted on: who is drawn, evenly, the same everywhere, sides in halves, and why nothing can be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import METHODS, FakeMethod, Texts, plain_picture, write_run

from atp_eval.analysis.reading import entries
from atp_eval.annotation.ballot import Ballot, draw, evenly, halves, table
from atp_eval.annotation.page import reveal_page, vote_page
from atp_eval.errors import UserError
from atp_eval.records import Run

A, B = "upper_bound", "random@144"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("ballot") / "run", documents=60, pictures=plain_picture, keep_images=60)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("ballot") / "bare", documents=60)


def names(ballot: Ballot) -> list[str]:
    return [item.sample for item in ballot.items]


def test_only_samples_that_differ_are_drawn_with_both_answers_of_their_own(run: Run) -> None:
    ballot = draw([run], A, B, 30)
    both = {e.label: e for e in entries([run])}
    for item in ballot.items:
        rows = [both[label].rows(item.benchmark, docs=[item.doc_id]).iloc[0] for label in (A, B)]
        assert item.answers == tuple(row["response"] for row in rows)
        assert item.scores == tuple(row["score"] for row in rows)
        assert item.answers[0] != item.answers[1]
        assert item.asked == rows[0]["prompt"] and item.target == rows[0]["target"]
        assert item.image == rows[0]["image_id"] and item.picture == run.image(item.image)
        assert item.shown == (item.answers if item.left == "a" else item.answers[::-1])


def test_pools_count_what_was_there(run: Run) -> None:
    ballot = draw([run], A, B, 12)
    assert [pool.drawn for pool in ballot.pools.values()] == [4, 4, 4]
    both = {e.label: e for e in entries([run])}
    for name, pool in ballot.pools.items():
        first, second = (both[label].rows(name)["response"] for label in (A, B))
        same = int((first == second).sum())
        assert (pool.answered, pool.identical, pool.stands_for) == (60, same, 60 - same) and 0 < same < 60
        assert pool.eligible == 60 - same
    everything = draw([run], A, B, 12, include_identical=True)
    assert all(pool.stands_for == pool.eligible == 60 for pool in everything.pools.values())


def test_failures_are_not_answers(tmp_path: Path) -> None:
    methods = {A: FakeMethod(0.9), B: FakeMethod(0.4, errors=0.5)}
    made = write_run(tmp_path / "run", methods=methods, benchmarks=("gqa",), documents=40)
    ballot = draw([made], A, B, 100, include_identical=True)
    failed = int(entries([made])[1].rows("gqa")["error"].notna().sum())
    assert 0 < failed < 40 and ballot.pools["gqa"].answered == len(ballot.items) == 40 - failed


def test_the_same_seed_draws_the_same_and_another_does_not(run: Run) -> None:
    one, same, other = (draw([run], A, B, 20, seed=seed) for seed in (0, 0, 1))
    assert one == same and one.page == same.page
    assert names(one) != names(other) and one.page != other.page
    assert draw([run], A, B, 20, hint="be strict").page != one.page
    assert draw([run], B, A, 20).page != one.page


def test_more_samples_of_a_seed_include_the_fewer(run: Run) -> None:
    assert set(names(draw([run], A, B, 9))) <= set(names(draw([run], A, B, 18)))


def test_benchmarks_mix_and_sides_come_in_halves(run: Run) -> None:
    ballot = draw([run], A, B, 24)
    lefts = Counter(item.left for item in ballot.items)
    assert lefts["a"] == lefts["b"] == 12
    order = [item.benchmark for item in ballot.items]
    assert order != sorted(order)
    sides = "".join(item.left for item in ballot.items)
    assert "aa" in sides and "bb" in sides  # no alternation that could be guessed


def test_pictures_are_not_repeated_while_there_are_others(run: Run) -> None:
    ballot = draw([run], A, B, 12)
    assert len({item.image for item in ballot.items}) == 12


def test_only_pictures_that_were_kept_unless_asked(tmp_path: Path) -> None:
    made = write_run(tmp_path / "run", benchmarks=("gqa",), documents=60, pictures=plain_picture, keep_images=20)
    ballot = draw([made], A, B, 60)
    assert ballot.pictured == len(ballot.items) == ballot.pools["gqa"].eligible
    assert all(item.doc_id < 20 for item in ballot.items)
    wide = draw([made], A, B, 60, any_picture=True)
    assert len(wide.items) > len(ballot.items) == wide.pictured


def test_a_run_without_pictures_still_makes_pages_that_say_so(bare: Run) -> None:
    ballot = draw([bare], A, B, 5)
    assert len(ballot.items) == 5 and ballot.pictured == 0
    assert "No picture is shown" in vote_page(ballot)
    assert "The run kept no pictures of them" in reveal_page(ballot)


def test_blanks_make_no_difference(tmp_path: Path) -> None:
    made = write_run(tmp_path / "run", benchmarks=("gqa",), texts=Texts(right="a  red\ncube ", wrong="a red cube"))
    first, second = (e for e in entries([made]) if e.label in (A, B))
    assert table(first, second, "gqa")["identical"].all()
    with pytest.raises(UserError, match="same answer to all 24 samples; --include-identical"):
        draw([made], A, B, 5)
    assert len(draw([made], A, B, 5, include_identical=True).items) == 5


def test_methods_of_two_runs_and_not_of_two_protocols(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", methods={A: METHODS[A]}, benchmarks=("gqa",))
    two = write_run(tmp_path / "two", methods={B: METHODS[B]}, benchmarks=("gqa",))
    assert draw([one, two], A, B, 3).items
    other = write_run(tmp_path / "other", methods={B: METHODS[B]}, benchmarks=("gqa",), protocol={"dtype": "bfloat16"})
    with pytest.raises(UserError, match="differ in dtype"):
        draw([one, other], A, B, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"a": "upper"}, "unknown method of the run 'upper'. Did you mean: upper_bound"),
        ({"b": "upper_bound"}, "both 'upper_bound'"),
        ({"count": 0}, "-n 0: at least 1"),
        ({"benchmarks": ["gqaa"]}, "'gqaa'. Did you mean: gqa"),
    ],
)
def test_what_cannot_be_drawn_is_refused(run: Run, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        draw([run], **{"a": A, "b": B, "count": 5, **options})


def test_where_no_picture_of_what_differs_was_kept(tmp_path: Path) -> None:
    made = write_run(tmp_path / "run", benchmarks=("gqa",), documents=30)
    (made.path / "images").mkdir()
    (made.path / "images" / "other.webp").write_bytes(b"")
    with pytest.raises(UserError, match="--keep-images, or vote without pictures by --any-picture"):
        draw([made], A, B, 5)
    assert draw([made], A, B, 5, any_picture=True).pictured == 0


@given(st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 30), min_size=1), st.integers(1, 100))
def test_shares_are_even_up_to_what_there_is(available: dict[str, int], count: int) -> None:
    taken = evenly(available, count)
    assert sum(taken.values()) == min(count, sum(available.values()))
    assert all(0 <= taken[name] <= available[name] for name in available)
    short = [taken[name] for name in available if taken[name] < available[name]]
    assert not short or max(taken.values()) - min(short) <= 1  # nobody has two more than one that had more to give


@given(st.integers(1, 60), st.integers(0, 5))
def test_halves(count: int, seed: int) -> None:
    sides = Counter(halves([f"gqa/{i}" for i in range(count)], seed).values())
    assert sides["a"] - sides["b"] == count % 2


def test_a_table_of_nothing_but_failures(tmp_path: Path) -> None:
    methods = {A: FakeMethod(0.9, errors=1.0), B: FakeMethod(0.4, errors=1.0)}
    made = write_run(tmp_path / "run", methods=methods, benchmarks=("gqa",), documents=6)
    first, second = entries([made])
    found = table(first, second, "gqa")
    assert isinstance(found, pd.DataFrame) and not found["answered"].any() and not found["identical"].any()
    with pytest.raises(UserError, match="answered no sample both"):
        draw([made], A, B, 5)
