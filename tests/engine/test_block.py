"""The `with` block: nothing is left behind, one method at a time, clear errors, later turns."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import StaticCache

from atp_eval.engine import prune
from atp_eval.engine.attention import _coming
from atp_eval.engine.prefill import Prefill
from atp_eval.errors import UserError
from engine.proofs import PRUNING, mixed
from engine.small import Batch, answer, make_batch, small_llava, step_by_step


@pytest.fixture(scope="module")
def model() -> Any:
    return small_llava()


def attached(model: nn.Module) -> dict[str, Any]:
    """Everything that a block could leave on a model."""
    state: dict[str, Any] = {"readers": len(_coming)}
    for name, module in model.named_modules():
        state[name] = (set(vars(module)), len(module._forward_pre_hooks), len(module._forward_hooks))
        if hasattr(module, "config"):
            state[name + ".config"] = (id(module.config), module.config._attn_implementation)
    return state


class Broken(RuntimeError):
    pass


def breaking(*args: Any, **kwargs: Any) -> Any:
    raise Broken


@pytest.mark.parametrize("where", ["decision", "attention", "layer", "sampling", "body"])
@pytest.mark.parametrize("spec", [PRUNING[0], PRUNING[2], PRUNING[6]])
def test_nothing_is_left_after_an_exception(model: Any, spec: str, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = mixed()
    plain = answer(model, batch)  # first: transformers leaves hooks of its own when a model is first used
    before = attached(model)
    with pytest.raises(Broken), prune(model, spec), monkeypatch.context() as patch:
        if where == "decision":
            patch.setattr(Prefill, "_ask", breaking)
        elif where == "attention":  # after the engine has asked for queries and keys, before they come
            for layer in model.model.language_model.layers:
                patch.setattr(layer.self_attn.q_proj, "forward", breaking)
        elif where == "layer":
            patch.setattr(model.model.language_model.layers[4].mlp, "forward", breaking)
        elif where == "sampling":
            answer(model, batch, logits_processor=[breaking])
        else:
            raise Broken
        answer(model, batch)
    assert attached(model) == before
    assert torch.equal(answer(model, batch).logits, plain.logits)
    with prune(model, spec):  # and it can be pruned again
        answer(model, batch)
    assert attached(model) == before


def test_the_model_configuration_is_never_touched(model: Any) -> None:
    before = copy.deepcopy(model.config.to_dict())
    with prune(model, PRUNING[1]):
        answer(model, mixed())
        assert model.config.to_dict() == before
        assert model.config._attn_implementation == "sdpa"


def test_a_second_block_on_the_model_is_refused(model: Any) -> None:
    with prune(model, "upper_bound"):
        with pytest.raises(UserError, match="being pruned already"), prune(model, PRUNING[0]):
            pass
        answer(model, mixed())
    with prune(model, PRUNING[0]), prune(small_llava(seed=3), PRUNING[1]):  # another model may be pruned meanwhile
        pass


def test_methods_that_do_not_fit_the_model_are_refused_before_anything_is_attached(model: Any) -> None:
    before = attached(model)
    with pytest.raises(UserError, match="layer=5 is not in this model"), prune(model, "fastv:layer=5,keep=3"):
        pass
    assert attached(model) == before


def test_errors_name_what_is_wrong(model: Any) -> None:
    batch = make_batch((5, 9), (3, 4))
    embeds = model.get_input_embeddings()(batch.ids)
    static = StaticCache(model.config.text_config, max_cache_len=64)
    with prune(model, PRUNING[0]) as pruned:
        with pytest.raises(UserError, match="nothing was read yet"):
            _ = pruned.traces
        with pytest.raises(UserError, match="the default cache, not a static one"):
            model(**batch.inputs(), past_key_values=static)
        with pytest.raises(UserError, match="input_ids, not inputs_embeds"):
            model(inputs_embeds=embeds)
        with pytest.raises(UserError, match="pruning needs the cache"):
            answer(model, batch, use_cache=False)
        with pytest.raises(UserError, match="3 sample_ids for a batch of 2 samples"):
            pruned.sample_ids = [1, 2, 3]
            answer(model, batch)
        pruned.sample_ids = None
        answer(model, batch)
        with pytest.raises(UserError, match="the last batch had 2 samples"):
            _ = pruned.trace


def test_the_cache_of_an_earlier_batch_is_refused(model: Any) -> None:
    batch = make_batch((5, 9))
    with prune(model, PRUNING[0]), torch.no_grad():
        first = model(**batch.inputs(), use_cache=True).past_key_values
        model(**batch.inputs(), use_cache=True)
        with pytest.raises(UserError, match="not of the last prompt batch"):
            model(input_ids=batch.ids[:, -1:], past_key_values=first)


@pytest.mark.parametrize("spec", PRUNING)
def test_a_loop_without_positions_equals_generate(model: Any, spec: str) -> None:
    """transformers counts positions by the cache of layer 0, which is short when that layer is pruned."""
    batch = make_batch((5, 9))
    with prune(model, spec, sample_ids=["a"]):
        torch.testing.assert_close(step_by_step(model, batch).float(), answer(model, batch).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("spec", PRUNING)
def test_a_second_turn_goes_on_from_the_pruned_prompt(model: Any, spec: str) -> None:
    """Also where `generate` would feed the prompt's end again because layer 0 holds fewer tokens than the prompt."""
    batch = make_batch((5, 9))
    with prune(model, spec, sample_ids=["a"]) as pruned:
        whole = answer(model, batch, steps=6)
        first = answer(model, batch, steps=3)
        trace = pruned.trace.to_json()
        ids = torch.cat([batch.ids, first.tokens], 1)
        turn = Batch(ids, torch.ones_like(ids), None, [ids[0]], [None])
        then = answer(model, turn, steps=3, past_key_values=first.cache)
        assert pruned.trace.to_json() == trace
    assert torch.equal(torch.cat([first.tokens, then.tokens], 1), whole.tokens)
    torch.testing.assert_close(then.logits, whole.logits[:, 3:], rtol=0, atol=1e-6)


def test_an_image_in_a_later_turn_is_refused(model: Any) -> None:
    batch = make_batch((5, 9))
    with prune(model, PRUNING[0]), torch.no_grad():
        cache = model(**batch.inputs(), use_cache=True).past_key_values
        with pytest.raises(UserError, match="an image in a later turn"):
            model(**batch.inputs() | {"attention_mask": torch.ones(1, 100)}, past_key_values=cache)


def test_random_tokens_are_drawn_for_the_sample_not_the_batch(model: Any) -> None:
    batch, spec = make_batch((5, 9), (5, 9), 7), "random:layer=1,keep=9"
    with prune(model, spec, sample_ids=["a", "b", "c"]) as pruned:
        answer(model, batch)
        a, b, text = pruned.traces
        pruned.sample_ids = ["b"]
        answer(model, batch.single(0))
        assert pruned.trace.to_json() == b.to_json() != a.to_json()
        assert text.grid == (0, 0)
    with prune(model, spec) as pruned:  # without names: by the prompt's tokens
        answer(model, batch)
        together = [trace.to_json() for trace in pruned.traces]
        answer(model, batch.single(1))
        assert pruned.trace.to_json() == together[1] != together[0]
