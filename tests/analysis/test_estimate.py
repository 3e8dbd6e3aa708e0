"""Estimates: widened percentiles, degrees of freedom, centred p-values, paired differences; by hand where possible."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from atp_eval.analysis.aggregation import Sums
from atp_eval.analysis.estimate import Estimate, estimate, mean, resample

EVEN = np.linspace(0.0, 1.0, 10_001)


def of(value: float = 0.5, draws: object = EVEN, **influence: object) -> Estimate:
    moved = {name: np.asarray(moved, dtype=float) for name, moved in influence.items()}
    return Estimate(value, np.asarray(draws, dtype=float), moved)


def test_the_interval_is_at_the_percentiles_of_students_t() -> None:
    # Ten pictures that move the value alike: 9 degrees of freedom, t = 2.262157, times sqrt(10 / 9) is 2.384523.
    found = of(gqa=[1, -1] * 5)
    assert found.spread == pytest.approx((9.0, math.sqrt(10 / 9)))
    tail = stats.norm.cdf(-2.384523)
    assert found.interval == pytest.approx((0.5, tail, 1 - tail), abs=1e-6)


def test_many_pictures_give_the_plain_percentiles() -> None:
    assert of(gqa=[1, -1] * 20_000).interval == pytest.approx((0.5, 0.025, 0.975), abs=1e-5)


def test_few_pictures_that_move_anything_leave_few_degrees_of_freedom() -> None:
    moved = np.zeros(200)
    moved[:8] = [1, -1] * 4
    # kurtosis 200 * 8 / 8^2 = 25; 2 * 200 / (25 - 197 / 199)
    spread = of(gqa=moved).spread
    assert spread is not None and spread.freedom == pytest.approx(400 / (25 - 197 / 199))
    moved[8:] = 1e-3 * np.tile([1, -1], 96)
    nearly = of(gqa=moved).spread
    assert nearly is not None and nearly.freedom == pytest.approx(spread.freedom, rel=1e-3)


def test_benchmarks_add_their_degrees_of_freedom_as_satterthwaite_says() -> None:
    one, two = [1, -1] * 5, [2, -2] * 10
    v1, v2 = 10 * 9 / 10, 80 * 19 / 20
    spread = of(gqa=one, pope=two).spread
    assert spread is not None
    assert spread.freedom == pytest.approx((v1 + v2) ** 2 / (v1**2 / 9 + v2**2 / 19))
    assert spread.factor == pytest.approx(math.sqrt((10 + 80) / (v1 + v2)))


def test_what_does_not_vary_has_no_interval() -> None:
    assert not of(draws=np.full(100, 0.5), gqa=np.zeros(30)).interval.bounded
    assert not of(gqa=[0.0]).interval.bounded
    assert not of(draws=np.full(100, np.nan), gqa=[1, -1] * 5).interval.bounded


def test_p_counts_draws_as_far_from_the_value_as_the_value_from_the_null() -> None:
    draws = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, np.nan]
    wide = np.tile([1.0, -1.0], 10**6)  # a factor of 1, nearly
    # 4.5 is 3 from 1.5: as far or farther are 1 and 8 of eight draws.
    assert of(4.5, draws, gqa=wide).p_value(1.5) == pytest.approx(3 / 9)
    assert of(4.5, draws, gqa=wide).p_value(7.5) == pytest.approx(3 / 9)
    assert of(4.5, draws, gqa=wide).p_value(4.5) == 1.0
    assert of(4.5, draws, gqa=wide).p_value(100.0) == pytest.approx(1 / 9)
    # Two pictures: the factor sqrt(2) takes 2 and 7 beyond 3 as well.
    assert of(4.5, draws, gqa=[1.0, -1.0]).p_value(1.5) == pytest.approx(5 / 9)
    assert math.isnan(of(math.nan, draws).p_value(0.0))


def test_means_and_differences_keep_the_pairing() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((60, 3))
    sums = [Sums(values[:, [k]], lambda t: t[..., 0] / 60) for k in range(3)]
    a, b, c = (estimate("gqa", found) for found in resample(sums, 500, seed=3))
    direct = Sums(values, lambda t: ((t[..., 0] + t[..., 1]) / 2 - t[..., 2]) / 60)
    expected = estimate("gqa", resample([direct], 500, seed=3)[0])
    found = mean([a, b]).minus(c)
    assert found.value == pytest.approx(expected.value)
    np.testing.assert_allclose(found.draws, expected.draws)
    np.testing.assert_allclose(found.influence["gqa"], expected.influence["gqa"], atol=1e-12)
    assert found.interval == pytest.approx(expected.interval)


def test_a_difference_over_other_benchmarks_has_the_spread_of_both() -> None:
    found = of(gqa=[1, -1] * 5).minus(of(pope=[2, -2] * 10))
    expected = of(gqa=[1, -1] * 5, pope=[2, -2] * 10)
    assert found.spread == pytest.approx(expected.spread)


def test_the_influence_of_a_mean_is_that_of_the_jackknife() -> None:
    values = np.array([1.0, 2.0, 6.0])
    (found,) = resample([Sums(np.stack([values, np.ones(3)], axis=1), lambda t: t[..., 0] / t[..., 1])], 10, seed=0)
    np.testing.assert_allclose(found.without, [4.0, 3.5, 1.5])
    np.testing.assert_allclose(estimate("gqa", found).influence["gqa"], 3.0 - np.array([4.0, 3.5, 1.5]))
