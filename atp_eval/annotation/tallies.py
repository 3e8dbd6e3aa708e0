"""The arithmetic of votes: rates, position and agreement, each with its interval.

Rates are of method b. Votes on one picture hang together, so intervals of several annotators' votes resample pictures,
with all votes on them, by the bootstrap of `analysis.estimate`; those of one annotator's counts are Wilson's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from atp_eval.analysis.aggregation import Sums
from atp_eval.analysis.estimate import estimate, resample
from atp_eval.analysis.significance import RESAMPLES, Interval, wilson
from atp_eval.annotation.alpha import Distance, alpha, coincidences
from atp_eval.annotation.votes import Pool, Votes

VALUES = ("a", "tie", "b")  # in their order: ordinal distances need it
DISTANCES: tuple[Distance, Distance] = ("nominal", "ordinal")
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Rates:
    """Of method b, in [0, 1]: win, tie and loss, and `half`, win with ties as half. samples: with a vote."""

    who: str
    votes: int
    samples: int
    wins: int
    ties: int
    losses: int
    win: Interval
    tie: Interval
    loss: Interval
    half: Interval


@dataclass(frozen=True)
class Position:
    """Of looks that chose a side. left: the share that chose the left, or first, answer; p: the exact two-sided sign
    test over samples, by the side that was chosen more often. b_left, b_right: b's rate with ties as half, by where it
    stood, NaN where it never did. contradictions: the share of samples where one place won in both orders; None of a
    person, who looks once."""

    who: str
    looks: int
    left: Interval
    p: float
    b_left: float
    b_right: float
    contradictions: Interval | None


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha over the samples with two votes or more; NaN where all votes are alike."""

    whose: str
    annotators: int
    samples: int
    nominal: Interval
    ordinal: Interval


@dataclass(frozen=True)
class Pair:
    """Two annotators: the share of samples that both voted on and chose alike."""

    first: str
    second: str
    samples: int
    same: Interval


def vote_table(files: Iterable[Votes]) -> pd.DataFrame:
    """A row a vote: annotator, judge, benchmark, sample, cluster (the picture), value (an index of VALUES)."""
    names = ["annotator", "judge", "benchmark", "sample", "cluster", "value"]
    rows = [
        (v.annotator, v.judge is not None, x.benchmark, x.sample, x.picture or x.sample, value(x.winner))
        for v in files
        for x in v.votes
    ]
    return pd.DataFrame(rows, columns=names)


def look_table(files: Iterable[Votes]) -> pd.DataFrame:
    """A row a look: annotator, judge, sample, side (1 left, -1 right, 0 tie), b_left, score (of b), contradicts."""
    names = ["annotator", "judge", "sample", "side", "b_left", "score", "contradicts"]
    sides = {"left": 1, "right": -1, "tie": 0}
    looks = [(v, x, y) for v in files for x in v.votes for y in x.looks]
    rows = [
        (v.annotator, v.judge is not None, x.sample, sides[y.choice], y.left == "b", value(y.winner) / 2, x.contradicts)
        for v, x, y in looks
    ]
    return pd.DataFrame(rows, columns=names)


def value(winner: str) -> int:
    """0 where a wins, 1 for a tie, 2 where b wins."""
    return VALUES.index(winner)


def rates(who: str, votes: pd.DataFrame, *, clustered: bool) -> Rates:
    """Of a vote_table. clustered: resample pictures for win, tie and loss too, as votes of several annotators need."""
    values = votes["value"].to_numpy()
    counts = np.bincount(values, minlength=3)
    of_all = partial(share, codes(votes["cluster"]), weights=np.ones(len(values)))
    parts = bootstrapped([of_all(values == i) for i in range(3)] + [of_all(values / 2)])
    if not clustered:
        parts[:3] = [wilson(int(count), len(values)) for count in counts]
    loss, tie, win, half = parts
    losses, ties, wins = map(int, counts)
    return Rates(who, len(values), votes["sample"].nunique(), wins, ties, losses, win, tie, loss, half)


