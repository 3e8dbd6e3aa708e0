"""Populations of pictures with known truths, and datasets drawn of them: what `coverage.py` simulates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from atp_eval.benchmarks import MME_PERCEPTION

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """A population and how much of it a dataset holds.

    pictures: in a dataset; questions: least and most of a picture. right: of the upper bound's answers; loss, gain: of
    its right answers that the method gets wrong, of its wrong ones that it gets right; icc: within pictures. kind: the
    metric. benchmarks: how many are averaged. no_right, no_loss: of questions whose answer is no, for F1.
    """

    name: str
    pictures: int
    questions: tuple[int, int] = (5, 5)
    right: float = 0.7
    loss: float = 0.12
    gain: float = 0.06
    icc: float = 0.15
    kind: str = "mean"  # or soft, mme, mmbench, f1
    benchmarks: int = 1
    no_right: float = 0.0
    no_loss: float = 0.0

    @property
    def truth(self) -> float:
        """The retention in the population, in per cent."""
        if self.kind == "f1":
            upper = f1(self.right, self.no_right)
            pruned = f1(kept(self.right, self.loss, self.gain), kept(self.no_right, self.no_loss, self.gain))
            return 100 * pruned / upper
        powers = {"mme": (1, 2), "mmbench": (4,)}.get(self.kind, (1,))
        upper, pruned = (sum(self._moment(n, pruned) for n in powers) for pruned in (False, True))
        return 100 * pruned / upper

    def _moment(self, power: int, pruned: bool) -> float:
        """The mean over pictures of the probability of `power` right answers."""
        (p, a), (lost, b), (won, c) = (nodes(m, self.icc) for m in (self.right, self.loss, self.gain))
        chance = p[:, None, None]
        if pruned:
            chance = chance * (1 - lost[None, :, None]) + (1 - chance) * won[None, None, :]
        weights = a[:, None, None] * b[None, :, None] * c[None, None, :]
        return float((weights * chance**power).sum())


def kept(right: float, loss: float, gain: float) -> float:
    """The method's share of right answers."""
    return right * (1 - loss) + (1 - right) * gain


def f1(yes: float, no: float) -> float:
    """From the shares of right answers to questions whose answer is yes and no, which are as many."""
    return 2 * yes / (2 * yes + (1 - no) + (1 - yes))


def beta(mean: float, icc: float) -> tuple[float, float]:
    """The parameters of the distribution with a mean and an intraclass correlation."""
    return mean * (1 - icc) / icc, (1 - mean) * (1 - icc) / icc


def nodes(mean: float, icc: float) -> tuple[Floats, Floats]:
    """Gauss-Jacobi nodes and weights of a beta distribution: moments up to the 15th are exact."""
    if not icc or not 0 < mean < 1:
        return np.array([mean]), np.ones(1)
    a, b = beta(mean, icc)
    with np.errstate(invalid="ignore"):  # of a term that scipy then leaves out
        x, weights = special.roots_jacobi(8, b - 1, a - 1)
    return (x + 1) / 2, weights / weights.sum()


def answers(shape: Shape, picture: NDArray[np.int64], no: NDArray[np.bool_], rng: np.random.Generator) -> Any:
    """Right or wrong answers [questions] of the upper bound and of a method."""

    def chances(mean: float) -> Floats:
        if not shape.icc or not 0 < mean < 1:
            return np.full(shape.pictures, mean)
        return rng.beta(*beta(mean, shape.icc), size=shape.pictures)

    right, loss, gain = (chances(mean)[picture] for mean in (shape.right, shape.loss, shape.gain))
    if no.any():
        right, loss = np.where(no, [chances(shape.no_right)[picture], chances(shape.no_loss)[picture]], [right, loss])
    upper = rng.random(len(picture)) < right
    return upper, np.where(upper, rng.random(len(picture)) >= loss, rng.random(len(picture)) < gain)


def frames(shape: Shape, datasets: int, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Rows of `datasets` pairs of methods, as `retain` reads them."""
    sizes = rng.integers(shape.questions[0], shape.questions[1] + 1, shape.pictures)
    picture = np.repeat(np.arange(shape.pictures), sizes)
    no = (np.arange(len(picture)) % 2 == 1) & (shape.kind == "f1")
    category = np.array(MME_PERCEPTION)[picture % len(MME_PERCEPTION)] if shape.kind == "mme" else None
    base = pd.DataFrame(
        {
            "doc_id": np.arange(len(picture)),
            "image_id": picture.astype(str),
            "category": category,
            "group": picture.astype(str) if shape.kind in ("mme", "mmbench") else None,
            "target": np.where(no, "no", "yes"),
        }
    )
    found = {}
    for number in range(datasets):
        share = rng.choice([0.3, 0.6, 0.9, 1.0], len(picture)) if shape.kind == "soft" else 1.0
        for label, right in zip(("upper", "pruned"), answers(shape, picture, no, rng), strict=True):
            found[f"{label} {number}"] = base.assign(score=right * share, response=np.where(right ^ no, "yes", "no"))
    return found
