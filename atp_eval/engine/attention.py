"""The places where the engine meets transformers' attention: reading queries and keys, making them, and making masks.

Nothing of the model's configuration is touched: masks come from the registered mask function of the implementation in
use, and a layer whose attention is to be read gets a copy of its configuration for one call.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, causal_mask_function
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from atp_eval.engine.layout import Layout
from atp_eval.engine.packed import Packing


class Attention(NamedTuple):
    """Post-RoPE query [rows, H, L, d] (or its last rows) and key [rows, G, L, d] of one layer, and the scaling of their
    product."""

    query: Tensor
    key: Tensor
    scaling: float


_NAME = "atp_eval_once"


class _Once(NamedTuple):
    """What the next call of an attention module is to do otherwise, and the module's own configuration."""

    config: PreTrainedConfig
    reader: Callable[[Attention], None] | None
    packing: Packing | None


_coming: WeakKeyDictionary[nn.Module, _Once] = WeakKeyDictionary()


def attend_once(module: Any, reader: Callable[[Attention], None] | None = None, packing: Packing | None = None) -> None:
    """The next call of this attention module gives `reader` its queries and keys, one row a prompt, and attends within
    the spans of `packing`; it is the model's own attention else."""
    _coming[module] = _Once(module.config, reader, packing)
    module.config = copy.copy(module.config)
    module.config._attn_implementation = _NAME


def forget(module: Any) -> None:
    """Undo `attend_once` where the call never came."""
    if module in _coming:
        module.config = _coming.pop(module).config


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any) -> Any:
    """An attention function of transformers: tell the reader, then do what the model would have done."""
    module.config, reader, packing = _coming.pop(module)
    if reader is not None:
        rows = (query, key) if packing is None else (packing.heads(query), packing.heads(key))
        reader(Attention(*rows, kwargs["scaling"]))
    attend = own_attention(module)
    if packing is None:
        return attend(module, query, key, value, mask, **kwargs)
    if module.config._attn_implementation == "flash_attention_2":
        key, value = key[:, :, packing.seen], value[:, :, packing.seen]
        return attend(module, query, key, value, None, **kwargs, **packing.varlen)
    return _by_spans(attend, module, packing, query, key, value, **kwargs), None


def own_attention(module: Any) -> Callable[..., Any]:
    """The attention function that a module's configuration names."""
    eager = importlib.import_module(type(module).__module__).eager_attention_forward
    attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(module.config._attn_implementation, eager)
    return attend


def _by_spans(
    attend: Callable[..., Any], module: Any, packing: Packing, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any
) -> Tensor:
    """[1, T, H, d]: each span on its own, behind the one that it goes on from."""
    found = []
    for span in packing.spans:
        own, before = slice(span.start, span.stop), slice(*span.goes_on_from)
        seen = [x[:, :, own] for x in (key, value)]
        if span.seen_before:
            seen = [torch.cat([x[:, :, before], y], dim=2) for x, y in zip((key, value), seen, strict=True)]
        size = span.stop - span.start, span.seen_before
        if size not in packing.masks:
            packing.masks[size] = _make_mask(module.config, 1, *size, None, query)
        found.append(attend(module, query[:, :, own], *seen, packing.masks[size], **kwargs)[0])
    return torch.cat(found, dim=1)


AttentionInterface.register(_NAME, _attend)


def coming_attention(layer: Any, hidden: Tensor, rotary: tuple[Tensor, ...]) -> Attention:
    """The last row's query and all keys of a decoder layer that is about to be entered with `hidden` [rows, L, D].

    The layer's own norm, projections and rotary embedding, on its own input; the layer makes them again when it runs.
    """
    return last_query_and_keys(layer.self_attn, layer.input_layernorm(hidden), rotary)


def last_of_row(x: Tensor) -> Tensor:
    """[B, L, ...] -> [B, 1, ...]."""
    return x[:, -1:]


def last_query_and_keys(
    attention: Any, normed: Tensor, rotary: tuple[Tensor, ...], last: Callable[[Tensor], Tensor] = last_of_row
) -> Attention:
    """What an attention module makes of `normed` [rows, L, D], its input: the last row's query, and all keys.

    last: [rows, L, ...] -> [rows, 1, ...], where the last rows are elsewhere.
    """
    apply_rotary = importlib.import_module(type(attention).__module__).apply_rotary_pos_emb

    def heads(projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

    key, _ = apply_rotary(*[heads(attention.k_proj(normed))] * 2, *rotary)
    query, _ = apply_rotary(*[heads(attention.q_proj(last(normed)))] * 2, *[last(table) for table in rotary])
    return Attention(query, key, attention.scaling)


def layer_mask(config: PreTrainedConfig, layout: Layout, queries: int, past: int, like: Tensor) -> Any:
    """The mask that the model's own attention implementation wants for a pruned layer, or None where it wants none.

    layout: of the prompt in this layer, padding of pruned rows included; `past` keys are in the layer's cache and
    `queries` tokens come now. Whether rows are padded is known on the host, so nothing waits for the device.
    """
    batch, total, valid = layout.valid.shape[0], past + queries, None
    if layout.padded:
        valid = torch.cat([layout.valid, layout.valid.new_ones(batch, total - layout.valid.shape[1])], dim=1)
    return _make_mask(config, batch, queries, past, valid, like)


def _make_mask(
    config: PreTrainedConfig, batch: int, queries: int, past: int, valid: Tensor | None, like: Tensor
) -> Any:
    return ALL_MASK_ATTENTION_FUNCTIONS[config._attn_implementation](
        batch_size=batch,
        q_length=queries,
        kv_length=past + queries,
        q_offset=past,
        mask_function=causal_mask_function,
        attention_mask=valid,
        allow_is_causal_skip=valid is None,
        dtype=like.dtype,
        device=like.device,
        config=config,
    )
