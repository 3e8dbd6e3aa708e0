"""The way of one batch of prompts through the decoder layers, and of the tokens that are generated after it.

Hooks on the layers shorten what enters them: hidden states, rotary tables and mask. Where the model allows it, prompts
go through the layers without padding (`packed.py`), and rows that nobody reads leave earlier (`early.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from atp_eval.engine import early
from atp_eval.engine.attention import Attention, attend_once, coming_attention, forget, layer_mask
from atp_eval.engine.layout import Layout
from atp_eval.engine.linear import LEAST, by_onednn, large_linears
from atp_eval.engine.packed import Packing, RowsOfCache, moved
from atp_eval.engine.prefill import Prefill
from atp_eval.errors import UserError
from atp_eval.methods import Method


class Passage:
    """Hooks on the layers of `text_model`, and what they have to know of the call of the model that goes on.

    prefill: of the last batch of prompts. reading: whether the call reads a prompt. last_only: whether its caller asks
    for the next word alone; all_asked: whether for hidden states or attention maps of every layer.
    """

    def __init__(self, text_model: Any, method: Method) -> None:
        self.text_model, self.method = text_model, method
        self.prefill: Prefill | None = None
        self.reading, self.last_only, self.all_asked = False, False, False
        self._whole = False
        self._cache: Cache | None = None
        self._attention: Attention | None = None
        self._tables: tuple[Tensor, ...] | None = None
        self._masks: dict[int, Any] = {}
        self._rotaries: dict[int, tuple[Tensor, ...]] = {}
        self._large: list[Any] = []
        self._products = ExitStack()

    def attach(self, stack: ExitStack) -> None:
        """Hook the layers; `stack` takes all of it back."""
        layers = self.text_model.layers
        self._whole = all(early.known(layer, early.LAST_LAYERS) for layer in layers)
        self._large = large_linears(layers)
        stack.callback(self._products.close)
        for index, layer in enumerate(layers):
            for module, enter in ((layer, self._enter_layer), (layer.self_attn, self._enter_attention)):
                handle = module.register_forward_pre_hook(partial(enter, index), with_kwargs=True)
                stack.callback(handle.remove)
            stack.callback(forget, layer.self_attn)
            if self.method.early and index + 1 in self.method.prune_layers and early.known(layer, early.LAYERS):
                layer.forward = partial(self._run_deciding_layer, index, layer, layer.forward)
                stack.callback(delattr, layer, "forward")
        if early.known(layers[-1], early.LAST_LAYERS):
            layers[-1].forward = partial(self._run_last_layer, layers[-1], layers[-1].forward)
            stack.callback(delattr, layers[-1], "forward")

    def start(self, prefill: Prefill | None) -> None:
        """A new batch of prompts comes; None until it is known."""
        self.prefill, self._attention, self._tables = prefill, None, None

    def call(self, reading: bool, last_only: bool) -> None:
        """A call of the model begins."""
        self._products.close()
        self.reading, self.last_only = reading, last_only
        self._masks, self._rotaries = {}, {}

    @property
    def has_images(self) -> bool:
        """Whether there is anything to prune."""
        return self.prefill is not None and any(self.prefill.has_image)

    @property
    def packing(self) -> Packing | None:
        """Of what goes through the layers now."""
        return self.prefill.packing if self.prefill is not None and self.reading else None

    def _enter_layer(self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before a decoder layer: what leaves here leaves, and what goes on is told of it."""
        if not self.has_images:
            return None
        assert self.prefill is not None
        (hidden, *rest), cache = args, kwargs.get("past_key_values")
        if self.reading:
            self._cache = cache
            hidden = self._enter_prompt(index, module, hidden, kwargs)
        if not self._changed(index):
            return None
        if self.reading:
            kwargs["position_embeddings"] = self._tables
        elif cache is not self._cache or len(hidden) != len(self.prefill.start.lengths):
            raise UserError(
                "this cache is not of the last prompt batch; go on with a batch before reading the next one"
            )
        elif self.method.positions == "contiguous":
            kwargs["position_embeddings"] = self._rotary(index, hidden, cache)
        kwargs["position_ids"] = None  # FlashAttention reads the gaps of pruned positions as packed sequences
        kwargs["attention_mask"] = None if self.packing else self._mask(index, hidden, cache)
        return (hidden, *rest), kwargs

    def _changed(self, index: int) -> bool:
        """Whether a layer gets anything else than from the untouched model."""
        return self.packing is not None or self._stage_of(index) >= 0

    def _enter_prompt(self, index: int, module: nn.Module, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """Before a layer that reads a prompt: take away what the method says, and padding where that pays."""
        assert self.prefill is not None
        prefill = self.prefill
        self._take_rotary(hidden, kwargs)
        prunes = index in self.method.prune_layers and self._stage_of(index) == len(prefill.layouts)
        if prunes:
            hidden = hidden if self.packing is None else self.packing.unpack(hidden)
            hidden = prefill.prune(self.method, index, hidden, self._attention, partial(coming_attention, module))
        if prunes or (index == 0 and prefill.shared is not None):
            self._leave_point(hidden)
            hidden = hidden if self.packing is None else self.packing.pack(hidden)
        return hidden

    def _take_rotary(self, hidden: Tensor, kwargs: dict[str, Any]) -> None:
        """Once a prompt: the rotary tables of the model itself, for each row."""
        assert self.prefill is not None
        if self.prefill.rotary is None:
            self.prefill.rotary = tuple(t.expand(len(hidden), -1, -1) for t in kwargs["position_embeddings"])

    def _leave_point(self, like: Tensor) -> None:
        """Behind a prune point: its attention is no longer needed, gaps in positions may have to be closed, and what
        stays may be packed anew."""
        assert self.prefill is not None
        prefill, self._attention = self.prefill, None
        if self.method.positions == "contiguous" and prefill.layouts:
            prefill.rotary = self.text_model.rotary_emb(like, position_ids=prefill.layout.places)
        prefill.repack(self.method, self._whole and not self.all_asked)
        assert prefill.rotary is not None
        packing = prefill.packing
        if self._large and not torch.is_grad_enabled() and (packing is not None or prefill.dropped):
            self._products.close()
            self._products.enter_context(by_onednn(self._large, range(LEAST, sys.maxsize)))
        self._tables = prefill.rotary if packing is None else tuple(packing.pack(t) for t in prefill.rotary)

    def _enter_attention(self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before the attention of a layer: a prune point may score from it, and packed prompts attend on their own."""
        if not self.reading or not self.has_images:
            return None
        reader = self._remember if index + 1 in self.method.prune_layers else None
        packing, cache = self.packing, kwargs.get("past_key_values")
        if reader is not None or packing is not None:
            attend_once(module, reader, packing)
        if packing is None or cache is None:
            return None
        return args, {**kwargs, "past_key_values": RowsOfCache(cache, packing)}

    def _remember(self, attention: Attention) -> None:
        self._attention = attention

    def _run_deciding_layer(
        self, index: int, layer: nn.Module, own: Callable[..., Tensor], hidden: Tensor, **kwargs: Any
    ) -> Tensor:
        """The forward of a layer before a prune point of an early method: tokens leave behind its attention."""
        if not self.reading or self.all_asked or not self.has_images:
            return own(hidden, **kwargs)

        def decide() -> Tensor:
            assert self.prefill is not None and self._attention is not None
            before, length = self.packing, self.prefill.layout.valid.shape[1]
            index_of = self.prefill.prune_early(self.method, index + 1, self._attention)
            self._leave_point(hidden)
            return moved(index_of, length, before, self.packing)

        return early.surviving_rows(layer, hidden, decide, **kwargs)

    def _run_last_layer(self, layer: nn.Module, own: Callable[..., Tensor], hidden: Tensor, **kwargs: Any) -> Tensor:
        """The forward of the last layer: one row goes through it where one is asked for, and packed rows end there.

        Not where nothing was dropped: one row alone is rounded otherwise than among others, and that answer is to be
        the untouched model's to the bit.
        """
        prefill, packing = self.prefill, self.packing
        if prefill is None or not self.reading:
            return own(hidden, **kwargs)
        if not self.last_only or self.all_asked or layer.training or not (prefill.dropped or packing):
            found = own(hidden, **kwargs)  # in training attention drops out
            return found if packing is None else packing.unpack(found)
        kwargs.pop("attention_mask", None)
        mask = layer_mask(self.text_model.config, prefill.layout, 1, prefill.layout.valid.shape[1] - 1, hidden)
        return early.last_row(layer, hidden, mask, packing, **kwargs)

    def _rotary(self, index: int, hidden: Tensor, cache: Any) -> tuple[Tensor, ...]:
        """Rotary tables of later tokens, which go on from what is in the layer's cache; the same in all of a stage."""
        stage, layout = self._stage(index)
        if stage not in self._rotaries:
            places = layout.places_after(cache.get_seq_length(index), hidden.shape[1])
            self._rotaries[stage] = self.text_model.rotary_emb(hidden, position_ids=places)
        return self._rotaries[stage]

    def _mask(self, index: int, hidden: Tensor, cache: Cache | None) -> Any:
        """One mask for all layers of a stage."""
        stage, layout = self._stage(index)
        if stage not in self._masks:
            past = 0 if self.reading or cache is None else cache.get_seq_length(index)
            self._masks[stage] = layer_mask(self.text_model.config, layout, hidden.shape[1], past, hidden)
        return self._masks[stage]

    def layout(self, index: int) -> Layout:
        """How the prompts lie in the cache of a layer."""
        assert self.prefill is not None
        stage = self._stage_of(index) if self.has_images else -1
        return self.prefill.layouts[stage] if stage >= 0 else self.prefill.start

    def _stage(self, index: int) -> tuple[int, Layout]:
        """The last prune point at or before a layer, counted from 0, and the prompt's layout from there on."""
        assert self.prefill is not None
        stage = self._stage_of(index)
        return stage, self.prefill.layouts[stage]

    def _stage_of(self, index: int) -> int:
        return sum(layer <= index for layer in self.method.prune_layers) - 1
