"""Retention: what a method keeps of the upper bound's metric, with a paired interval clustered by image.

All methods of a benchmark are resampled with the same draws of image clusters, so their differences are paired too.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from atp_eval.analysis.aggregation import Sums, answer_sums, cluster_sums
from atp_eval.analysis.estimate import Estimate, Resampled, estimate, mean, resample
from atp_eval.analysis.mcnemar import Answers, answers_of
from atp_eval.analysis.significance import RESAMPLES, Interval, percentile_interval
from atp_eval.documents import Form

COLUMNS = ["doc_id", "image_id", "category", "group", "score"]
ANSWERS = ["target", "response"]  # for the metrics of `answer_sums`
METRIC = "metric"  # the benchmark's own among others


class Extra(NamedTuple):
    """A metric beside the benchmark's own, and what is kept of it in per cent, if anything."""

    score: Interval
    retention: Interval | None


@dataclass(frozen=True)
class Retained:
    """A method on one benchmark.

    score: the metric over all of its documents, in lmms-eval's unit. kept: per cent of the upper bound's metric over
    the documents that both answered; None without an upper bound or where that scored nothing. common, missing:
    documents that both have, and that only one of the two has. pictures: image clusters; differing: those in which the
    method scores otherwise than the upper bound. answers: which are right, where all are right or wrong. extra: other
    metrics in [0, 1].
    """

    score: Interval
    kept: Estimate | None
    common: int
    missing: int
    pictures: int
    differing: int
    answers: Answers | None = None
    extra: Mapping[str, Extra] = field(default_factory=dict)


class _Pair(NamedTuple):
    """Places of a method's metrics and of the upper bound's over common documents, and how many those are."""

    own: dict[str, int]
    other: dict[str, int]
    common: int
    missing: int


def retain(
    rows: Mapping[str, pd.DataFrame],
    references: Mapping[str, str | None],
    *,
    benchmark: str,
    aggregation: str,
    scale: float,
    form: Form = "open",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Retained]:
    """Every method's score and retention on a benchmark.

    rows: COLUMNS by label, and ANSWERS where `has_more_metrics`. references: the label that each is held against, None
    for none.
    """
    clusters = image_clusters(rows.values())
    size = int(clusters.max()) + 1 if len(clusters) else 0
    placed = {
        label: frame.assign(cluster=clusters.reindex(frame["doc_id"]).to_numpy()) for label, frame in rows.items()
    }
    parts: list[Sums] = []

    def add(label: str, docs: pd.Index[int] | None = None) -> dict[str, int]:
        frame = placed[label] if docs is None else placed[label][placed[label]["doc_id"].isin(docs)]
        found = {METRIC: cluster_sums(frame, size, aggregation, scale)}
        if has_more_metrics(form, aggregation):
            found |= answer_sums(frame, size)
        parts.extend(found.values())
        return dict(zip(found, range(len(parts) - len(found), len(parts)), strict=True))

    whole = {label: add(label) for label in rows}
    pairs: dict[str, _Pair] = {}
    for label, reference in references.items():
        if reference is None or reference not in rows:
            continue
        own, other = pd.Index(rows[label]["doc_id"]), pd.Index(rows[reference]["doc_id"])
        if own.equals(other):
            pairs[label] = _Pair(whole[label], whole[reference], len(own), 0)
        else:
            both = own.intersection(other)
            missing = len(own.union(other)) - len(both)
            pairs[label] = _Pair(add(label, both), add(reference, both), len(both), missing)

    drawn = resample(parts, resamples, stable_seed(benchmark, seed))
    found = {}
    for label, frame in placed.items():
        scores = {name: estimate(benchmark, drawn[place]).interval for name, place in whole[label].items()}
        kept: dict[str, Estimate] = {}
        common, missing, differing = len(frame), 0, 0
        if pair := pairs.get(label):
            common, missing = pair.common, pair.missing
            ours, theirs = (parts[places[METRIC]].sums for places in (pair.own, pair.other))
            differing = int((ours != theirs).any(1).sum()) if ours.shape == theirs.shape else size
            ratios = {name: estimate(benchmark, _ratio(drawn, pair, name)) for name in pair.own}
            kept = {name: ratio for name, ratio in ratios.items() if np.isfinite(ratio.value)}
        found[label] = Retained(
            score=scores[METRIC],
            kept=kept.get(METRIC),
            common=common,
            missing=missing,
            pictures=frame["cluster"].nunique(),
            differing=differing,
            answers=answers_of(frame, form, aggregation),
            extra={
                # More "yes" is neither better nor worse: nothing to keep.
                name: Extra(score, kept[name].interval if name in kept and name != "yes" else None)
                for name, score in scores.items()
                if name != METRIC
            },
        )
    return found


def has_more_metrics(form: Form, aggregation: str) -> bool:
    """Whether a benchmark is scored as POPE is, by yes and no answers that count one by one."""
    return form == "yes_no" and aggregation == "mean"


def average(parts: Sequence[Retained]) -> Estimate | None:
    """The mean retention over benchmarks, each resampled on its own; None where none has a retention."""
    known = [p.kept for p in parts if p.kept is not None]
    return mean(known) if known else None


def over_seeds(kept: Sequence[Estimate], minus: Sequence[Estimate] = ()) -> Interval:
    """The mean over a method's seeds, less that of another's; all have seen the same draws of questions. NaN where the
    upper bound scored nothing."""
    if not kept:
        return Interval(float("nan"))
    return (mean(kept).minus(mean(minus)) if minus else mean(kept)).interval


def pooled_seeds(kept: Sequence[Estimate]) -> Interval:
    """Where a single seed's retention lies: every seed with every draw of questions."""
    if not kept:
        return Interval(float("nan"))
    return percentile_interval(mean(kept).value, np.concatenate([k.draws for k in kept]))


def _ratio(drawn: Sequence[Resampled], pair: _Pair, name: str) -> Resampled:
    """A metric in per cent of the upper bound's."""
    value, draws, without = map(percent, drawn[pair.own[name]], drawn[pair.other[name]])
    return Resampled(float(value), draws, without)


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
