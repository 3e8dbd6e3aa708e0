"""Statistics over questions as functions of sums over clusters (pictures), for the bootstrap to draw clusters from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from atp_eval.analysis.aggregation import Sums
from atp_eval.analysis.significance import Interval, cluster_bootstrap, percentile_interval

Vector = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)
MOST_CLUSTERS = 2048  # pictures beyond are drawn together with others; questions about one picture always are


def together(sums: Vector) -> Vector:
    """[clusters, K] -> at most MOST_CLUSTERS rows: clusters beyond are added to others, and drawn with them."""
    if len(sums) <= MOST_CLUSTERS:
        return sums
    missing = -len(sums) % MOST_CLUSTERS
    padded = np.concatenate([sums, np.zeros((missing, sums.shape[1]))])
    return padded.reshape(-1, MOST_CLUSTERS, sums.shape[1]).sum(0)


def within(values: Vector, stratum: NDArray[Any]) -> Vector:
    """Values less the mean of their stratum."""
    means = np.bincount(stratum, values) / np.maximum(np.bincount(stratum), 1)
    return values - means[stratum]


def intervals(parts: Mapping[Key, Sums], resamples: int, seed: int) -> dict[Key, Interval]:
    """Each statistic with its percentile interval; all see the same draws of clusters."""
    sums = together(np.concatenate([p.sums for p in parts.values()], axis=1))
    totals = cluster_bootstrap(sums, resamples, seed)
    found, start = {}, 0
    for name, part in parts.items():
        end = start + part.sums.shape[1]
        interval = percentile_interval(part.value, part.metric(totals[:, start:end]))
        # A single picture is drawn or not, and never varies: that is no certainty.
        found[name] = interval if interval.low < interval.high else Interval(interval.value)
        start = end
    return found


def summed(cluster: NDArray[Any], size: int, *columns: Vector) -> Vector:
    """[size, columns]: sums over the rows of each cluster."""
    return np.stack([np.bincount(cluster, column, minlength=size) for column in columns], axis=1)


def ratio(a: NDArray[Any], b: NDArray[Any]) -> Vector:
    """a / b; NaN where b is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(b > 0, a / b, np.nan)


def mean_sums(values: Vector, cluster: NDArray[Any], size: int, where: NDArray[np.bool_] | None = None) -> Sums:
    """The mean of values [rows], of some of them on request."""
    here = np.ones(len(values)) if where is None else where.astype(float)
    return Sums(summed(cluster, size, values * here, here), lambda t: ratio(t[..., 0], t[..., 1]))


def difference_sums(
    values: Vector,
    first: NDArray[np.bool_],
    where: NDArray[np.bool_],
    stratum: NDArray[Any],
    cluster: NDArray[Any],
    size: int,
) -> Sums:
    """Mean of `first` minus mean of the others of `where`, within strata.

    It is the coefficient of a regression on `first` with an effect for each stratum: strata weigh by how much they say,
    n1 n2 / (n1 + n2), and those with only one of the two not at all.
    """
    if not where.any():
        return Sums(np.zeros((size, 1)), lambda t: np.full(t.shape[:-1], np.nan))
    x, y = within(first[where].astype(float), stratum[where]), within(values[where], stratum[where])
    x = np.where(np.abs(x) < 1e-12, 0.0, x)
    return Sums(summed(cluster[where], size, x * y, x * x), lambda t: ratio(t[..., 0], t[..., 1]))


def share_sums(values: Vector, cluster: NDArray[Any], size: int) -> Sums:
    """The share of variance between clusters, in [0, 1]: the intraclass correlation of a one-way analysis of variance
    with clusters of unequal size (Searle, Casella & McCulloch 1992, Sec. 3.6), where it is negative 0."""
    n, total, squares = summed(cluster, size, np.ones(len(values)), values, values * values).T
    sums = np.stack([np.ones(size), n, total, squares, total * total / np.maximum(n, 1), n * n], axis=1)
    return Sums(sums, intraclass)


def intraclass(t: Vector) -> Vector:
    """From totals [..., 6] of 1, n, sum, sum of squares, sum^2 / n and n^2 over clusters."""
    clusters, n, total, squares, explained, sizes = np.moveaxis(t, -1, 0)
    between = ratio(explained - ratio(total * total, n), clusters - 1)
    inner = ratio(squares - explained, n - clusters)
    typical = ratio(n - ratio(sizes, n), clusters - 1)  # questions a picture
    component = np.maximum(0.0, ratio(between - inner, typical))
    return ratio(component, component + inner)
