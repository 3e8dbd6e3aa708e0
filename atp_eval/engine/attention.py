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


class Attention(NamedTuple):
    """Post-RoPE query [rows, H, L, d] (or its last rows) and key [rows, G, L, d] of one layer, and the scaling of their
    product."""

    query: Tensor
    key: Tensor
    scaling: float


_NAME = "atp_eval_read"
_readers: WeakKeyDictionary[nn.Module, tuple[PreTrainedConfig, Callable[[Attention], None]]] = WeakKeyDictionary()


def read_once(module: Any, reader: Callable[[Attention], None]) -> None:
    """Give `reader` the queries and keys of the next call of this attention module; the call itself is unchanged."""
    config = module.config
    _readers[module] = (config, reader)
    module.config = copy.copy(config)
    module.config._attn_implementation = _NAME


def forget(module: Any) -> None:
    """Undo `read_once` where the call never came."""
    if module in _readers:
        module.config = _readers.pop(module)[0]


def _read(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any) -> Any:
    """An attention function of transformers: tell the reader, then do what the model would have done."""
    module.config, reader = _readers.pop(module)
    reader(Attention(query, key, kwargs["scaling"]))
    eager = importlib.import_module(type(module).__module__).eager_attention_forward
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(module.config._attn_implementation, eager)
    return attend(module, query, key, value, mask, **kwargs)


AttentionInterface.register(_NAME, _read)


def coming_attention(layer: Any, hidden: Tensor, rotary: tuple[Tensor, ...]) -> Attention:
    """The last row's query and all keys of a decoder layer that is about to be entered with `hidden` [rows, L, D].

    The layer's own norm, projections and rotary embedding, on its own input; the layer makes them again when it runs.
    """
    return last_query_and_keys(layer.self_attn, layer.input_layernorm(hidden), rotary)


def last_query_and_keys(attention: Any, normed: Tensor, rotary: tuple[Tensor, ...]) -> Attention:
    """What an attention module makes of `normed` [rows, L, D], its input: the last row's query, and all keys."""
    apply_rotary = importlib.import_module(type(attention).__module__).apply_rotary_pos_emb

    def heads(projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

    key, _ = apply_rotary(*[heads(attention.k_proj(normed))] * 2, *rotary)
    last = [table[:, -1:] for table in rotary]
    query, _ = apply_rotary(*[heads(attention.q_proj(normed[:, -1:]))] * 2, *last)
    return Attention(query, key, attention.scaling)


def layer_mask(config: PreTrainedConfig, layout: Layout, queries: int, past: int, like: Tensor) -> Any:
    """The mask that the model's own attention implementation wants for a pruned layer, or None where it wants none.

    layout: of the prompt in this layer, padding of pruned rows included; `past` keys are in the layer's cache and
    `queries` tokens come now. Whether rows are padded is known on the host, so nothing waits for the device.
    """
    batch, total, valid = layout.valid.shape[0], past + queries, None
    if layout.padded:
        valid = torch.cat([layout.valid, layout.valid.new_ones(batch, total - layout.valid.shape[1])], dim=1)
    return ALL_MASK_ATTENTION_FUNCTIONS[config._attn_implementation](
        batch_size=batch,
        q_length=queries,
        kv_length=total,
        q_offset=past,
        mask_function=causal_mask_function,
        attention_mask=valid,
        allow_is_causal_skip=valid is None,
        dtype=like.dtype,
        device=like.device,
        config=config,
    )
