"""Controls that know the answer's place: the limits of what a choice of tokens can win or lose."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from atp_eval.cost.scorer import Prompt
from atp_eval.errors import UserError
from atp_eval.methods.base import Need
from atp_eval.methods.decision import Decision, keep_top
from atp_eval.methods.point import Point
from atp_eval.methods.random import random_scores
from atp_eval.methods.single import SinglePoint


def first_scores(first: Tensor, seed: int, sample_ids: Sequence[str]) -> Tensor:
    """[B, V] in [0, 2): the cells in `first` [B, V] bool above all others, in either group as `random` draws them.

    With nothing or everything in `first` the order is that of `random` with the same seed.
    """
    drawn = random_scores(seed, sample_ids, first.shape[1]).to(first.device, non_blocking=True)
    return drawn + first


@dataclass(frozen=True, kw_only=True)
class Truth(SinglePoint):
    """Keep `keep` tokens, some cells before all others.

    The cells of what the question is about come from ground truth, which the embedded mini-benchmarks have; without it
    a run is refused. Which tokens of a group stay, where not all of them can, is drawn at random for each sample.

    seed: another seed draws other tokens; see `random`.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"asked"})
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed < 0:
            raise UserError(f"{self.name}: seed={self.seed} must not be negative")

    @abstractmethod
    def first(self, asked: Tensor) -> Tensor:
        """[B, V] bool: the cells that stay before all others; asked [B, V]: those of what the question is about."""

    @property
    def early(self) -> bool:
        return True

    def decide(self, point: Point) -> Decision:
        assert self.keep is not None, "solve() first"
        scores = first_scores(self.first(point.asked), self.seed, point.sample_ids)
        return keep_top(scores.masked_fill(~point.kept, float("-inf")), self.keep)

    def scorer_flops(self, prompt: Prompt) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class Oracle(Truth):
    """The tokens of what the question is about first: what a perfect choice would keep."""

    name: ClassVar[str] = "oracle"

    def first(self, asked: Tensor) -> Tensor:
        return asked


@dataclass(frozen=True, kw_only=True)
class Background(Truth):
    """All other tokens first: what is left for the answer when the choice is as wrong as it can be."""

    name: ClassVar[str] = "background"

    def first(self, asked: Tensor) -> Tensor:
        return ~asked
