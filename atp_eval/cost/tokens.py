"""Visual tokens in each layer of a pruned model, and the averages by which papers count them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from atp_eval.cost.geometry import Geometry


class Averages(NamedTuple):
    """Visual tokens, by three conventions.

    input: mean over layers of those that enter a layer, as in ATP-LLaVA's tables and in `@144`; output: of those that
    leave a layer, where they are pruned on the way out (SparseVLM); final: those that enter the last layer (FastV).
    """

    input: float
    output: float
    final: float


def tokens_per_layer(geometry: Geometry, layers: Sequence[int], counts: Sequence[int]) -> list[int]:
    """[num_layers]: tokens that enter each layer when `counts[j]` stay before `layers[j]`, which rise."""
    tokens = [geometry.cells] * geometry.num_layers
    for layer, count in zip(layers, counts, strict=True):
        tokens[layer:] = [count] * (geometry.num_layers - layer)
    return tokens


def averages(tokens: Sequence[float]) -> Averages:
    """The averages of tokens that enter each layer [num_layers]."""
    layers = len(tokens)
    return Averages(sum(tokens) / layers, (sum(tokens[1:]) + tokens[-1]) / layers, tokens[-1])
