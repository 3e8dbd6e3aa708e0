"""The common part of methods that choose a fixed count of the projected tokens before the LLM sees any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from atp_eval.errors import UserError
from atp_eval.methods.base import Geometry, Method, Numbering
from atp_eval.methods.budget import check_average, check_keep

if TYPE_CHECKING:
    from typing_extensions import Self


def check_cls(label: str, geometry: Geometry) -> None:
    """Raise UserError for a vision tower without a CLS token."""
    if not geometry.has_cls:
        raise UserError(f"{label} needs a vision tower with a CLS token, this has none; divprune works without")


@dataclass(frozen=True, kw_only=True)
class BeforeLLM(Method):
    """Prune once, before layer 0, so that every layer reads `keep` tokens and the budget is the count itself.

    keep: tokens that stay; the budget, or else `default_share` of the image (halves to the even number).
    positions: how the LLM numbers them. contiguous, the default, is without gaps, as in the code of such methods'
        authors; 1d leaves each the place that it has in the full image.
    """

    default_share: ClassVar[float | None] = None
    keep: int | None = None
    positions: Numbering = "contiguous"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep is not None and self.keep < 1:
            raise UserError(f"{self.name}: keep={self.keep} leaves nothing; keep at least 1 token")
        if self.keep is not None and self.average is not None:
            raise UserError(f"{self.name}: give a budget (@{self.average}) or keep={self.keep}, not both")
        if self.keep is None and self.average is None and self.default_share is None:
            raise UserError(f"{self.name} needs a budget: write {self.name}@144 or {self.name}:keep=144")

    @property
    def prune_layers(self) -> tuple[int, ...]:
        return (0,)

    def solve(self, geometry: Geometry) -> Self:
        if self.average is not None:
            check_average(self.name, self.average, geometry)
        keep = self.average or self.keep or round(geometry.cells * (self.default_share or 1.0))
        check_keep(self.name, keep, geometry)
        return self._solved(keep=keep)

    def counts(self) -> tuple[int, ...] | None:
        assert self.keep is not None, "solve() first"
        return (self.keep,)
