"""Is a method adaptive? Whether a sample's visual tokens follow its picture, its question, or how hard that is.

Questions of all benchmarks are taken together and drawn by picture in the bootstrap. Whatever compares questions does
so within benchmarks, since those differ in the wording and length of their prompts, which may move counts as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from atp_eval.analysis.aggregation import Sums
from atp_eval.analysis.histograms import QUANTILES, pruning
from atp_eval.analysis.question_sums import MOST_CLUSTERS, difference_sums, intervals, mean_sums, share_sums, within
from atp_eval.analysis.rank import spearman
from atp_eval.analysis.reading import Entry
from atp_eval.analysis.significance import DESCRIPTIVE_RESAMPLES, Interval, percentile_interval
from atp_eval.analysis.tokens import entering
from atp_eval.analysis.traces import read_traces

COLUMNS = ["doc_id", "image_id", "level", "objects", "asked_cells", "trace"]
LEVELS = ("coarse", "middle", "fine")
RIGHT = 0.5  # an answer counts as right from this score on
MOST_BINS = 12  # object counts that are shown one by one; more are put together
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """Visual tokens over questions: mean with its interval, standard deviation, 5 and 95 % quantiles."""

    mean: Interval
    deviation: float
    low: float
    high: float


@dataclass(frozen=True)
class Bin:
    """Mean tokens of the questions about pictures with `low` to `high` objects; objects: their mean number."""

    low: int
    high: int
    objects: float
    questions: int
    tokens: Interval


@dataclass(frozen=True)
class Adaptivity:
    """What a method's tokens go with; tokens are a sample's average over layer inputs. None where it cannot be said.

    points: tokens that enter after each prune point, by layer. between_pictures: share of the variance within
    benchmarks that lies between pictures (intraclass correlation); the rest lies between questions about one picture.
    levels: mean tokens by the level of the question. fine_minus_coarse, wrong_minus_right: differences in tokens
    within benchmarks, the second by whether the upper bound answered wrong or right. objects, asked_cells: rank
    correlation (Spearman, ranks within benchmarks) of tokens with the number of objects in the picture, and with the
    grid cells of those asked about; questions about none of them are left out of the second.
    """

    label: str
    questions: int
    pictures: int
    tokens: Spread
    points: dict[int, Spread]
    between_pictures: Interval | None
    levels: dict[str, Interval]
    fine_minus_coarse: Interval | None
    wrong_minus_right: Interval | None
    objects: Interval | None
    asked_cells: Interval | None
    by_objects: tuple[Bin, ...]


def measure_adaptivity(
    label: str, rows: pd.DataFrame, *, resamples: int = DESCRIPTIVE_RESAMPLES, seed: int = 0
) -> Adaptivity | None:
    """Measure a method; None where all its samples have the same count (or none has a trace).

    rows: one a question, with COLUMNS, `benchmark` and `reference` (the upper bound's score; NaN without one). Rows
    without a trace are left out.
    """
    rows = rows[rows["trace"].notna()].reset_index(drop=True)
    kept = entering(read_traces(rows.pop("trace")))
    if kept is None or kept.averages.min() == kept.averages.max():
        return None
    rows, tokens = rows.iloc[kept.rows], kept.averages
    cluster, names = pd.factorize(rows["image_id"])
    size = len(names)
    stages = {layer: kept.at(layer).astype(float) for layer in pruning(kept)}
    stratum = pd.factorize(rows["benchmark"])[0]
    level = rows["level"].to_numpy()
    objects, cells, reference = (
        pd.to_numeric(rows[name], errors="coerce").to_numpy(dtype=float)
        for name in ("objects", "asked_cells", "reference")
    )
    bins = object_bins(objects)

    parts: dict[str, Sums] = {"tokens": mean_sums(tokens, cluster, size)}
    parts |= {f"layer {layer}": mean_sums(count, cluster, size) for layer, count in stages.items()}
    parts |= {f"level {name}": mean_sums(tokens, cluster, size, level == name) for name in LEVELS}
    parts |= {f"bin {low}": mean_sums(tokens, cluster, size, inside(objects, low, high)) for low, high in bins}
    parts["between"] = share_sums(within(tokens, stratum), cluster, size)
    leveled = np.isin(level.astype(str), ["fine", "coarse"])
    parts["fine"] = difference_sums(tokens, level == "fine", leveled, stratum, cluster, size)
    parts["wrong"] = difference_sums(tokens, reference < RIGHT, np.isfinite(reference), stratum, cluster, size)
    found = intervals(parts, resamples, seed)

    def correlation(values: Vector, where: NDArray[np.bool_]) -> Interval | None:
        if not where.any():
            return None
        pictures = cluster[where] % MOST_CLUSTERS
        few = min(size, MOST_CLUSTERS)
        value, drawn = spearman(tokens[where], values[where], stratum[where], pictures, few, resamples, seed)
        return known(percentile_interval(value, drawn))

    return Adaptivity(
        label=label,
        questions=len(rows),
        pictures=size,
        tokens=spread(tokens, found["tokens"]),
        points={layer: spread(count, found[f"layer {layer}"]) for layer, count in stages.items()},
        between_pictures=known(found["between"]),
        levels={name: interval for name in LEVELS if (interval := known(found[f"level {name}"]))},
        fine_minus_coarse=known(found["fine"]),
        wrong_minus_right=known(found["wrong"]),
        objects=correlation(objects, np.isfinite(objects)),
        asked_cells=correlation(cells, cells > 0),
        by_objects=tuple(
            Bin(low, high, float(objects[here].mean()), int(here.sum()), found[f"bin {low}"])
            for low, high in bins
            if (here := inside(objects, low, high)).any()
        ),
    )


def question_rows(entry: Entry, reference: Entry | None) -> pd.DataFrame:
    """What `measure_adaptivity` reads of a method: its answers to all benchmarks, with the upper bound's scores."""
    frames = []
    for name in entry.results:
        rows = entry.rows(name, COLUMNS).assign(benchmark=name, reference=np.nan)
        if reference is not None and name in reference.results:
            scores = reference.rows(name, ["doc_id", "score"]).set_index("doc_id")["score"]
            rows["reference"] = scores.reindex(rows["doc_id"]).to_numpy()
        frames.append(rows)
    return pd.concat(frames, ignore_index=True)


def spread(values: Vector, mean: Interval) -> Spread:
    """Of [questions] values whose mean is known."""
    low, high = np.quantile(values, QUANTILES)
    return Spread(mean, float(values.std()), float(low), float(high))


def known(interval: Interval) -> Interval | None:
    """None for a value that is undefined."""
    return interval if np.isfinite(interval.value) else None


def object_bins(objects: Vector, most: int = MOST_BINS) -> list[tuple[int, int]]:
    """(low, high) of the bins, both inside: one a number of objects, or about equally many questions in each."""
    values = np.unique(objects[np.isfinite(objects)]).astype(int)
    if len(values) <= most:
        return [(int(v), int(v)) for v in values]
    edges = np.quantile(objects[np.isfinite(objects)], np.linspace(0, 1, most + 1), method="nearest").astype(int)
    lows = np.unique(edges[:-1])
    return list(zip(lows.tolist(), [*(lows[1:] - 1).tolist(), int(values[-1])], strict=True))


def inside(values: Vector, low: int, high: int) -> NDArray[np.bool_]:
    """Where low <= value <= high; NaN is nowhere."""
    return (values >= low) & (values <= high)
