"""Intervals against closed forms, known tables and slow references."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from atp_eval.analysis.significance import (
    Interval,
    cluster_bootstrap,
    median_interval,
    percentile_interval,
    wilson,
)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy_and_holds_the_rate(case: tuple[int, int]) -> None:
    hits, of = case
    found = wilson(hits, of)
    expected = stats.binomtest(hits, of).proportion_ci(method="wilson")
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0


def test_wilson_of_nothing_is_unknown() -> None:
    assert math.isnan(wilson(0, 0).value)
    assert not wilson(0, 0).bounded


def test_bootstrap_draws_whole_clusters_alike_for_all_columns() -> None:
    rng = np.random.default_rng(1)
    sums = rng.random((37, 1)) * [1.0, 2.0, -3.0]
    totals = cluster_bootstrap(sums, 300, seed=4)
    assert totals.shape == (300, 3)
    np.testing.assert_allclose(totals[:, 1], 2 * totals[:, 0])
    np.testing.assert_allclose(totals[:, 2], -3 * totals[:, 0])


def test_bootstrap_draws_as_many_clusters_as_there_are() -> None:
    totals = cluster_bootstrap(np.ones((23, 1)), 200, seed=0)
    np.testing.assert_array_equal(totals, 23.0)


def test_bootstrap_is_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.random.default_rng(2).random((50, 2))
    whole = cluster_bootstrap(sums, 40, seed=9)
    monkeypatch.setattr("atp_eval.analysis.significance.CHUNK_BYTES", 8 * 50 * 7)
    np.testing.assert_allclose(cluster_bootstrap(sums, 40, seed=9), whole)
    assert not np.allclose(cluster_bootstrap(sums, 40, seed=10), whole)


def test_bootstrap_spread_is_that_of_the_mean() -> None:
    values = np.random.default_rng(3).normal(size=400)
    means = cluster_bootstrap(values[:, None], 4000, seed=0)[:, 0] / 400
    assert means.std() == pytest.approx(values.std() / 20, rel=0.06)
    assert means.mean() == pytest.approx(values.mean(), abs=0.005)


def test_one_cluster_cannot_be_resampled() -> None:
    totals = cluster_bootstrap(np.ones((1, 2)), 10, seed=0)
    assert np.isnan(totals).all()
    assert not percentile_interval(1.0, totals[:, 0]).bounded


def test_percentile_interval_leaves_undefined_replicates_out() -> None:
    replicates = np.append(np.linspace(0, 100, 1001), [np.nan] * 50)
    found = percentile_interval(50.0, replicates)
    assert found == pytest.approx(Interval(50.0, 2.5, 97.5))


def test_median_interval_covers_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    for n in (6, 20, 75):
        found = [median_interval(rng.exponential(size=n)) for _ in range(1500)]
        covered = np.mean([i.low <= math.log(2) <= i.high for i in found])
        assert covered >= 0.94


def test_median_interval_is_the_tightest_that_reaches_the_level() -> None:
    # n = 20: P(X_(6) <= median <= X_(15)) = 0.9586, the narrower pair reaches 0.8847 (binomial tables).
    found = median_interval(np.arange(1.0, 21.0))
    assert found == Interval(10.5, 6.0, 15.0)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_few_values_have_no_95_per_cent_interval(count: int) -> None:
    assert not median_interval(np.arange(float(count))).bounded
