"""The engine's contract, requirement by requirement, on small random models in fp64."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from atp_eval.engine import prune
from engine import proofs
from engine.mixer import Mixer
from engine.proofs import KEEPING, MODES, PRUNING, mixed
from engine.small import answer, make_batch, small_llava


@pytest.fixture(scope="module", params=[4, 1], ids=lambda kv: f"kv{kv}")
def model(request: pytest.FixtureRequest) -> Any:
    return small_llava(kv_heads=request.param)


@pytest.mark.parametrize("spec", KEEPING)
@pytest.mark.parametrize("mode", MODES)
def test_keep_everything_is_bit_identical(model: Any, spec: str, mode: str) -> None:
    proofs.keep_everything(prune, model, spec, mixed(), **MODES[mode])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_keep_everything_is_bit_identical_in_other_types(dtype: torch.dtype, attention: str) -> None:
    """Not eager in fp64: there transformers itself makes NaN of padding."""
    model, batch = small_llava(dtype=dtype, attention=attention), mixed()
    assert batch.pixels is not None
    batch = batch._replace(pixels=batch.pixels.to(dtype))
    for spec in KEEPING:
        proofs.keep_everything(prune, model, spec, batch)


@pytest.mark.parametrize("spec", ["upper_bound", PRUNING[0], "pool:rows=3,cols=4"])
@pytest.mark.parametrize("mode", MODES)
def test_text_alone_is_bit_identical_whatever_the_method(model: Any, spec: str, mode: str) -> None:
    proofs.keep_everything(prune, model, spec, make_batch(12, 7), **MODES[mode])


@pytest.mark.parametrize("spec", PRUNING)
def test_pruned_equals_the_masked_reference(model: Any, spec: str) -> None:
    batch = mixed()
    for row in (0, 2, 3):
        proofs.masked_reference(prune, model, spec, batch.single(row))


@pytest.mark.parametrize("layers", [(0,), (0, 2), (1, 3), (2,)])
@pytest.mark.parametrize("numbering", ["contiguous", "1d"])
def test_merged_tokens_in_another_order_equal_the_masked_reference(
    model: Any, layers: tuple[int, ...], numbering: Any
) -> None:
    """All that a method may look at, and all that it may answer, at once."""
    mixer = Mixer(layers=layers, numbering=numbering)
    proofs.masked_reference(prune, model, mixer, mixed().single(0))
    proofs.masked_reference(prune, model, mixer, mixed().single(2))


@pytest.mark.parametrize("mode", MODES)
def test_merged_tokens_in_another_order_are_the_same_in_a_batch(model: Any, mode: str) -> None:
    proofs.batch_equals_singles(prune, model, Mixer(), mixed(), **MODES[mode] if mode != "sampling" else {})


@pytest.mark.parametrize("mode", MODES)
def test_renumbering_what_has_no_gaps_changes_no_bit(model: Any, mode: str) -> None:
    proofs.keep_everything(prune, model, Mixer(share=1.0), mixed(), **MODES[mode])


@pytest.mark.parametrize(("layers", "grid", "spec"), [
    (2, 3, "fastv:layer=1,keep=1"),
    (3, 5, "schedule:layers=1-2,keep=24-2,score=cross"),
    (8, 7, "schedule:layers=1-3-6,keep=40-20-9,score=last_row"),
    (8, 4, "pool:rows=1,cols=2"),
])  # fmt: skip
def test_other_depths_and_grids_equal_the_masked_reference(layers: int, grid: int, spec: str) -> None:
    proofs.masked_reference(prune, small_llava(layers=layers, grid=grid), spec, make_batch((4, 6), grid=grid))


@pytest.mark.parametrize("spec", PRUNING[:3])
def test_eager_attention_equals_the_masked_reference(spec: str) -> None:
    """To fp32: eager attention takes its softmax there."""
    proofs.masked_reference(prune, small_llava(attention="eager"), spec, make_batch((5, 9)), atol=5e-6)


@pytest.mark.parametrize("spec", PRUNING)
def test_a_ragged_batch_equals_its_samples_alone(model: Any, spec: str) -> None:
    proofs.batch_equals_singles(prune, model, spec, mixed())


@pytest.mark.parametrize("spec", [PRUNING[1], PRUNING[6]])
def test_a_ragged_batch_equals_its_samples_alone_with_beams(model: Any, spec: str) -> None:
    proofs.batch_equals_singles(prune, model, spec, mixed(), num_beams=3)


def test_a_ragged_batch_equals_its_samples_alone_with_eager_attention() -> None:
    batch = mixed()
    assert batch.pixels is not None
    batch = batch._replace(pixels=batch.pixels.float())
    proofs.batch_equals_singles(prune, small_llava(dtype=torch.float32, attention="eager"), PRUNING[1], batch)


@pytest.mark.parametrize("spec", PRUNING)
def test_caches_are_as_long_as_the_trace_says(model: Any, spec: str) -> None:
    proofs.cache_lengths(prune, model, spec, mixed())


@pytest.mark.parametrize("spec", PRUNING)
def test_keys_and_values_are_written_once(model: Any, spec: str) -> None:
    proofs.written_once(prune, model, spec, mixed())


@pytest.mark.parametrize("spec", PRUNING)
def test_every_layer_runs_fused_attention_on_the_tokens_that_are_there(spec: str) -> None:
    proofs.sdpa_everywhere(prune, small_llava(), spec, make_batch((5, 9)))


def test_several_answers_for_a_prompt_share_a_trace() -> None:
    model, batch = small_llava(), make_batch((5, 9), (3, 4))
    with prune(model, PRUNING[0], sample_ids=["a", "b"]) as pruned:
        tokens = answer(model, batch, num_return_sequences=2, do_sample=True).tokens
        assert len(tokens) == 4
        assert len(pruned.traces) == 2
