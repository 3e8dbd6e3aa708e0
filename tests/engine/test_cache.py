"""The growing cache against transformers' own: the same bits, for every decoder that LLaVA is built on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from atp_eval.engine import prune
from atp_eval.engine.cache import MOST_ROOM, GrowingCache, GrowingLayer
from atp_eval.errors import UserError
from engine.proofs import MODES, PRUNING, mixed
from engine.small import Batch, make_batch, small_llava

FAMILIES: dict[str, Any] = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}


def family(kind: str, **settings: Any) -> Any:
    """A small random LLaVA in fp32 around one of three decoders."""
    like: Any = small_llava().config
    sizes = like.text_config.to_dict()
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "initializer_range", "max_position_embeddings", "pad_token_id", "bos_token_id",
             "eos_token_id")  # fmt: skip
    text = FAMILIES[kind](**{name: sizes[name] for name in names} | {"sliding_window": None} | settings)
    torch.manual_seed(3)
    config = LlavaConfig(
        vision_config=like.vision_config, text_config=text, image_token_index=190, vision_feature_layer=-2
    )
    model = LlavaForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = None
    for name, parameter in model.named_parameters():
        if name.endswith("_proj.bias"):  # Qwen2's, which start at zero
            torch.nn.init.normal_(parameter)
    return model


def in_fp32(batch: Batch) -> Batch:
    assert batch.pixels is not None
    return batch._replace(pixels=batch.pixels.float())


def both(model: Any, batch: Batch, **mode: Any) -> list[Tensor]:
    """Tokens, and for each step logits, with transformers' cache and with ours (room for 3 tokens of 9)."""
    found = []
    for cache in (None, GrowingCache(model.config, 3)):
        torch.manual_seed(5)
        out = model.generate(
            **batch.inputs(), max_new_tokens=9, past_key_values=cache, return_dict_in_generate=True,
            output_logits=True, **{"do_sample": False, **mode},
        )  # fmt: skip
        found += [out.sequences, torch.stack(out.logits)]
        assert cache is None or out.past_key_values is cache
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", FAMILIES)
def test_answers_are_the_same_bits(kind: str, mode: str) -> None:
    tokens, logits, own_tokens, own_logits = both(family(kind), in_fp32(mixed()), **MODES[mode])
    assert torch.equal(tokens, own_tokens)
    assert torch.equal(logits, own_logits)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spec", [*PRUNING, "random:layer=2,keep=9,positions=contiguous"])
def test_pruned_answers_are_the_same_bits(spec: str, mode: str) -> None:
    model, batch = family("llama"), in_fp32(mixed())
    with prune(model, spec, sample_ids=range(4)):
        tokens, logits, own_tokens, own_logits = both(model, batch, **MODES[mode])
    assert torch.equal(tokens, own_tokens)
    assert torch.equal(logits, own_logits)


def test_layers_of_unequal_length_are_written_in_place() -> None:
    model, batch = family("llama"), in_fp32(make_batch((5, 9)))
    cache: Any = GrowingCache(model.config, 8)
    with torch.no_grad(), prune(model, PRUNING[1]):
        token = model(**batch.inputs(), past_key_values=cache).logits[:, -1:].argmax(-1)
        lengths = [50, 34, 34, 21, 21]
        assert [cache.get_seq_length(i) for i in range(5)] == lengths
        assert [layer.capacity for layer in cache.layers] == [n + 8 for n in lengths]
        places = [layer.keys.data_ptr() for layer in cache.layers]
        for _ in range(8):
            token = model(input_ids=token, past_key_values=cache).logits[:, -1:].argmax(-1)
        assert [layer.keys.data_ptr() for layer in cache.layers] == places
        assert [layer.keys.shape[2] for layer in cache.layers] == [n + 8 for n in lengths]
        model(input_ids=token, past_key_values=cache)
    assert [layer.capacity for layer in cache.layers] == [2 * (n + 8) for n in lengths]


