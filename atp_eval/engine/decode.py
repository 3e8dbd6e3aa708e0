"""Greedy decoding without the weight of transformers' `generate`: one loop, one short way through the layers.

After the prompt was read (by the model itself, hooks and all) a new token takes the model's own modules and attention
function in the model's own order, so that it gets the same bits; what is left out is preparation that is the same at
every step. Masks are made once a prompt, and keys are written into the room of a `GrowingCache`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

from atp_eval.engine.attention import layer_mask
from atp_eval.engine.cache import GrowingCache, GrowingLayer
from atp_eval.engine.greedy import Greedy, Rows
from atp_eval.engine.layout import Layout
from atp_eval.engine.linear import fast_linears, runs_other_code
from atp_eval.engine.prune import pruning_of

LAYERS = (LlamaDecoderLayer, MistralDecoderLayer, Qwen2DecoderLayer)
"""Those whose forward is what `Way` writes out, where no window limits the attention."""
ATTENTIONS = ("sdpa", "eager", "flash_attention_2")
"""Those whose mask for one more token is the last mask and one more column like its last."""
GPU_LOOKS_EVERY = 4
"""Steps between looks at whether all rows have ended: each look waits for the device, and asks the criteria."""


class Prompt(NamedTuple):
    """layout: how it lies in the cache of a layer; position: [B, 1], of the first new token there."""

    layout: Layout
    position: Tensor


class Steps(Protocol):
    """What takes prompts that were read further, token by token."""

    def step(self, tokens: Tensor) -> Tensor:
        """Logits [B, vocabulary] behind tokens [B]."""


def decodable(model: Any) -> bool:
    """Whether `greedy` knows this model: its decoder is a stock one, in one place, and attends to all that is there."""
    text = model.model.language_model
    layers = [*text.layers]
    return (
        not model.training
        and text.config._attn_implementation in ATTENTIONS
        and all(type(layer) in LAYERS for layer in layers)
        # the engine's own code is around whole layers
        and not any(runs_other_code(module) for layer in layers for module in [*layer.modules()][1:])
        and len({parameter.device for parameter in model.parameters()}) == 1
        and all(type(layer) is GrowingLayer for layer in GrowingCache(model.config, 1).layers)
    )


@torch.inference_mode()
def greedy(
    model: LlavaForConditionalGeneration,
    input_ids: Tensor,
    attention_mask: Tensor,
    plan: Greedy,
    look_every: int | None = None,
    new_decoder: Callable[[Any, Cache, Sequence[Prompt], int], Steps] | None = None,
    **inputs: Any,
) -> Tensor:
    """[B, L + new] token ids: the prompts [B, L] and what the model says to them, as `generate` gives them.

    inputs: what else the model takes with the prompts (`pixel_values`). look_every: steps between looks at whether all
    rows have ended; the answer is the same. new_decoder: makes what takes the steps, called like Decoder, the default.
    Only for a model that is `decodable`.
    """
    steps = look_every or (1 if input_ids.device.type == "cpu" else GPU_LOOKS_EVERY)
    rows, cache = Rows(input_ids, plan), GrowingCache(model.config, plan.new_tokens)
    tokens = rows.add(_read(model, cache, input_ids, attention_mask, **inputs))
    decoder: Steps | None = None
    with ExitStack() as stack:
        for step in range(1, plan.new_tokens):
            if rows.can_end and step % steps == 0 and rows.ended():
                break
            if decoder is None:
                stack.enter_context(fast_linears(model, len(input_ids)))
                decoder = (new_decoder or Decoder)(model, cache, prompts_of(model, attention_mask), plan.new_tokens)
            tokens = rows.add(decoder.step(tokens))
    return rows.ids()


def _read(model: Any, cache: Cache, input_ids: Tensor, attention_mask: Tensor, **inputs: Any) -> Tensor:
    """Let the model read its prompts, called as `generate` would; logits [B, vocabulary] of what comes next."""
    out = model(
        input_ids=input_ids,
        attention_mask=None if bool(attention_mask.all()) else attention_mask,
        position_ids=(attention_mask.long().cumsum(-1) - 1).masked_fill(attention_mask == 0, 0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        **inputs,
    )
    logits: Tensor = out.logits[:, -1]
    return logits


def prompts_of(model: nn.Module, attention_mask: Tensor) -> list[Prompt]:
    """How the prompts that the model just read lie in the cache of each layer, pruned or not."""
    if (pruned := pruning_of(model)) is not None:
        return [Prompt(*prompt) for prompt in pruned.after_prompt()]
    valid = attention_mask.bool()
    layout = Layout(valid, torch.zeros_like(attention_mask), valid.sum(1).tolist(), 0)
    layers: Any = model.model.language_model.layers  # type: ignore[union-attr]
    return [Prompt(layout, layout.places[:, -1:] + 1)] * len(layers)


class Way:
    """The way of one token through a decoder layer: the forward of one of LAYERS, with nothing left to look up."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        code: Any = importlib.import_module(type(layer.self_attn).__module__)
        implementation = layer.self_attn.config._attn_implementation
        self._rotate = code.apply_rotary_pos_emb
        self._attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, code.eager_attention_forward)

    @property
    def index(self) -> int:
        """Of the layer."""
        index: int = self.layer.self_attn.layer_idx
        return index

    def through(self, hidden: Tensor, rotary: tuple[Tensor, ...], mask: Tensor | None, cache: Any) -> Tensor:
        """[B, 1, D] -> [B, 1, D]; writes to the cache."""
        layer, module = self.layer, self.layer.self_attn
        normed = layer.input_layernorm(hidden)
        shape = (len(hidden), 1, -1, module.head_dim)
        query = module.q_proj(normed).view(shape).transpose(1, 2)
        key = module.k_proj(normed).view(shape).transpose(1, 2)
        value = module.v_proj(normed).view(shape).transpose(1, 2)
        query, key = self._rotate(query, key, *rotary)
        key, value = cache.layers[self.index].update(key, value)
        attended, _ = self._attend(module, query, key, value, mask, dropout=0.0, scaling=module.scaling)
        hidden = hidden + module.o_proj(attended.flatten(2))
        done: Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return done


