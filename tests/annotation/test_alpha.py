"""Krippendorff's alpha against his own examples, a definition written another way, and its own limits."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atp_eval.annotation.alpha import alpha, coincidences

# Krippendorff (2011), section C: four observers, twelve units, five values, votes missing (0).
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
]
COINCIDENCES = [
    [7, 4 / 3, 1 / 3, 1 / 3, 0],
    [4 / 3, 10, 4 / 3, 1 / 3, 0],
    [1 / 3, 4 / 3, 8, 1 / 3, 0],
    [1 / 3, 1 / 3, 1 / 3, 4, 0],
    [0, 0, 0, 0, 3],
]


def counted(rows: list[list[int]], values: int) -> np.ndarray:
    """[units, values] votes; 0 is no vote."""
    data = np.array(rows)
    return np.stack([(data == value).sum(0) for value in range(1, values + 1)], axis=1)


def test_the_published_example_with_missing_votes() -> None:
    totals = coincidences(counted(OBSERVERS, 5)).sum(0)
    np.testing.assert_allclose(totals, COINCIDENCES)
    assert round(float(alpha(totals, "nominal")), 3) == 0.743
    assert round(float(alpha(totals, "ordinal")), 3) == 0.815


def test_the_published_examples_of_two_observers() -> None:
    # Section A: ten units, two values. Section B: twelve units, five values.
    binary = [[1, 2, 1, 1, 1, 1, 1, 1, 2, 1], [2, 2, 2, 1, 1, 2, 1, 1, 1, 1]]
    totals = coincidences(counted(binary, 2)).sum(0)
    np.testing.assert_array_equal(totals, [[10, 4], [4, 2]])
    assert round(float(alpha(totals, "nominal")), 3) == 0.095
    letters = [["abcde".index(x) + 1 for x in row] for row in ("aabbdcccedda", "babbbccceddd")]
    assert round(float(alpha(coincidences(counted(letters, 5)).sum(0), "nominal")), 3) == 0.692


@pytest.mark.parametrize("distance", ["nominal", "ordinal"])
def test_limits(distance: str) -> None:
    same = coincidences(np.array([[3, 0, 0], [0, 3, 0], [0, 0, 2]])).sum(0)
    assert alpha(same, distance) == 1.0  # type: ignore[arg-type]
    one_value = coincidences(np.array([[3, 0, 0], [2, 0, 0]])).sum(0)
    assert np.isnan(alpha(one_value, distance))  # type: ignore[arg-type]
    alone = coincidences(np.array([[1, 0, 0], [0, 0, 1]])).sum(0)
    assert alone.sum() == 0 and np.isnan(alpha(alone, distance))  # type: ignore[arg-type]


def test_ordinal_forgives_neighbours() -> None:
    near = coincidences(np.array([[2, 0, 0], [0, 2, 0], [0, 0, 2], [1, 1, 0]])).sum(0)
    far = coincidences(np.array([[2, 0, 0], [0, 2, 0], [0, 0, 2], [1, 0, 1]])).sum(0)
    assert alpha(near, "nominal") == pytest.approx(alpha(far, "nominal"))
    assert alpha(near, "ordinal") > alpha(far, "ordinal")


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=4), min_size=2, max_size=8))
def test_nominal_is_one_less_the_ratio_of_disagreeing_pairs(units: list[list[int]]) -> None:
    """By its definition: pairs within units, each unit's over m - 1, and pairs of all paired votes."""
    votes = [[v for v in unit if v] for unit in units]
    paired = [unit for unit in votes if len(unit) > 1]
    everything = [v for unit in paired for v in unit]
    expected = sum(x != y for x, y in permutations(everything, 2)) if everything else 0
    counts = np.array([[unit.count(value) for value in (1, 2, 3)] for unit in votes])
    found = float(alpha(coincidences(counts).sum(0), "nominal"))
    if not expected:
        assert np.isnan(found)
        return
    n = len(everything)
    observed = sum(sum(x != y for x, y in permutations(unit, 2)) / (len(unit) - 1) for unit in paired) / n
    assert found == pytest.approx(1 - observed / (expected / (n * (n - 1))))