def filled(layer: DynamicLayer, steps: list[tuple[str, int]], seed: int) -> DynamicLayer:
    """A cache layer after a prompt of 4 tokens for 3 rows and these steps."""
    generator = torch.Generator().manual_seed(seed)
    rows = 3

    def add(count: int) -> None:
        # values are narrower than keys, as some decoders have them
        key = torch.randn(rows, 2, count, 4, generator=generator)
        value = torch.randn(rows, 2, count, 3, generator=generator)
        found = layer.update(key, value)
        assert torch.equal(found[0], layer.keys) and torch.equal(found[0][:, :, -count:], key)  # type: ignore[arg-type]
        assert torch.equal(found[1], layer.values) and torch.equal(found[1][:, :, -count:], value)  # type: ignore[arg-type]

    add(4)
    for what, count in steps:
        if what == "add":
            add(count)
        elif what == "crop":
            layer.crop(-min(count, layer.get_seq_length() - 1))
        elif what == "repeat":
            layer.batch_repeat_interleave(count)
            rows *= count
        else:
            chosen = torch.randint(0, rows, (rows,), generator=generator)
            (layer.reorder_cache if what == "reorder" else layer.batch_select_indices)(chosen)
    return layer


@settings(max_examples=40, deadline=None)
@given(
    room=st.integers(0, 6),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 7)),
            st.tuples(st.sampled_from(["crop", "reorder", "select"]), st.integers(1, 3)),
            st.tuples(st.just("repeat"), st.integers(1, 2)),
        ),
        max_size=7,
    ),
    seed=st.integers(0, 99),
)
def test_a_layer_does_what_transformers_own_does(room: int, steps: list[tuple[str, int]], seed: int) -> None:
    own, plain = filled(GrowingLayer(room), steps, seed), filled(DynamicLayer(), steps, seed)
    assert own.get_seq_length() == plain.get_seq_length()
    assert own.get_mask_sizes(2) == plain.get_mask_sizes(2)
    assert torch.equal(own.keys, plain.keys)  # type: ignore[arg-type]
    assert torch.equal(own.values, plain.values)  # type: ignore[arg-type]


def test_a_layer_that_was_reset_starts_anew() -> None:
    layer = GrowingLayer(2)
    assert (layer.capacity, layer.get_seq_length()) == (0, 0)
    first = torch.randn(1, 1, 3, 2)
    layer.update(first, first)
    layer.reset()
    assert (layer.capacity, layer.get_seq_length(), layer.keys) == (0, 0, None)
    keys, _ = layer.update(first[:, :, :1], first[:, :, :1])
    assert keys.shape[2] == 1 and layer.capacity == 3


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        (LlamaConfig(num_hidden_layers=2), [GrowingLayer, GrowingLayer]),
        (MistralConfig(num_hidden_layers=1, sliding_window=8), [DynamicSlidingWindowLayer]),
        (Qwen2Config(num_hidden_layers=2, use_sliding_window=True, max_window_layers=1),
         [GrowingLayer, DynamicSlidingWindowLayer]),
    ],
)  # fmt: skip
def test_layers_with_a_window_stay_transformers_own(config: PreTrainedConfig, kinds: list[type]) -> None:
    assert [type(layer) for layer in GrowingCache(config, 4).layers] == kinds
    assert [layer.room for layer in GrowingCache(config, 10**6).layers if type(layer) is GrowingLayer] == [
        MOST_ROOM for kind in kinds if kind is GrowingLayer
    ]


def test_a_window_works_beside_growing_layers() -> None:
    model = family("qwen2", use_sliding_window=True, max_window_layers=2, sliding_window=16)
    tokens, logits, own_tokens, own_logits = both(model, in_fp32(mixed()))
    assert torch.equal(tokens, own_tokens)
    assert torch.equal(logits, own_logits)


def test_gradients_and_lengths_are_refused() -> None:
    layer = GrowingLayer(2)
    key = torch.randn(1, 1, 3, 2, requires_grad=True)
    with pytest.raises(UserError, match="no_grad"):
        layer.update(key, key)
    with torch.no_grad():
        layer.update(key, key)
    with pytest.raises(UserError, match=r"crop\(2\): give the tokens to remove as a negative number"):
        layer.crop(2)
