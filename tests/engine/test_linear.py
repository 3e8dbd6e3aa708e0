"""Prompts that were pruned take the product that is faster for few rows; whatever is the untouched model's does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from atp_eval.engine import linear, prune
from engine import proofs
from engine.proofs import PRUNING, mixed
from engine.small import answer, small_llava
from engine.test_decode import in_fp32


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows that went to oneDNN; every layer is large here."""
    monkeypatch.setattr(linear, "LARGE", 1)
    taken: list[int] = []
    own = linear._linear

    def watched(module: Any, wanted: range, x: Tensor) -> Tensor:
        found = x.numel() // module.in_features
        taken.extend([found] if found in wanted else [])
        return own(module, wanted, x)

    monkeypatch.setattr(linear, "_linear", watched)
    return taken


@pytest.mark.parametrize("spec", [*PRUNING[:3], "random:layer=0,keep=10"])
def test_what_was_pruned_is_the_same_up_to_rounding(
    spec: str, rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = small_llava(dtype=torch.float32), in_fp32(mixed())
    with prune(model, spec, sample_ids=range(4)) as pruned, torch.no_grad():
        fast = model(**batch.inputs(), logits_to_keep=1).logits
        traces = [trace.to_json() for trace in pruned.traces]
        assert rows
        monkeypatch.setattr(linear, "LARGE", 2**30)
    with prune(model, spec, sample_ids=range(4)) as pruned, torch.no_grad():
        plain = model(**batch.inputs(), logits_to_keep=1).logits
        assert [trace.to_json() for trace in pruned.traces] == traces
    torch.testing.assert_close(fast, plain, rtol=0, atol=2e-5)


def test_it_is_taken_from_the_first_prune_point_on(rows: list[int]) -> None:
    """FastV's rows leave in layer 1, behind its attention: of that its feed-forward network's 3
    products are left, and 7 in each later layer."""
    model, batch = small_llava(dtype=torch.float32), in_fp32(mixed().single(0))
    with prune(model, "fastv:layer=2,keep=9"), torch.no_grad():
        model(**batch.inputs())
    assert rows == [23] * (3 + 7 * 3)


def test_a_method_that_keeps_all_takes_the_models_own(rows: list[int]) -> None:
    model, batch = small_llava(dtype=torch.float32), in_fp32(mixed())
    proofs.keep_everything(prune, model, "fastv:layer=1,keep=36", batch)
    assert rows == []


def test_not_with_gradients_nor_behind_the_block_nor_in_decoding(rows: list[int]) -> None:
    model, batch = small_llava(dtype=torch.float32), in_fp32(mixed().single(0))
    with prune(model, "fastv:layer=2,keep=9"):
        model(**batch.inputs()).logits.sum().backward()
        assert rows == []
        answer(model, batch, steps=3)
        assert set(rows) == {23}  # none of the steps, which have one row
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_prompt_that_fails_leaves_the_model_as_it_was(rows: list[int]) -> None:
    model, batch = small_llava(dtype=torch.float32), in_fp32(mixed())
    broken = model.model.language_model.layers[4].mlp.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), prune(model, "fastv:layer=2,keep=9"), torch.no_grad():
        model(**batch.inputs())
    broken.remove()
    assert rows
    assert not any("forward" in vars(module) for module in model.modules())


def test_operations_are_counted_all_the_same(rows: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, found = small_llava(dtype=torch.float32), in_fp32(mixed().single(0)), []
    for large in (1, 2**30):
        monkeypatch.setattr(linear, "LARGE", large)
        with prune(model, "fastv:layer=2,keep=9"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(**batch.inputs())
        found.append(counter.get_total_flops())
    assert rows
    assert found[0] == found[1]
