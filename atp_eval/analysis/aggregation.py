"""A benchmark's metric as a function of sums over image clusters, so that the bootstrap resamples the metric itself.

Each benchmark becomes a matrix of sums, one row a cluster, and a function from the columns' totals to the metric. On
the full sample the function gives lmms-eval's own number, as `benchmarks.aggregate` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from atp_eval.benchmarks import MME_PERCEPTION

Metric = Callable[[NDArray[np.float64]], NDArray[np.float64]]
OCRBENCH_QUESTIONS = 1000  # the official score is out of 1000 whatever was asked


class Sums(NamedTuple):
    """sums: [clusters, K]. metric: totals [..., K] -> the metric in lmms-eval's unit [...]; NaN where undefined."""

    sums: NDArray[np.float64]
    metric: Metric

    @property
    def value(self) -> float:
        """The metric over all clusters."""
        return float(self.metric(self.sums.sum(0)))


def cluster_sums(rows: pd.DataFrame, clusters: int, aggregation: str, scale: float) -> Sums:
    """The sums of rows with columns `cluster` (0..clusters-1), `score` in [0, 1], `category` and `group`.

    scale: the metric at a perfect score. Raises KeyError for an unknown aggregation.
    """
    return {"mean": _mean, "mmbench": _grouped, "mme": _mme, "ocrbench": _ocrbench}[aggregation](rows, clusters, scale)


def answer_sums(rows: pd.DataFrame, clusters: int) -> dict[str, Sums]:
    """POPE's other metrics of yes/no answers (Li et al. 2023, Sec. 5.1), each in [0, 1]: F1, precision and recall of
    "yes", and the share of answers that are "yes".

    rows: `cluster`, `target` and `response`. As in lmms-eval, an answer is the whole response without its case and
    outer blanks; what is neither yes nor no counts in the last share's divisor only; 0 / 0 is 0. lmms-eval's own yes
    ratio is that of the targets and does not depend on the model.
    """
    target, said = (rows[name].fillna("").str.lower().str.strip() for name in ("target", "response"))
    kinds = [
        (target == "yes") & (said == "yes"),
        (target == "no") & (said == "yes"),
        (target == "yes") & (said == "no"),
        said == "yes",
        said.notna(),
    ]
    sums = np.stack([_count(rows["cluster"], kind.to_numpy(dtype=float), clusters) for kind in kinds], axis=1)

    def share(hits: NDArray[Any], of: NDArray[Any]) -> NDArray[np.float64]:
        return np.nan_to_num(_ratio(hits, of))

    return {
        "F1": Sums(sums, lambda t: share(2 * t[..., 0], 2 * t[..., 0] + t[..., 1] + t[..., 2])),
        "precision": Sums(sums, lambda t: share(t[..., 0], t[..., 0] + t[..., 1])),
        "recall": Sums(sums, lambda t: share(t[..., 0], t[..., 0] + t[..., 2])),
        "yes": Sums(sums, lambda t: share(t[..., 3], t[..., 4])),
    }


def _ratio(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(b > 0, a / b, np.nan)


def _count(cluster: pd.Series[Any], weights: Any, clusters: int) -> NDArray[np.float64]:
    return np.bincount(cluster.to_numpy(), weights, minlength=clusters).astype(np.float64)


def _mean(rows: pd.DataFrame, clusters: int, scale: float) -> Sums:
    """The mean score."""
    hits = _count(rows["cluster"], rows["score"].to_numpy(), clusters)
    asked = _count(rows["cluster"], None, clusters)
    return Sums(np.stack([hits, asked], axis=1), lambda t: scale * _ratio(t[..., 0], t[..., 1]))


def _ocrbench(rows: pd.DataFrame, clusters: int, scale: float) -> Sums:
    """Right answers of a fixed thousand."""
    hits = _count(rows["cluster"], rows["score"].to_numpy(), clusters)
    return Sums(hits[:, None], lambda t: scale * t[..., 0] / OCRBENCH_QUESTIONS)


def _grouped(rows: pd.DataFrame, clusters: int, scale: float) -> Sums:
    """Each group of rows counts once, and is right only when all of its rows are (MMBench's circular evaluation)."""
    return _mean(_all_right(rows, group_of(rows)), clusters, scale)


def _mme(rows: pd.DataFrame, clusters: int, scale: float) -> Sums:
    """The sum over perception categories of 100 * (accuracy + share of pairs with both right); scale does not enter."""
    rows = rows[rows["category"].isin(MME_PERCEPTION)]
    if rows.empty:
        return Sums(np.zeros((clusters, 2)), lambda t: _ratio(t[..., 0], t[..., 1]))
    rows = rows.assign(code=pd.factorize(rows["category"], sort=True)[0])
    categories = int(rows["code"].max()) + 1
    pairs = rows.groupby(["code", group_of(rows)], sort=False).agg({"cluster": "first", "score": "min"}).reset_index()

    def table(of: pd.DataFrame, weights: Any) -> NDArray[np.float64]:
        return _count(of["cluster"] * categories + of["code"], weights, clusters * categories)

    columns = [table(of, weights) for of in (rows, pairs) for weights in (of["score"].to_numpy(), None)]
    sums = np.stack(columns, axis=1).reshape(clusters, -1)  # of each category: right, asked, pairs right, pairs

    def metric(totals: NDArray[np.float64]) -> NDArray[np.float64]:
        return 100.0 * _ratio(totals[..., 0::2], totals[..., 1::2]).sum(-1)

    return Sums(sums, metric)


def group_of(rows: pd.DataFrame) -> pd.Series[Any]:
    """What is scored together: `group`, else the image cluster for rows that name none."""
    return rows["group"].where(rows["group"].notna(), "cluster " + rows["cluster"].astype(str))


def _all_right(rows: pd.DataFrame, group: pd.Series[Any]) -> pd.DataFrame:
    """One row a group, in its first row's cluster, with the lowest score of the group."""
    return rows.groupby(group, sort=False).agg({"cluster": "first", "score": "min"})
