"""No work for dead rows: what leaves behind a layer's attention, and that nothing else changes by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from methods.matrix import MATRIX
from transformers import LlavaConfig, LlavaForConditionalGeneration, MistralConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from atp_eval.engine import early, prune
from atp_eval.methods import get_method
from engine import proofs
from engine.mixer import Mixer
from engine.proofs import PRUNING, mixed, rows_of_work
from engine.small import answer, make_batch, small_llava
from engine.test_flash import flash

SPECS = [spec for row in MATRIX for spec in row.pruning]


@pytest.mark.parametrize("spec", [*SPECS, "upper_bound"])
def test_every_method_answers_as_if_all_rows_went_through(model: Any, spec: str, adapters: Path) -> None:
    proofs.without_dead_rows(prune, model, spec.format(adapters=adapters), mixed())


@pytest.mark.parametrize("spec", [PRUNING[1], PRUNING[2], "random:layer=2,keep=9,positions=contiguous", Mixer()])
@pytest.mark.parametrize("beams", [2, 3])
def test_with_beams(model: Any, spec: Any, beams: int) -> None:
    proofs.without_dead_rows(prune, model, spec, mixed(), num_beams=beams)


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flash_attention_2"])
@pytest.mark.parametrize("spec", PRUNING)
def test_with_every_attention(spec: str, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", flash)
    model, batch = small_llava(dtype=torch.float32), mixed()
    model.model.language_model.config._attn_implementation = attention
    assert batch.pixels is not None
    proofs.without_dead_rows(prune, model, spec, batch._replace(pixels=batch.pixels.float()))


@pytest.mark.parametrize("spec", [PRUNING[0], PRUNING[2]])
def test_a_mistral_drops_rows_too(spec: str) -> None:
    """But its last layer runs as it is: its attention may look no farther than a window."""
    like = small_llava().config
    given = like.text_config.to_dict()
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    text = MistralConfig(num_key_value_heads=2, initializer_range=0.2, **{name: given[name] for name in names})
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=like.vision_config, text_config=text, image_token_index=190, vision_feature_layer=-2
    )
    model: Any = LlavaForConditionalGeneration(config).eval().double()
    method = get_method(spec)
    batch, found = mixed(), []
    with torch.no_grad():
        for layers in (early.LAYERS, ()):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(early, "LAYERS", layers)
                with prune(model, method) as pruned, rows_of_work(model) as rows:
                    logits = model(**batch.inputs(), logits_to_keep=1).logits
                found.append((logits, [trace.to_json() for trace in pruned.traces], rows))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-12)
    assert found[0][1] == found[1][1]
    assert sum(n for n, _ in found[0][2]) < sum(n for n, _ in found[1][2])
    assert found[0][2][-1] == found[1][2][-1]


@pytest.mark.parametrize("asked", ["output_hidden_states", "output_attentions"])
def test_a_caller_who_asks_for_everything_gets_everything(asked: str) -> None:
    model, batch = small_llava(attention="eager", dtype=torch.float32), make_batch((5, 9), dtype=torch.float32)
    with prune(model, "fastv:layer=2,keep=9"), rows_of_work(model) as rows, torch.no_grad():
        out = model(**batch.inputs(), logits_to_keep=1, **{asked: True})
    assert [n for n, _ in rows] == [50, 50, 23, 23, 23]
    shapes = [x.shape[-2] for x in (out.hidden_states if asked == "output_hidden_states" else out.attentions)]
    assert shapes == ([50, 50, 50, 23, 23, 23] if asked == "output_hidden_states" else [50, 50, 23, 23, 23])


def test_all_rows_are_there_for_a_caller_who_asks_for_all_logits(model: Any) -> None:
    batch = make_batch((5, 9))
    with prune(model, "fastv:layer=2,keep=9"), torch.no_grad():
        answer(model, batch, steps=2)  # the last call before asked for one
        assert model(**batch.inputs()).logits.shape[1] == 23
        assert model(**batch.inputs(), logits_to_keep=3).logits.shape[1] == 3
        assert model(**batch.inputs(), logits_to_keep=1).logits.shape[1] == 1
        assert model.model(**batch.inputs()).last_hidden_state.shape[1] == 23


def test_a_layer_with_other_code_around_it_runs_as_it_is() -> None:
    """As accelerate puts it around the modules whose weights it moves."""
    model, batch = small_llava(), make_batch((5, 9))
    layer = model.model.language_model.layers[1]
    layer.mlp.forward = layer.mlp.forward
    with prune(model, "fastv:layer=2,keep=9"), rows_of_work(model) as rows, torch.no_grad():
        model(**batch.inputs(), logits_to_keep=1)
    assert [n for n, _ in rows] == [50, 50, 23, 23, 1]


@pytest.mark.parametrize("spec", ["dart:layer=2,keep=17", "pyramiddrop:layers=1-2-4,keep=30-12-2", "sparsevlm"])
def test_a_method_that_is_early_without_right_fails(model: Any, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(get_method(spec)), "early", True)
    with pytest.raises(AssertionError, match="is `early`, but looks at"), prune(model, spec):
        answer(model, make_batch((5, 9)))
