"""Intervals: Wilson's for rates, the cluster bootstrap's for metrics, order statistics for medians."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
RESAMPLES = 10_000  # of scores, retention and what methods differ in: what papers quote
DESCRIPTIVE_RESAMPLES = 2000  # of what goes with tokens and cells: many statistics, or some that are ranked anew
CHUNK_BYTES = 2**24  # of bootstrap weights held at a time; about a processor's cache, which is fastest


class Interval(NamedTuple):
    """A value with its two-sided interval; NaN bounds where none can be given."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def bounded(self) -> bool:
        """Whether there is an interval at all."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def scaled(self, factor: float) -> Interval:
        """The same in another unit; factor > 0."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


def wilson(hits: int, of: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a rate in [0, 1] (Wilson 1927); it stays honest at 0 and 1. NaN for of = 0."""
    if of == 0:
        return Interval(math.nan)
    z = float(stats.norm.ppf(0.5 + level / 2))
    rate = hits / of
    centre = (rate + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(rate * (1 - rate) / of + z * z / (4 * of * of))
    # At the ends the bound is the rate itself; rounding must not push it past.
    return Interval(rate, 0.0 if hits == 0 else centre - half, 1.0 if hits == of else centre + half)


def percentile_interval(value: float, replicates: NDArray[Any], level: float = LEVEL) -> Interval:
    """The percentile bootstrap interval; replicates where the metric was undefined are left out."""
    finite = replicates[np.isfinite(replicates)]
    if len(finite) < 2:
        return Interval(value)
    low, high = np.quantile(finite, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(value, float(low), float(high))


def median_interval(values: NDArray[Any], level: float = LEVEL) -> Interval:
    """The median with the distribution-free interval of its order statistics (David & Nagaraja 2003, 7.1).

    Below six values no such interval reaches 95 %: the bounds are NaN.
    """
    if len(values) == 0:
        return Interval(math.nan)
    ordered = np.sort(values)
    rank = int(stats.binom.ppf((1 - level) / 2, len(ordered), 0.5))  # P(low > median) <= (1 - level) / 2
    if rank < 1:
        return Interval(float(np.median(ordered)))
    return Interval(float(np.median(ordered)), float(ordered[rank - 1]), float(ordered[-rank]))


def cluster_bootstrap(sums: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """[clusters, K] sums of each cluster -> [resamples, K] totals over clusters drawn with replacement.

    All K columns see the same draws, so metrics made of them are paired. Fewer than two clusters cannot be resampled:
    the totals are then NaN.
    """
    count, columns = sums.shape
    found = [weights @ sums for weights in cluster_draws(count, resamples, seed)]
    return np.concatenate(found) if found else np.full((resamples, columns), np.nan)


def cluster_draws(count: int, resamples: int, seed: int, *, width: int = 0) -> Iterator[NDArray[np.float64]]:
    """How often each cluster is drawn: [resamples, count] in all, some rows at a time; none of fewer than two clusters.

    width: the columns that a row is spread out to, where that is more than `count`; it bounds the rows held at a time.
    """
    if count < 2:
        return
    rng = np.random.default_rng(seed)
    chunk = max(1, min(resamples, CHUNK_BYTES // (8 * max(count, width))))
    for start in range(0, resamples, chunk):
        weights = np.empty((min(chunk, resamples - start), count))
        # One count a row: its bins stay in the cache, and int64 needs no copy.
        for row, picks in zip(weights, rng.integers(count, size=weights.shape), strict=True):
            row[:] = np.bincount(picks, minlength=count)
        yield weights
