"""Decoder layers that do no work for rows whose output nobody reads; what they write to the cache is the same.

Two kinds of rows are dead behind the attention of a layer: tokens that do not survive into the next one, and in the
last layer of a prompt of which the next word alone is asked, all but the last. They leave before the output projection
and the feed-forward network, which are three quarters of a layer's work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer

from atp_eval.engine.attention import last_of_row, last_query_and_keys, own_attention
from atp_eval.engine.packed import Packing, take

LAYERS = (LlamaDecoderLayer, MistralDecoderLayer)
"""Those whose forward is `x += attention(norm(x)); x += mlp(norm(x))` and nothing else, as written out in `_finish`."""
LAST_LAYERS = (LlamaDecoderLayer,)
"""Those whose attention is moreover what `last_row` writes out: the others may look no farther than a window."""


def known(layer: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a layer is one of these and runs its own code: accelerate, which moves weights, puts its own around."""
    return type(layer) in kinds and not any("forward" in vars(module) for module in layer.modules())


def surviving_rows(layer: Any, hidden: Tensor, decide: Callable[[], Tensor], **kwargs: Any) -> Tensor:
    """[B, L, D] -> [B, L', D]: what `layer` makes of `hidden`, for the rows that go on.

    decide: asked once behind the attention; returns where those rows are (`packed.take`). The rest is what the layer's
    forward takes. The attention module runs as it is, on all rows.
    """
    chosen: list[Tensor] = []

    def leave(module: nn.Module, args: tuple[Tensor]) -> Tensor:
        chosen.append(decide())
        return take(args[0], chosen[0])

    handle = layer.self_attn.o_proj.register_forward_pre_hook(leave)
    try:
        attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden), **kwargs)
    finally:
        handle.remove()
    return _finish(layer, take(hidden, chosen[0]), attended)


def last_row(
    layer: Any,
    hidden: Tensor,
    mask: Any,
    packing: Packing | None,
    *,
    position_embeddings: tuple[Tensor, ...],
    past_key_values: Any,
    **kwargs: Any,
) -> Tensor:
    """[B, L, D] -> [B, 1, D]: what `layer` makes of the last row of `hidden`; keys and values are cached for all rows.

    mask: for one query a row. packing: of `hidden`, where it is packed. The rest is what the layer's forward takes.
    """
    module = layer.self_attn
    normed = layer.input_layernorm(hidden)
    last = last_of_row if packing is None else packing.last
    query, key, scaling = last_query_and_keys(module, normed, position_embeddings, last)
    value = module.v_proj(normed).unflatten(-1, (-1, module.head_dim)).transpose(1, 2)
    if packing is not None:
        key, value = packing.heads(key), packing.heads(value)
    if past_key_values is not None:
        key, value = past_key_values.update(key, value, module.layer_idx)
    attend = own_attention(module)
    attended, _ = attend(module, query, key, value, mask, dropout=0.0, scaling=scaling, **kwargs)
    return _finish(layer, last(hidden), module.o_proj(attended.flatten(2)))


def _finish(layer: Any, residual: Tensor, attended: Tensor) -> Tensor:
    """The rest of a decoder layer, behind the output projection of its attention."""
    hidden = residual + attended
    done: Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return done
