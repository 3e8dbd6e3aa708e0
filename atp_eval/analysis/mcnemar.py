"""McNemar's test on questions that share pictures: does one of two methods get more of the same questions right?

Only questions that one method has right and the other wrong say anything (McNemar 1947). Those about one picture hang
together, so pictures are what is exchanged: under the null either method's answers to a picture could as well be the
other's, and the difference of right answers changes its sign picture by picture. The distribution of the sum over all
sign changes is computed exactly. With one question a picture it is the exact McNemar test; its normal approximation is
the modified Obuchowski test, sum(d)^2 / sum(d^2) (Yang, Sun & Hardin 2010), which is the test of Durkalski et al.
(2003) but that every question weighs alike, as in accuracy; theirs weighs pictures alike, whatever is asked of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from atp_eval.analysis.aggregation import group_of
from atp_eval.benchmarks import MME_PERCEPTION
from atp_eval.documents import Form

Integers = NDArray[np.int64]


class Answers(NamedTuple):
    """What a metric counts, sorted by document, each [rows]: the document, the group that counts once when all of it is
    right (a row alone but for MMBench), the image cluster, and whether the answer is right."""

    doc: Integers
    group: NDArray[Any]
    cluster: Integers
    right: NDArray[np.bool_]


@dataclass(frozen=True)
class McNemar:
    """gained: questions (or groups) that only the first method has right; lost: only the second. p: two-sided, pictures
    exchanged. p_questions: the exact test as if no two questions shared a picture."""

    gained: int
    lost: int
    p: float
    p_questions: float


def answers_of(rows: pd.DataFrame, form: Form, aggregation: str) -> Answers | None:
    """Of rows with doc_id, category, group, score and cluster; None where answers are not just right or wrong."""
    if form == "open" or not rows["score"].isin([0.0, 1.0]).all():
        return None
    if aggregation == "mme":
        rows = rows[rows["category"].isin(MME_PERCEPTION)]
    rows = rows.sort_values("doc_id")
    doc = rows["doc_id"].to_numpy()
    group = group_of(rows).to_numpy() if aggregation == "mmbench" else doc
    return Answers(doc, group, rows["cluster"].to_numpy(), rows["score"].to_numpy() == 1.0)


def mcnemar(first: Answers, second: Answers) -> McNemar:
    """Test two methods over the documents that both answered."""
    _, own, other = np.intersect1d(first.doc, second.doc, assume_unique=True, return_indices=True)
    _, start, unit = np.unique(first.group[own], return_index=True, return_inverse=True)
    won, lost = (np.ones(len(start), dtype=bool) for _ in range(2))
    np.logical_and.at(won, unit, first.right[own])
    np.logical_and.at(lost, unit, second.right[other])
    difference = won.astype(int) - lost.astype(int)
    gained, missed = int((difference > 0).sum()), int((difference < 0).sum())
    by_picture = np.bincount(first.cluster[own][start], difference) if len(start) else np.zeros(0)
    alone = stats.binomtest(gained, gained + missed).pvalue if gained + missed else 1.0
    return McNemar(gained, missed, sign_change(by_picture.astype(int)), float(alone))


def sign_change(differences: Integers) -> float:
    """The two-sided p of sum(d), [pictures], when every sign is as likely: exact, of 2^pictures changes; 1 for none."""
    sizes, times = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    chance = np.ones(1)  # of each number of points that turn positive
    for size, often in zip(sizes.tolist(), times.tolist(), strict=True):
        steps = np.zeros(size * often + 1)
        steps[::size] = stats.binom.pmf(np.arange(often + 1), often, 0.5)
        chance = np.convolve(chance, steps)
    total = len(chance) - 1
    sums = 2 * np.arange(total + 1) - total
    return float(min(1.0, chance[np.abs(sums) >= abs(int(differences.sum()))].sum()))
