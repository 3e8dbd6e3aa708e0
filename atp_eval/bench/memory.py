"""Memory that a bench needs, before anything is made: weights, and what a cell holds on top of them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from atp_eval.bench.records import Cell
from atp_eval.cost import ModelGeometry
from atp_eval.cost.flops import kv_bytes

FP32 = 4  # bytes; softmax is computed in it
MAPS = {"eager": 1}  # backends that write the attention map down


def weights_bytes(config: LlavaConfig, number: int) -> int:
    """Of the whole model; number: bytes of one."""
    llava: Any = LlavaForConditionalGeneration
    with torch.device("meta"):
        model = llava(config)
    return number * sum(p.numel() for p in model.parameters())


def cell_bytes(geometry: ModelGeometry, cell: Cell, text: int, number: int) -> int:
    """What a cell holds on top of the weights at its most, about: as if nothing was pruned.

    geometry: at the cell's grid. Pictures, keys and values, and the larger of one layer of the vision tower and one of
    the LLM, with what enters it, what leaves it and what it works on.
    """
    length, vision = geometry.cells + text, geometry.vision
    patches = geometry.cells + geometry.has_cls
    pixels = 3 * (geometry.grid[0] * vision.patch_size) ** 2
    cache = kv_bytes(geometry, [length + cell.new] * geometry.num_layers, number)
    tower = number * patches * (6 * vision.hidden + 2 * vision.intermediate)
    layer = number * length * (8 * geometry.hidden + 3 * geometry.intermediate) + FP32 * geometry.vocab
    if cell.attention in MAPS:
        tower += vision.heads * patches**2 * (FP32 + number)
        layer += geometry.heads * length**2 * (FP32 + 2 * number)
    return cell.batch * (number * pixels + cache + max(tower, layer))


def gigabytes(count: float) -> str:
    """`14.2 GB`, `0.06 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e9:.2g} GB"
