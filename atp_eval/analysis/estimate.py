"""Estimates by picture: a value with its bootstrap draws and what each picture contributes, its interval and p-value.

The interval is the percentile bootstrap's, widened for how little there is to resample: the percentiles are at
Phi(-sqrt(n / (n - 1)) t), with Student's t (Hesterberg 2015). Degrees of freedom are not the pictures less one: where a
method changes few answers, few pictures say anything, and the estimated variance is as uncertain as if there were few.
They are matched to the variance of the estimated variance, from the kurtosis of the pictures' contributions; several
benchmarks add up by Satterthwaite's formula (1946). `docs/statistics.md` has the references and the coverage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from atp_eval.analysis.aggregation import Sums
from atp_eval.analysis.significance import LEVEL, Interval, cluster_bootstrap

Vector = NDArray[np.float64]
SAME = 1e-9  # values that differ by less are equal: sums in another order differ in their last digits


class Spread(NamedTuple):
    """Of an estimated variance: its degrees of freedom, and sqrt(n / (n - 1)) for n pictures."""

    freedom: float
    factor: float


@dataclass(frozen=True)
class Estimate:
    """value; draws: [resamples] bootstrap values; influence: of each benchmark, what leaving out each of its clusters
    (pictures) takes away from the value, [clusters], less the mean: the jackknife's."""

    value: float
    draws: Vector = field(repr=False)
    influence: Mapping[str, Vector] = field(repr=False)

    @cached_property
    def spread(self) -> Spread | None:
        """How well the variance is known; None where nothing varies, or no picture can be left out."""
        variance = weighted = known = 0.0
        for moved in self.influence.values():
            n, squares = len(moved), float((moved**2).sum())
            if n < 2 or squares <= SAME**2:
                continue
            part = squares * (n - 1) / n
            kurtosis = n * float((moved**4).sum()) / squares**2
            freedom = np.clip(2 * n / (kurtosis - (n - 3) / (n - 1)), 1, n - 1)
            variance, weighted, known = variance + part, weighted + squares, known + part**2 / freedom
        if not known:
            return None
        return Spread(float(variance**2 / known), float(np.sqrt(weighted / variance)))

    @cached_property
    def interval(self) -> Interval:
        """The widened percentile interval; unbounded where the draws do not vary, which is no certainty."""
        finite = self.draws[np.isfinite(self.draws)]
        if self.spread is None or len(finite) < 2:
            return Interval(self.value)
        tail = stats.norm.cdf(-self.spread.factor * stats.t.ppf(0.5 + LEVEL / 2, self.spread.freedom))
        low, high = np.quantile(finite, [tail, 1 - tail])
        return Interval(self.value, float(low), float(high)) if low < high else Interval(self.value)

    def p_value(self, null: float) -> float:
        """Two-sided, of the value being `null`: how often draws lie as far from the value as the value from `null`.

        Draws are centred at the value, since they imitate how values scatter about the truth (Hall & Wilson 1991), and
        widened by the spread's factor; one is added to both counts (Davison & Hinkley 1997, Ch. 4), so p is never below
        1 / (resamples + 1). NaN where the value is undefined.
        """
        if not np.isfinite(self.value):
            return float("nan")
        finite = self.draws[np.isfinite(self.draws)]
        factor = self.spread.factor if self.spread else 1.0
        beyond = np.abs(finite - self.value) * factor >= abs(self.value - null) - SAME
        return float((1 + beyond.sum()) / (1 + len(finite)))

    def minus(self, other: Estimate) -> Estimate:
        """The paired difference; both have seen the same draws."""
        influence = {
            name: self.influence.get(name, 0.0) - other.influence.get(name, np.zeros(1))
            for name in {**self.influence, **other.influence}
        }
        return Estimate(self.value - other.value, self.draws - other.draws, influence)


def mean(found: Sequence[Estimate]) -> Estimate:
    """The mean of several that saw the same draws: benchmarks, or seeds of a method."""
    influence: dict[str, Any] = {}
    for estimate in found:
        for name, moved in estimate.influence.items():
            influence[name] = influence.get(name, 0.0) + moved / len(found)
    return Estimate(float(np.mean([e.value for e in found])), np.mean([e.draws for e in found], axis=0), influence)


class Resampled(NamedTuple):
    """A statistic as the resampling saw it: over everything, [resamples] draws, and [clusters] without each cluster."""

    value: float
    draws: Vector
    without: Vector


def resample(parts: Sequence[Sums], resamples: int, seed: int) -> list[Resampled]:
    """Statistics of sums over the same clusters; all see the same draws."""
    totals = cluster_bootstrap(np.concatenate([p.sums for p in parts], axis=1), resamples, seed)
    edges = np.cumsum([0, *(p.sums.shape[1] for p in parts)])
    return [
        Resampled(part.value, part.metric(totals[:, a:b]), part.metric(part.sums.sum(0) - part.sums))
        for part, a, b in zip(parts, edges[:-1], edges[1:], strict=True)
    ]


def estimate(name: str, found: Resampled) -> Estimate:
    """Of a benchmark. A cluster that the statistic is undefined without contributes nothing."""
    moved = np.where(np.isfinite(found.without), found.without, found.value)
    return Estimate(found.value, found.draws, {name: moved.mean() - moved if len(moved) else moved})
