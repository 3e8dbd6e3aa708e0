"""A KV cache with room for the answer: new tokens are written in place, nothing that is there is copied again.

transformers' `DynamicCache` joins old and new keys into a new tensor at every step: with 640 tokens and a batch of 16
that copies 336 MB a layer of LLaVA-1.5-7B in fp32 to add half a megabyte. Layers may be of unequal length, as pruning
makes them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

from atp_eval.errors import UserError

MOST_ROOM = 256
"""Tokens that are made room for at first, at most: answers end early more often than not."""


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer [B, H, L, d]: views of buffers [B, H, capacity, d].

    room: tokens that fit behind the prompt; where more come, the capacity is doubled. For inference: what is written
    in place has no gradient.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self._length = 0
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add [B, H, new, d]; returns keys and values [B, H, L + new, d]."""
        start, end = self._length, self._length + key_states.shape[-2]
        if self._buffers is None:
            self.dtype, self.device = key_states.dtype, key_states.device
            self._buffers = with_room(key_states, end + self.room), with_room(value_states, end + self.room)
            self.is_initialized = True
        elif end > self.capacity:
            capacity = max(end, 2 * self.capacity)
            self._buffers = with_room(self.keys, capacity), with_room(self.values, capacity)
        if start:
            for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
                buffer[:, :, start:end] = new
        elif end > self._buffers[0].shape[2] - self.room:
            pass
        self._show(end)
        return self.keys, self.values
