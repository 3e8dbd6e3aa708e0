"""Solve a method's counts for a budget: the mean over decoder layers of the visual tokens that enter the layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from atp_eval.cost import Geometry, averages, tokens_per_layer
from atp_eval.errors import UserError

PAPER_LAYERS = 32  # LLaVA-1.5-7B; the layer numbers of the papers count in its depth


def average_input(geometry: Geometry, layers: Sequence[int], keep: Sequence[int]) -> float:
    """Mean over layers of the tokens that enter a layer when `keep[j]` stay before `layers[j]`."""
    return averages(tokens_per_layer(geometry, layers, keep)).input


def scale_layer(layer: int, num_layers: int) -> int:
    """A layer number of a paper (32 layers deep) on a model of another depth; never before the LLM.

    FastV's layer 2 is 2 on 32 layers, 1 on 8 (where 2 would leave no room for a quarter of the tokens), 5 on 80.
    """
    return max(1, round(layer * num_layers / PAPER_LAYERS))


def check_layer(name: str, layer: int, geometry: Geometry) -> None:
    """Raise UserError for a prune point outside of the model."""
    if not 0 <= layer < geometry.num_layers:
        raise UserError(f"{name}: layer={layer} is not in this model; it has layers 0 to {geometry.num_layers - 1}")


def check_keep(name: str, keep: int, geometry: Geometry) -> None:
    """Raise UserError for a count that the image does not have."""
    if not 1 <= keep <= geometry.cells:
        raise UserError(f"{name}: keep={keep} is out of range; an image has 1 to {geometry.cells} visual tokens here")


def check_average(name: str, average: int, geometry: Geometry) -> None:
    """Raise UserError for a budget above the full image."""
    if average > geometry.cells:
        raise UserError(
            f"{name}@{average}: an image has only {geometry.cells} visual tokens; ask for at most that many"
        )


def keep_after(name: str, average: int, layer: int, geometry: Geometry) -> int:
    """Tokens to keep from `layer` on for an average of `average`: k = (N T - cells K) / (N - K), rounded.

    Raises UserError with the nearest average that can be reached: layers before the prune point see every token.
    """
    check_average(name, average, geometry)
    left = geometry.num_layers - layer
    keep = round((geometry.num_layers * average - geometry.cells * layer) / left)
    if keep < 1:
        lowest = math.ceil(average_input(geometry, [layer], [1]))
        raise UserError(
            f"{name}@{average} is out of reach: the {layer} of {geometry.num_layers} layers before the prune point see "
            f"all {geometry.cells} tokens. The nearest is {name}@{lowest}; a smaller layer= goes lower"
        )
    return keep