def overall(votes: pd.DataFrame, pools: Mapping[str, Pool]) -> Interval | None:
    """b's rate with ties as half over all that both methods answered, where the same answer is a tie.

    Each benchmark's votes stand for as many samples as it has; None where one that has some got no vote.
    """
    given = votes["benchmark"].value_counts()
    if any(pool.stands_for and name not in given for name, pool in pools.items()):
        return None
    weight = votes["benchmark"].map({name: pools[str(name)].stands_for / n for name, n in given.items()})
    weights = np.asarray(weight, dtype=np.float64)
    rate = bootstrapped([share(codes(votes["cluster"]), votes["value"].to_numpy() / 2, weights)])[0]
    told = sum(pool.stands_for for pool in pools.values()) / sum(pool.answered for pool in pools.values())
    return Interval(*(0.5 + told * (bound - 0.5) for bound in rate))


def position(who: str, looks: pd.DataFrame) -> Position:
    """Of one annotator's rows of a look_table."""
    sides = looks["side"]
    net = sides.groupby(looks["sample"]).sum()
    left, right = int((net > 0).sum()), int((net < 0).sum())
    by_place = looks.groupby("b_left")["score"].mean()
    told = looks.drop_duplicates("sample")
    return Position(
        who=who,
        looks=int((sides != 0).sum()),
        left=wilson(int((sides > 0).sum()), int((sides != 0).sum())),
        p=float(stats.binomtest(left, left + right).pvalue) if left + right else 1.0,
        b_left=float(by_place.get(True, np.nan)),
        b_right=float(by_place.get(False, np.nan)),
        contradictions=wilson(int(told["contradicts"].sum()), len(told)) if looks["judge"].any() else None,
    )


def agreement(whose: str, votes: pd.DataFrame) -> Agreement:
    """Of a vote_table with several annotators. Intervals resample pictures, with all votes on them."""
    counts = pd.crosstab(votes["sample"], votes["value"]).reindex(columns=range(3), fill_value=0)
    counts = counts[counts.sum(axis=1) > 1]
    cluster = codes(votes.drop_duplicates("sample").set_index("sample")["cluster"].reindex(counts.index))
    sums = np.zeros((int(cluster.max(initial=-1)) + 1, 9))
    np.add.at(sums, cluster, coincidences(counts.to_numpy()).reshape(-1, 9))

    def metric(distance: Distance, totals: Vector) -> Vector:
        return alpha(totals.reshape(*totals.shape[:-1], 3, 3), distance)

    found = bootstrapped([Sums(sums, partial(metric, distance)) for distance in DISTANCES])
    return Agreement(whose, votes["annotator"].nunique(), len(counts), *found)


def pair(first: str, second: str, votes: pd.DataFrame) -> Pair:
    """Of a vote_table."""
    one, two = (votes[votes["annotator"] == name].set_index("sample")["value"] for name in (first, second))
    both = one.index.intersection(two.index)
    return Pair(first, second, len(both), wilson(int((one[both] == two[both]).sum()), len(both)))


def codes(cluster: pd.Series[str]) -> NDArray[np.int64]:
    """Clusters as numbers from 0."""
    return pd.factorize(cluster)[0].astype(np.int64)


def share(cluster: NDArray[np.int64], values: Vector | NDArray[np.bool_], weights: Vector) -> Sums:
    """A weighted mean as sums by cluster."""
    sums: Vector = np.stack([np.bincount(cluster, values * weights), np.bincount(cluster, weights)], axis=1).astype(
        np.float64
    )
    return Sums(sums, lambda totals: totals[..., 0] / np.where(totals[..., 1] > 0, totals[..., 1], np.nan))


def bootstrapped(parts: Sequence[Sums]) -> list[Interval]:
    """Intervals of statistics over the same clusters; without bounds where nothing varies, which is no certainty."""
    return [estimate("votes", found).interval for found in resample(parts, RESAMPLES, seed=0)]
