"""Spearman's rank correlation within strata, with a cluster bootstrap that ranks every resample anew."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from atp_eval.analysis.significance import cluster_draws

Vector = NDArray[np.float64]


def spearman(
    x: Vector,
    y: Vector,
    stratum: NDArray[Any],
    cluster: NDArray[Any],
    clusters: int,
    resamples: int,
    seed: int,
) -> tuple[float, Vector]:
    """The correlation over rows, and its [resamples] bootstrap values; NaN where x or y is constant in every stratum.

    Ranks are taken within strata and centred there; with one stratum the value is Spearman's. cluster: of each row.
    """
    tables = [Table(x[s], y[s], cluster[s]) for s in (stratum == name for name in np.unique(stratum))]
    value = float(correlate(tables, np.ones((clusters, 1)))[0])
    if not np.isfinite(value):
        return value, np.full(resamples, np.nan)
    drawn = [correlate(tables, weights.T) for weights in cluster_draws(clusters, resamples, seed, width=len(x))]
    return value, np.concatenate(drawn) if drawn else np.full(resamples, np.nan)


class Table:
    """The rows of a stratum, counted by cluster: x, y and pairs are [values, clusters], how often each cluster has each
    value of x, of y, and each pair of them. first, second: the places of a pair's two values, smallest value first.
    """

    def __init__(self, x: Vector, y: Vector, cluster: NDArray[Any]) -> None:
        self.clusters, column = np.unique(cluster, return_inverse=True)
        x_place, y_place = (np.unique(values, return_inverse=True)[1] for values in (x, y))
        both, pair_place = np.unique(np.stack([x_place, y_place]), axis=1, return_inverse=True)
        self.first, self.second = both
        self.x, self.y, self.pairs = (counted(p.ravel(), column) for p in (x_place, y_place, pair_place))

    def moments(self, weights: Vector) -> Vector:
        """weights [clusters, R] -> [3, R]: sums of x y, x x and y y of the ranks, centred, as shares of all rows."""
        drawn = weights[self.clusters]
        x, y = self.x @ drawn, self.y @ drawn  # how often each value is there
        a, b = middle_ranks(x), middle_ranks(y)
        both = np.einsum("pr,pr,pr->r", self.pairs @ drawn, a[self.first], b[self.second])
        total = x.sum(0).clip(min=1)
        return np.stack([both, np.einsum("pr,pr,pr->r", x, a, a), np.einsum("pr,pr,pr->r", y, b, b)]) / total**2


def counted(place: NDArray[Any], column: NDArray[Any]) -> sparse.csr_array:
    """[places, columns]: how often each combination occurs."""
    return sparse.coo_array((np.ones(len(place)), (place, column))).tocsr()


def middle_ranks(counts: Vector) -> Vector:
    """counts [values, R] of sorted values -> their ranks, equal ones in the middle, less the mean rank."""
    upto = counts.cumsum(0)
    return upto - counts / 2 - upto[-1] / 2


def correlate(tables: list[Table], weights: Vector) -> Vector:
    """[R]: the correlation under weights [clusters, R], over all strata."""
    both, own, other = np.sum([table.moments(weights) for table in tables], axis=0)
    scale = own * other
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(scale > 1e-12, both / np.sqrt(scale), np.nan)
