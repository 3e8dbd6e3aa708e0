"""The common part of methods that prune once, to a fixed count: where, how many, and the budget behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from atp_eval.errors import UserError
from atp_eval.methods.base import Geometry, Method, Numbering
from atp_eval.methods.budget import check_keep, check_layer, keep_after, scale_layer

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, kw_only=True)
class SinglePoint(Method):
    """Prune once.

    layer: prune before this layer; default is FastV's 2 of 32, scaled to the model's depth and at least 1.
    keep: tokens that stay; solved from the budget, or else `default_share` of the image.
    positions: 1d, the default, leaves each token the place that it has in the full prompt; contiguous numbers what
        stays without gaps.
    """

    first_layer: ClassVar[int] = 0
    default_share: ClassVar[float | None] = None
    layer: int | None = None
    keep: int | None = None
    positions: Numbering = "1d"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer is not None and self.layer < self.first_layer:
            why = "" if self.first_layer == 0 else ", its score comes from the attention of the layer before"
            raise UserError(f"{self.name}: layer={self.layer} is too small; the first is {self.first_layer}{why}")
        if self.keep is not None and self.keep < 1:
            raise UserError(f"{self.name}: keep={self.keep} leaves nothing; keep at least 1 token")
        if self.keep is not None and self.average is not None:
            raise UserError(f"{self.name}: give a budget (@{self.average}) or keep={self.keep}, not both")
        if self.keep is None and self.average is None and self.default_share is None:
            raise UserError(f"{self.name} needs a budget: write {self.name}@144 or {self.name}:keep=72")

    @property
    def prune_layers(self) -> tuple[int, ...]:
        assert self.layer is not None, "solve() first"
        return (self.layer,)

    def solve(self, geometry: Geometry) -> Self:
        layer = scale_layer(2, geometry.num_layers) if self.layer is None else self.layer
        check_layer(self.name, layer, geometry)
        if self.average is not None:
            keep = keep_after(self.name, self.average, layer, geometry)
        else:
            keep = self.keep or round(geometry.cells * (self.default_share or 1.0))
        check_keep(self.name, keep, geometry)
        return self._solved(layer=layer, keep=keep)

    def counts(self) -> tuple[int, ...] | None:
        assert self.keep is not None, "solve() first"
        return (self.keep,)
