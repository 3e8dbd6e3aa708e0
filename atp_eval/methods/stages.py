"""The common part of methods that prune at several layers, to fixed counts, and number what stays without gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from atp_eval.errors import UserError
from atp_eval.methods.base import Geometry, Method, Numbering
from atp_eval.methods.budget import check_keep, check_layer, scale_layer


def scale_layers(layers: Sequence[int], num_layers: int) -> tuple[int, ...]:
    """Prune points of a paper (32 layers deep) on a model of another depth, rising.

    Each is scaled by itself (`scale_layer`), and comes at least one layer after the one before: 3, 7, 16 of 32 are
    1, 2, 4 of 8. On a shallow model the last may lie outside of it.
    """
    found: list[int] = []
    for layer in layers:
        found.append(max(scale_layer(layer, num_layers), found[-1] + 1 if found else 1))
    return tuple(found)


def joined(numbers: Sequence[int]) -> str:
    """As a spec string has them: 3-7-16."""
    return "-".join(map(str, numbers))


@dataclass(frozen=True, kw_only=True)
class Stages(Method):
    """Prune before each of `layers`, to the counts of `keep`.

    layers: prune points, rising, from 1 on. keep: for each of them a count, none larger than the one before.
    positions: contiguous, the default, numbers what stays in a layer without gaps, as the authors do; 1d leaves each
        token the place that it has in the full prompt.
    """

    layers: tuple[int, ...] | None = None
    keep: tuple[int, ...] | None = None
    positions: Numbering = "contiguous"

    def __post_init__(self) -> None:
        super().__post_init__()
        name, layers, keep = self.name, self.layers, self.keep
        if layers is not None and list(layers) != sorted(set(layers)):
            raise UserError(f"{name}: layers={joined(layers)} must rise")
        if layers is not None and layers[0] < 1:
            raise UserError(f"{name}: layers={joined(layers)} must start at 1 or later; its scores are of the LLM")
        if keep is not None and (list(keep) != sorted(keep, reverse=True) or keep[-1] < 1):
            raise UserError(f"{name}: keep={joined(keep)} must fall and end at 1 or more")
        if keep is not None and layers is not None and len(keep) != len(layers):
            raise UserError(f"{name}: {len(layers)} layers need as many counts in keep, not {len(keep)}")
        if keep is not None and self.average is not None:
            raise UserError(f"{name}: give a budget (@{self.average}) or keep={joined(keep)}, not both")

    @property
    def prune_layers(self) -> tuple[int, ...]:
        assert self.layers is not None, "solve() first"
        return self.layers

    def _check(self, layers: Sequence[int], keep: Sequence[int], geometry: Geometry) -> None:
        """Raise UserError where the prune points or the counts do not fit the model."""
        for layer in layers:
            check_layer(self.name, layer, geometry)
        if len(keep) != len(layers):
            raise UserError(f"{self.name}: {len(layers)} layers need as many counts in keep, not {len(keep)}")
        check_keep(self.name, keep[0], geometry)

    def _refuse(self, nearest: int, layers: Sequence[int], geometry: Geometry) -> NoReturn:
        """Raise UserError for a budget that is below what the layers before the prune points take."""
        earlier = list(layers) != list(range(1, len(layers) + 1))
        raise UserError(
            f"{self.label} is out of reach with layers={joined(layers)} of {geometry.num_layers}: those before "
            f"layer {layers[0]} see all {geometry.cells} tokens. "
            f"The nearest is {replace(self, average=nearest).label}" + ("; earlier layers= go lower" if earlier else "")
        )
