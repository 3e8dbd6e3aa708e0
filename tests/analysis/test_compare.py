"""What changed between two runs, on answers whose figures can be counted by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import FakeMethod, write_run

from atp_eval.analysis.compare import Tokens, compare
from atp_eval.analysis.flips import flips
from atp_eval.analysis.mcnemar import sign_change
from atp_eval.errors import UserError
from atp_eval.records import PARQUET, Run, slug

METHODS = {"upper_bound": FakeMethod(1.0), "grid@144:layer=0": FakeMethod(0.5, [(0, 144)])}
GRID = "grid@144:layer=0"
# Right answers to eight questions about four pictures (0 and 1 about the first, and so on).
ALL, HALF = [1] * 8, [1, 1, 1, 1, 0, 0, 0, 0]


def answered(folder: Path, right: Mapping[tuple[str, str], Sequence[float]], **options: Any) -> Run:
    """A run whose answers are `yes` where they are right as told and `no` elsewhere."""
    run = write_run(
        folder,
        **{"methods": METHODS, "benchmarks": ("pope", "gqa"), "documents": len(next(iter(right.values()))), **options},
    )
    for (method, benchmark), scores in right.items():
        path = folder / slug(method) / benchmark / PARQUET
        said = ["yes" if score else "no" for score in scores]
        pd.read_parquet(path).assign(score=np.array(scores, dtype=float), response=said, error=None).to_parquet(path)
    return run


def same(**changes: Sequence[float]) -> dict[tuple[str, str], Sequence[float]]:
    """Answers of both methods to both benchmarks; `grid_pope` and the like replace them."""
    found: dict[tuple[str, str], Sequence[float]] = {}
    for method, short in (("upper_bound", "upper"), (GRID, "grid")):
        for benchmark in ("pope", "gqa"):
            found[method, benchmark] = changes.get(f"{short}_{benchmark}", ALL if short == "upper" else HALF)
    return found


def test_a_run_and_its_copy_do_not_differ(tmp_path: Path) -> None:
    found = compare(answered(tmp_path / "a", same()), answered(tmp_path / "b", same()))
    assert len(found.changes) == 4 and not found.significant and not found.flips
    for change in found.changes:
        assert change.difference.value == 0 and change.ratio.value == 100
        assert (change.changed, change.gained, change.lost, change.common) == (0, 0, 0, 8)
        assert change.nothing and change.test.p == 1.0 and change.kept is not None and change.kept.value == 0.0
    assert not found.notes and not found.protocol


def test_scores_differences_and_flips_are_those_counted_by_hand(tmp_path: Path) -> None:
    later = same(grid_pope=[0, 1, 1, 1, 1, 1, 1, 1])  # one lost, four gained
    found = compare(answered(tmp_path / "a", same()), answered(tmp_path / "b", later))
    change = found.at(GRID, "pope")
    assert change is not None
    assert (change.a.value, change.b.value) == (50.0, 87.5)
    assert change.difference.value == 37.5 and change.difference.low < 37.5 < change.difference.high
    assert change.ratio.value == 175.0
    assert (change.changed, change.gained, change.lost, change.nothing) == (5, 4, 1, False)
    # By picture: -1, 0, +2, +2; of 2^3 changes of sign, those at least 3 away: 2+2-1 = 3, 2+2+1 = 5, and their mirrors.
    assert change.test.kind == "McNemar" and change.test.p == pytest.approx(4 / 8)
    assert (change.test.gained, change.test.lost) == (4, 1)
    assert change.test.p == pytest.approx(sign_change(np.array([-1, 0, 2, 2])))
    assert [(flip.gained, flip.doc_id) for flip in found.flips] == [(True, 4), (True, 6), (False, 0)]
    lost = found.flips[-1]
    assert (lost.method, lost.benchmark, lost.a, lost.b, lost.score_a, lost.score_b) == (
        GRID,
        "pope",
        "yes",
        "no",
        1,
        0,
    )
    (average,) = [average for average in found.averages if average.method == GRID]
    assert average.ratio.value == pytest.approx((175 + 100) / 2)
    assert (average.changed, average.gained, average.lost, average.common) == (5, 4, 1, 16)


def test_answers_that_are_partly_right_are_tested_by_the_bootstrap(tmp_path: Path) -> None:
    found = compare(answered(tmp_path / "a", same()), answered(tmp_path / "b", same(grid_gqa=[0.5] * 8)))
    change = found.at(GRID, "gqa")
    assert change is not None
    assert change.test.kind == "bootstrap" and change.difference.value == 0.0
    assert (change.gained, change.lost) == (4, 4)


def test_holm_counts_all_that_is_compared(tmp_path: Path) -> None:
    many, none = [1] * 40, [0] * 40
    first = {key: many for key in same()}
    second = {**first, (GRID, "pope"): none}
    a = answered(tmp_path / "a", first, documents=40, questions_per_image=1)
    found = compare(a, answered(tmp_path / "b", second, documents=40, questions_per_image=1))
    (change,) = found.significant
    assert (change.method, change.benchmark) == (GRID, "pope")
    assert change.test.comparisons == 4 and change.test.p_holm == pytest.approx(4 * 2 / 2**40)


def test_other_kept_tokens_are_counted(tmp_path: Path) -> None:
    a = answered(tmp_path / "a", same())
    fewer = {**METHODS, GRID: FakeMethod(0.5, [(0, 72)])}
    found = compare(a, answered(tmp_path / "b", same(), methods=fewer))
    change, whole = found.at(GRID, "gqa"), found.at("upper_bound", "gqa")
    assert change is not None and change.kept is not None and whole is not None and whole.kept is not None
    assert change.kept.value == 1.0 and change.tokens == Tokens(144.0, 72.0)
    assert whole.kept.value == 0.0 and whole.tokens == Tokens(576.0, 576.0)


def test_times_are_those_of_the_second_over_the_first(tmp_path: Path) -> None:
    slower = {name: FakeMethod(m.skill, m.stages, 3 * m.seconds) for name, m in METHODS.items()}
    found = compare(answered(tmp_path / "a", same()), answered(tmp_path / "b", same(), methods=slower))
    times = [change.time for change in found.changes] + [average.time for average in found.averages]
    assert all(time is not None and time.value == pytest.approx(3.0) for time in times)


def test_only_documents_of_both_count(tmp_path: Path) -> None:
    a = answered(tmp_path / "a", same())
    b = answered(tmp_path / "b", same())
    path = b.path / slug(GRID) / "pope" / PARQUET
    pd.read_parquet(path).iloc[2:].to_parquet(path)
    found = compare(a, b)
    change = found.at(GRID, "pope")
    assert change is not None
    assert (change.common, change.only_a, change.only_b) == (6, 2, 0)
    assert change.a.value == change.b.value == pytest.approx(100 * 2 / 6)
    assert any("Not both runs have all documents of grid@144:layer=0 on pope;" in note for note in found.notes)


def test_an_error_on_one_side_is_another_answer(tmp_path: Path) -> None:
    a, b = (answered(tmp_path / name, same()) for name in "ab")
    path = b.path / slug(GRID) / "gqa" / PARQUET
    rows = pd.read_parquet(path)
    rows["score"] = [0.0, *rows["score"][1:]]
    rows["response"], rows["error"] = [None, *rows["response"][1:]], ["out of memory", *[None] * 7]
    rows.to_parquet(path)
    found = compare(a, b)
    change = found.at(GRID, "gqa")
    assert change is not None and (change.changed, change.lost) == (1, 1)
    assert [flip.b for flip in found.flips] == ["(out of memory)"]


def test_different_protocols_are_refused_by_name_unless_forced(tmp_path: Path) -> None:
    a = answered(tmp_path / "a", same())
    b = answered(tmp_path / "b", same(), protocol={"seed": 1, "weights": "other"})
    with pytest.raises(UserError, match=r"protocols \(weights: 1a2b3c4d and other; seed: 0 and 1\).*--force"):
        compare(a, b)
    found = compare(a, b, force=True)
    assert found.protocol == {"weights": ["1a2b3c4d", "other"], "seed": [0, 1]}


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    a = answered(tmp_path / "a", same())
    with pytest.raises(UserError, match="is named twice"):
        compare(a, Run(tmp_path / "x" / ".." / "a", a.manifest))
    b = write_run(tmp_path / "b", methods={"upper_bound": FakeMethod(1.0)}, benchmarks=("mme",), documents=8)
    with pytest.raises(UserError, match="no finished method and benchmark in common"):
        compare(a, b)
    with pytest.raises(UserError, match=r"unknown method of both runs 'upper'. Did you mean: upper_bound"):
        compare(a, b, ["upper"])


def test_methods_can_be_named_and_others_are_noted(tmp_path: Path) -> None:
    a = answered(tmp_path / "a", same())
    more = {**METHODS, "fastv@144": FakeMethod(0.5, [(2, 1)])}
    b = answered(tmp_path / "b", same(), methods=more)
    assert compare(a, b).methods == ("upper_bound", GRID)
    assert compare(a, b, [GRID]).methods == (GRID,)
    assert "Only b has fastv@144." in compare(a, b).notes


def test_a_method_that_is_not_the_same_in_both_is_noted(tmp_path: Path) -> None:
    a, b = (answered(tmp_path / name, same()) for name in "ab")
    other = b.manifest.model_copy(update={"methods": {**b.manifest.methods, GRID: {"weights": "new"}}})
    notes = compare(a, Run(b.path, other)).notes
    assert any(
        "grid@144:layer=0 is not the same method in both runs (" in n and "weights: None and new" in n for n in notes
    )


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])), max_size=40))
@settings(max_examples=30, deadline=None)
def test_flips_are_questions_that_differ_each_once_in_order(scores: list[tuple[float, float]]) -> None:
    def rows(side: int) -> pd.DataFrame:
        found = pd.DataFrame({"score": [pair[side] for pair in scores]}, dtype=float)
        return found.assign(doc_id=range(len(scores)), question="?", target="x", response="y", error=None)

    found = flips("m", "b", rows(0), rows(1), each=4)
    gained = [flip.doc_id for flip in found if flip.gained]
    lost = [flip.doc_id for flip in found if not flip.gained]
    assert all(scores[i][1] > scores[i][0] for i in gained) and all(scores[i][1] < scores[i][0] for i in lost)
    assert gained == sorted(set(gained)) and lost == sorted(set(lost))
    assert len(gained) == min(4, sum(b > a for a, b in scores)) and len(lost) == min(4, sum(b < a for a, b in scores))
