"""McNemar's test with pictures exchanged: brute force, scipy's exact test where no picture is shared, cases by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from atp_eval.analysis.mcnemar import Answers, answers_of, mcnemar, sign_change


def answers(right: list[int], pictures: list[int] | None = None, groups: list[int] | None = None) -> Answers:
    doc = np.arange(len(right))
    return Answers(doc, np.array(groups or doc), np.array(pictures or doc), np.array(right) == 1)


def rows(**columns: object) -> pd.DataFrame:
    base = {"doc_id": [0, 1, 2, 3], "category": None, "group": None, "cluster": [0, 0, 1, 1], "score": [1.0, 0, 1, 1]}
    return pd.DataFrame(base | columns)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), max_size=60))
def test_with_one_question_a_picture_it_is_the_exact_test(pairs: list[tuple[int, int]]) -> None:
    first, second = ([pair[k] for pair in pairs] for k in range(2))
    found = mcnemar(answers(first), answers(second))
    table = [[pairs.count((1, 1)), pairs.count((1, 0))], [pairs.count((0, 1)), pairs.count((0, 0))]]
    assert (found.gained, found.lost) == (table[0][1], table[1][0])
    expected = statsmodels_mcnemar(table, exact=True).pvalue if found.gained + found.lost else 1.0
    assert found.p_questions == pytest.approx(expected)
    assert found.p == pytest.approx(expected)


@settings(max_examples=30)
@given(st.lists(st.integers(-4, 4), max_size=9))
def test_sign_changes_are_all_counted(differences: list[int]) -> None:
    sums = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in product([1, -1], repeat=len(differences))
    ]
    expected = np.mean([abs(s) >= abs(sum(differences)) for s in sums])
    assert sign_change(np.array(differences, dtype=np.int64)) == pytest.approx(expected)


def test_a_case_by_hand() -> None:
    # +-2 +-1 +-1 is 4, 2, 2, 0, 0, -2, -2, -4: six of eight are as far from 0 as 2 + 1 - 1.
    assert sign_change(np.array([2, 1, -1])) == pytest.approx(6 / 8)


def test_one_picture_is_one_chance_however_many_questions_are_asked_of_it() -> None:
    found = mcnemar(answers([1] * 10, [0] * 10), answers([0] * 10, [0] * 10))
    assert found.p == 1.0
    assert found.p_questions == pytest.approx(2 / 2**10)


def test_many_pictures_come_near_the_modified_obuchowski_test() -> None:
    differences = np.random.default_rng(0).integers(-3, 5, 900)
    expected = stats.chi2.sf(differences.sum() ** 2 / (differences**2).sum(), 1)
    assert sign_change(differences) == pytest.approx(expected, rel=0.05)


def test_small_p_values_are_not_lost_to_rounding() -> None:
    assert sign_change(np.ones(200, dtype=np.int64)) == pytest.approx(2.0**-199, rel=1e-9)


def test_only_documents_that_both_answered_count_in_any_order() -> None:
    first = answers_of(rows(doc_id=[5, 3, 9, 1], score=[1.0, 1, 1, 0]), "choice", "mean")
    second = answers_of(rows(doc_id=[1, 3, 5, 7], score=[1.0, 0, 1, 0]), "choice", "mean")
    assert first is not None and second is not None
    found = mcnemar(first, second)
    assert (found.gained, found.lost) == (1, 1)  # documents 3 and 1; 5 is right in both


def test_circular_groups_count_once_and_only_when_all_is_right() -> None:
    group = ["a", "a", "b", "b"]
    first = answers_of(rows(group=group, score=[1.0, 1, 1, 0]), "choice", "mmbench")
    second = answers_of(rows(group=group, score=[1.0, 0, 0, 0]), "choice", "mmbench")
    assert first is not None and second is not None
    found = mcnemar(first, second)
    assert (found.gained, found.lost) == (1, 0)


def test_what_the_metric_leaves_out_is_left_out() -> None:
    found = answers_of(rows(category=["count", "count", "code_reasoning", "code_reasoning"]), "yes_no", "mme")
    assert found is not None and found.doc.tolist() == [0, 1]


def test_open_and_soft_scores_have_no_such_test() -> None:
    assert answers_of(rows(), "open", "mean") is None
    assert answers_of(rows(score=[1.0, 0.3, 0.0, 1.0]), "choice", "mean") is None
    assert answers_of(rows(), "choice", "mean") is not None


def test_no_common_document_says_nothing() -> None:
    found = mcnemar(answers([1, 0]), Answers(np.array([7]), np.array([7]), np.array([0]), np.array([True])))
    assert (found.gained, found.lost, found.p, found.p_questions) == (0, 0, 1.0, 1.0)
