"""No pruning: the number that every other method is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from atp_eval.cost.scorer import Prompt
from atp_eval.errors import UserError
from atp_eval.methods.base import Geometry, Method
from atp_eval.methods.decision import Decision
from atp_eval.methods.point import Point


@dataclass(frozen=True, kw_only=True)
class UpperBound(Method):
    """Every token stays; the model runs untouched."""

    name: ClassVar[str] = "upper_bound"

    @property
    def reads_question(self) -> bool:
        return False

    def __post_init__(self) -> None:
        if self.average is not None:
            raise UserError(f"upper_bound@{self.average}: the upper bound prunes nothing and takes no budget")

    @property
    def prune_layers(self) -> tuple[int, ...]:
        return ()

    def solve(self, geometry: Geometry) -> UpperBound:
        return self

    def counts(self) -> tuple[int, ...]:
        return ()

    def decide(self, point: Point) -> Decision:
        return Decision(point.kept)

    def scorer_flops(self, prompt: Prompt) -> int:
        return 0
