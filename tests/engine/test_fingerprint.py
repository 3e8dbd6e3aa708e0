"""Which weights a method was trained with: recognised in every precision, swapped in and taken out again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlavaForConditionalGeneration

from atp_eval.engine.fingerprint import fingerprint, swapped
from atp_eval.errors import UserError
from engine.small import answer, make_batch, small_llava

HALF = (torch.float16, torch.bfloat16)


@pytest.fixture(scope="module")
def model() -> Any:
    return small_llava(dtype=torch.float32)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("stored", HALF)
def test_a_checkpoint_has_one_fingerprint_in_every_precision(model: Any, stored: torch.dtype, tmp_path: Path) -> None:
    """Also with values below the normal numbers of fp16."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            layer.mlp.up_proj.weight.mul_(1e-4)
    model.to(stored).save_pretrained(tmp_path)
    found = {
        fingerprint(LlavaForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype))
        for dtype in (torch.float64, torch.float32, *HALF)
    }
    assert len(found) == 1
    assert len(found.pop()) == 12


def test_an_fp32_checkpoint_has_one_fingerprint_in_fp32_and_bf16(model: Any) -> None:
    assert fingerprint(model) == fingerprint(copy.deepcopy(model).double())
    assert fingerprint(model) == fingerprint(copy.deepcopy(model).to(torch.bfloat16))


@pytest.mark.parametrize("part", [
    "model.language_model.embed_tokens.weight",
    "model.language_model.layers.4.self_attn.k_proj.weight",
    "model.language_model.norm.weight",
    "model.multi_modal_projector.linear_1.bias",
])  # fmt: skip
def test_another_value_in_any_part_is_another_model(part: str) -> None:
    """Also where the fingerprint was taken before the change, and the same one again where it was taken back."""
    model = small_llava()
    before, parameter = fingerprint(model), model.get_parameter(part)
    assert fingerprint(small_llava()) == before
    kept = parameter.detach().clone()
    with torch.no_grad():
        parameter.flatten()[0] += 0.1
    assert fingerprint(model) != before
    parameter.data = kept
    assert fingerprint(model) == before


def test_other_weights_and_other_shapes_are_other_models() -> None:
    models = small_llava(), small_llava(seed=3), small_llava(layers=4), small_llava(kv_heads=1)
    assert len({fingerprint(model) for model in models}) == 4


def test_the_vision_tower_and_the_output_layer_do_not_count() -> None:
    """The same language model and projector with another head answer differently, but score tokens the same."""
    model = small_llava()
    before = fingerprint(model)
    with torch.no_grad():
        model.lm_head.weight.add_(1)
        next(model.model.vision_tower.parameters()).add_(1)
    assert fingerprint(model) == before


@pytest.mark.parametrize("fails", [False, True])
def test_swapped_weights_are_there_inside_and_gone_afterwards(fails: bool) -> None:
    model, batch = small_llava(), make_batch((5, 9), 7)
    before, plain = weights(model), answer(model, batch).logits
    places = {name: p.data_ptr() for name, p in model.named_parameters()}
    other = {
        k: v for k, v in weights(small_llava(seed=3)).items() if ".language_model." in k or k.startswith("lm_head")
    }
    try:
        with swapped(model, other):
            inside = answer(model, batch).logits
            assert all(torch.equal(model.get_parameter(name), value) for name, value in other.items())
            if fails:
                raise RuntimeError("inside")
    except RuntimeError as error:
        assert fails and str(error) == "inside"
    assert not torch.equal(inside, plain)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == places
    assert torch.equal(answer(model, batch).logits, plain)


def test_swapped_weights_are_converted_once_and_not_copied_after_that() -> None:
    model, name = small_llava(), "model.language_model.norm.weight"
    given = {name: torch.full((32,), 2.0)}
    for _ in range(2):
        with swapped(model, given):
            inside = model.get_parameter(name)
            assert inside.dtype == torch.float64 and (inside == 2).all() and inside.requires_grad
            assert inside.data_ptr() == given[name].data_ptr()


@pytest.mark.parametrize(("name", "shape"), [
    ("model.language_model.layers.9.mlp.up_proj.weight", (64, 32)),
    ("model.language_model.norm.weight", (31,)),
    ("norm.weight", (32,)),
])  # fmt: skip
def test_weights_that_do_not_fit_are_refused_by_name_and_change_nothing(name: str, shape: tuple[int, ...]) -> None:
    model = small_llava()
    before = weights(model)
    given = {"model.language_model.layers.0.mlp.up_proj.weight": torch.zeros(64, 32), name: torch.zeros(shape)}
    with pytest.raises(UserError, match=f"language model does not fit this model: {name}$"), swapped(model, given):
        pass
    assert all(torch.equal(p, before[key]) for key, p in model.named_parameters())
