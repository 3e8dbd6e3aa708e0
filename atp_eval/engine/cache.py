"""A KV cache with room for the answer: new tokens are written in place, and what is there is not copied again.

transformers' `DynamicCache` joins old and new keys into a new tensor at every step: with 640 tokens and a batch of 16
it copies 336 MB a layer of LLaVA-1.5-7B in fp32 to add half a megabyte. Layers may be of unequal length, as pruning
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
"""Tokens that room is made for at first, at most: few answers are as long as they might be."""


class GrowingLayer(DynamicLayer):
    """Keys and values [B, H, L, d] of one layer, which are views of buffers [B, H, capacity, d].

    room: tokens that fit in behind the prompt; if more come, the capacity is doubled. What is written in place has no
    gradient: this is for inference. Raises UserError where gradients are asked for.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self._length = 0
        self._buffers: tuple[Tensor, Tensor] | None = None

    @property
    def capacity(self) -> int:
        """Tokens that fit in without a copy of those that are there; 0 before the first ones came."""
        return 0 if self._buffers is None else self._buffers[0].shape[2]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make buffers for tokens like these [B, H, L, d], and `room` more."""
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        self._make(key_states, value_states, key_states.shape[2] + self.room)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write [B, H, new, d] behind what is there; returns all of it, [B, H, L + new, d] each."""
        if torch.is_grad_enabled() and key_states.requires_grad:
            raise UserError("a growing cache keeps no gradients: call the model under torch.no_grad()")
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self._length = self._length, self._length + key_states.shape[2]
        if self._length > self.capacity:
            self._grow(max(self._length, 2 * self.capacity))
        self._write(key_states, value_states, slice(start, self._length))
        return self._show()

    def get_seq_length(self) -> int:
        """Tokens that are there."""
        return self._length

    def reset(self) -> None:
        """Forget everything, buffers included."""
        self._length, self._buffers, self.is_initialized = 0, None, False
        self.keys = self.values = None

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-tokens_to_remove` tokens; transformers gives a negative number."""
        if tokens_to_remove > 0:
            raise UserError(f"crop({tokens_to_remove}): give the tokens to remove as a negative number")
        if self._buffers is not None:
            self._length = max(0, self._length + tokens_to_remove)
            self._show()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rows `beam_idx` [B] of the batch, for beam search: one copy, room included."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Rows `indices` of the batch."""
        if self._buffers is not None:
            keys, values = self._buffers
            self._buffers = keys[indices.to(keys.device)], values[indices.to(keys.device)]
            self._show()

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row of the batch `repeats` times."""
        if self._buffers is not None:
            keys, values = self._buffers
            self._buffers = keys.repeat_interleave(repeats, 0), values.repeat_interleave(repeats, 0)
            self._show()

    def _make(self, key: Tensor, value: Tensor, capacity: int) -> None:
        """Empty buffers of that capacity."""
        self._buffers = (
            key.new_empty(*key.shape[:2], capacity, key.shape[3]),
            value.new_empty(*value.shape[:2], capacity, value.shape[3]),
        )

    def _grow(self, capacity: int) -> None:
        """The same tokens in larger buffers."""
        assert self.keys is not None and self.values is not None
        key, value = self.keys, self.values
        self._make(key, value, capacity)
        self._write(key, value, slice(0, key.shape[2]))

    def _write(self, key: Tensor, value: Tensor, place: slice) -> None:
        assert self._buffers is not None
        for buffer, new in zip(self._buffers, (key, value), strict=True):
            buffer[:, :, place] = new

    def _show(self) -> tuple[Tensor, Tensor]:
        """`keys` and `values` are what is filled of the buffers."""
        assert self._buffers is not None
        keys, values = (buffer[:, :, : self._length] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


class GrowingCache(DynamicCache):
    """transformers' default cache for a model of this configuration, with room for `new_tokens` more in each layer.

    Layers that look through a sliding window are transformers' own: those keep no more than the window anyway.
    """

    def __init__(self, config: PreTrainedConfig, new_tokens: int) -> None:
        super().__init__(config=config)
        room = max(0, min(new_tokens, MOST_ROOM))
        self.layers = [GrowingLayer(room) if type(layer) is DynamicLayer else layer for layer in self.layers]