class Stage:
    """Layers in whose caches the prompts lie alike."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        self.ways: list[Way] = []
        self._mask: Tensor | None = None

    def mask(self, config: PreTrainedConfig, cache: Cache, like: Tensor, room: int) -> Tensor | None:
        """For one query; made once, with columns for `room` tokens that later ones may all look at."""
        if not self.prompt.layout.padded:
            return None
        length = cache.get_seq_length(self.ways[0].index)
        if self._mask is None:
            first = layer_mask(config, self.prompt.layout, 1, length, like)
            self._mask = torch.cat([first, first[..., -1:].expand(*first.shape[:-1], room)], dim=-1)
        return self._mask[..., : length + 1]


def stages_of(model: Any, prompts: Sequence[Prompt]) -> list[Stage]:
    """All layers of the model, by how the prompts lie in their caches."""
    stages: list[Stage] = []
    for layer, prompt in zip(model.model.language_model.layers, prompts, strict=True):
        if not stages or stages[-1].prompt.layout is not prompt.layout:
            stages.append(Stage(prompt))
        stages[-1].ways.append(Way(layer))
    return stages


class Decoder:
    """The way of one new token a row through a model that has read its prompts.

    room: the most tokens that will come.
    """

    def __init__(self, model: Any, cache: Cache, prompts: Sequence[Prompt], room: int) -> None:
        self.model, self.cache, self.room, self.taken = model, cache, room, 0
        self.text = model.model.language_model
        self.stages = stages_of(model, prompts)

    def step(self, tokens: Tensor) -> Tensor:
        """Logits [B, vocabulary] behind tokens [B], which are written to the cache."""
        hidden = self.text.embed_tokens(tokens[:, None])
        tables: dict[int, tuple[Tensor, ...]] = {}
        for stage in self.stages:
            position = stage.prompt.position
            if id(position) not in tables:  # past the engine's hook, which has had its say in the position
                tables[id(position)] = self.text.rotary_emb.forward(hidden, position_ids=position + self.taken)
            mask = stage.mask(self.text.config, self.cache, hidden, self.room)
            for way in stage.ways:
                hidden = way.through(hidden, tables[id(position)], mask, self.cache)
        self.taken += 1
        logits: Tensor = self.model.lm_head(self.text.norm(hidden))
        return logits[:, -1]
