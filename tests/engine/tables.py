"""Rotary tables in fp64 for the proofs: transformers computes them in fp32 even for an fp64 model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from reference import atp as literal
from torch import Tensor

from engine.small import IMAGE


@contextmanager
def _forward(model: Any, forward: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Another function in the place of the model's rotary embedding."""
    rotary = model.model.language_model.rotary_emb
    rotary.forward = forward
    try:
        yield
    finally:
        del rotary.forward


def size_and_base(model: Any) -> tuple[int, float]:
    """Head size and rope_theta."""
    rotary = model.model.language_model.rotary_emb
    return 2 * len(rotary.inv_freq), rotary.config.rope_parameters["rope_theta"]


def exact(model: Any) -> AbstractContextManager[None]:
    """Inside the block the tables of positions, whatever they are, are fp64."""
    size, base = size_and_base(model)
    inverse = base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)

    def forward(x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angles = (position_ids[..., None].double() * inverse).repeat(1, 1, 2)
        return angles.cos(), angles.sin()

    return _forward(model, forward)


def as_written(model: Any, prompt: Tensor) -> AbstractContextManager[None]:
    """Inside the block the tables are those that are written down token by token for `prompt` [L] and what follows."""
    size, base = size_and_base(model)
    side = model.config.vision_config.image_size // model.config.vision_config.patch_size

    def forward(x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        later = position_ids.shape[1] - len(prompt)
        places = literal.coordinates([*prompt.tolist(), *[1] * later], IMAGE, (side, side))
        return literal.rotary(places, size, base)

    return _forward(model, forward)
