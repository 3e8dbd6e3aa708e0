"""Retention: what a method keeps of the upper bound's metric, with a paired interval clustered by image.

All methods of a benchmark are resampled with the same draws of image clusters, so their differences are paired too.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from atp_eval.analysis.aggregation import Sums, cluster_sums
from atp_eval.analysis.significance import RESAMPLES, Interval, cluster_bootstrap, percentile_interval

COLUMNS = ["doc_id", "image_id", "category", "group", "score"]


class Kept(NamedTuple):
    """A retention in per cent with its interval and the bootstrap's [resamples] values of it."""

    interval: Interval
    replicates: NDArray[np.float64]


@dataclass(frozen=True)
class Retained:
    """A method on one benchmark.

    score: the metric over all of its documents, in lmms-eval's unit. kept: of the upper bound's metric over the
    documents that both answered; None without an upper bound or where that scored nothing. common, missing: documents
    that both have, and that only one of the two has.
    """

    score: Interval
    kept: Kept | None
    common: int
    missing: int


def retain(
    rows: Mapping[str, pd.DataFrame],
    references: Mapping[str, str | None],
    *,
    benchmark: str,
    aggregation: str,
    scale: float,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Retained]:
    """Every method's score and retention on a benchmark.

    rows: COLUMNS by label. references: the label that each is held against, None for none.
    """
    clusters = image_clusters(rows.values())
    size = int(clusters.max()) + 1 if len(clusters) else 0
    parts: list[Sums] = []

    def add(label: str, docs: pd.Index[int] | None = None) -> int:
        frame = rows[label] if docs is None else rows[label][rows[label]["doc_id"].isin(docs)]
        frame = frame.assign(cluster=clusters.reindex(frame["doc_id"]).to_numpy())
        parts.append(cluster_sums(frame, size, aggregation, scale))
        return len(parts) - 1

    whole = {label: add(label) for label in rows}
    pairs: dict[str, tuple[int, int, int, int]] = {}  # part of the method, part of the reference, common, missing
    for label, reference in references.items():
        if reference is None or reference not in rows:
            continue
        own, other = pd.Index(rows[label]["doc_id"]), pd.Index(rows[reference]["doc_id"])
        if own.equals(other):
            pairs[label] = whole[label], whole[reference], len(own), 0
        else:
            both = own.intersection(other)
            pairs[label] = add(label, both), add(reference, both), len(both), len(own.union(other)) - len(both)

    totals = cluster_bootstrap(np.concatenate([p.sums for p in parts], axis=1), resamples, stable_seed(benchmark, seed))
    edges = np.cumsum([0, *(p.sums.shape[1] for p in parts)])
    drawn = [part.metric(totals[:, a:b]) for part, a, b in zip(parts, edges[:-1], edges[1:], strict=True)]

    found = {}
    for label in rows:
        score = percentile_interval(parts[whole[label]].value, drawn[whole[label]])
        if score.low == score.high:  # answers that are all alike have no spread to resample, which is no certainty
            score = Interval(score.value)
        kept, common, missing = None, len(rows[label]), 0
        if label in pairs:
            own_part, reference_part, common, missing = pairs[label]
            value = percent(parts[own_part].value, parts[reference_part].value)
            if np.isfinite(value):
                replicates = percent(drawn[own_part], drawn[reference_part])
                kept = Kept(percentile_interval(float(value), replicates), replicates)
        found[label] = Retained(score, kept, common, missing)
    return found


def average(parts: Sequence[Retained]) -> Kept | None:
    """The mean retention over benchmarks, each resampled on its own; None where none has a retention."""
    known = [p.kept for p in parts if p.kept is not None]
    if not known:
        return None
    value, replicates = _mean(known)
    return Kept(percentile_interval(value, replicates), replicates)


def over_seeds(kept: Sequence[Kept], minus: Sequence[Kept] = ()) -> Interval:
    """The mean over a method's seeds, less that of another's; all have seen the same draws of questions. NaN where the
    upper bound scored nothing."""
    if not kept:
        return Interval(float("nan"))
    value, drawn = _mean(kept)
    if minus:
        other, others = _mean(minus)
        value, drawn = value - other, drawn - others
    return percentile_interval(value, drawn)


def pooled_seeds(kept: Sequence[Kept]) -> Interval:
    """Where a single seed's retention lies: every seed with every draw of questions."""
    if not kept:
        return Interval(float("nan"))
    return percentile_interval(_mean(kept)[0], np.concatenate([k.replicates for k in kept]))


def _mean(kept: Sequence[Kept]) -> tuple[float, NDArray[np.float64]]:
    return float(np.mean([k.interval.value for k in kept])), np.mean([k.replicates for k in kept], axis=0)


def percent(metric: Any, reference: Any) -> Any:
    """100 * metric / reference; NaN where the reference is nothing."""
    metric, reference = np.asarray(metric, dtype=float), np.asarray(reference, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(reference > 0, 100.0 * metric / reference, np.nan)


def image_clusters(frames: Any) -> pd.Series[Any]:
    """Cluster number by doc_id: documents that share a picture share a cluster, those without one stand alone."""
    docs = pd.concat([f[["doc_id", "image_id"]] for f in frames], ignore_index=True)
    # A document whose picture one method could not read may still be known from another.
    docs = docs.sort_values("doc_id", kind="stable").groupby("doc_id")["image_id"].first()
    keys = docs.where(docs.notna(), "document " + docs.index.astype(str))
    return pd.Series(pd.factorize(keys)[0], index=docs.index)


def stable_seed(name: str, seed: int) -> int:
    """A seed for a benchmark that does not depend on which others there are."""
    return zlib.crc32(f"{name}/{seed}".encode())
