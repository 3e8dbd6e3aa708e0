"""ATP on the engine, without an attention map, against the literal version that makes them all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from engine.proofs import MODES, batch_equals_singles, cache_lengths, keep_everything, sdpa_everywhere, written_once
from engine.small import answer, make_batch, small_llava
from engine.test_syncs import Shapes, reads

from atp_eval.engine import prune
from methods.adapters import random_adapter
from methods.atp.proofs import equals_literal, made, ragged, zero

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "rel": {"score_norm": "rel", "layers": (2, 4)},
    "rank, causal": {"score_norm": "rank", "causal_self": True},
    "zscore, self alone": {"score_norm": "zscore", "scores": "self"},
    "cross alone, by redundant score alone": {"scores": "cross", "rules": "redundant"},
    "raw scores": {"score_norm": "none"},
    "by place alone": {"rules": "spatial", "layers": (1, 2, 4)},
    "sparser grids": {"lambda_sample": 1.5, "strides": (3, 5)},
    "learned mix": {"learned_mix": True},
    "rows and columns": {"positions": "2d"},
}


@pytest.fixture(scope="module", params=[4, 1], ids=lambda kv: f"kv{kv}")
def model(request: pytest.FixtureRequest) -> Any:
    return small_llava(kv_heads=request.param)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_padded_batch_equals_the_literal_version(model: Any, name: str) -> None:
    """At the first prune point and at those after it, where tokens are gone."""
    counts = equals_literal(prune, model, random_adapter(model, **OPTIONS[name]), ragged())
    assert min(map(min, counts)) < 36


def test_samples_of_a_batch_keep_as_many_tokens_as_they_need() -> None:
    model = small_llava()
    counts = equals_literal(prune, model, random_adapter(model), make_batch((5, 9), (3, 14), 8, (6, 1), (4, 4)))
    assert len({first for first, _ in counts}) >= 3


def test_thresholds_at_their_means_equal_the_literal_version() -> None:
    model = small_llava()
    equals_literal(prune, model, random_adapter(model), ragged(), control="static")


@pytest.mark.parametrize(("layers", "grid"), [(3, 5), (8, 7), (3, 24)])
def test_other_depths_and_grids_equal_the_literal_version(layers: int, grid: int) -> None:
    """24 x 24 cells are what the module reads without resizing."""
    model = small_llava(layers=layers, grid=grid)
    adapter = random_adapter(model, layers=(1, layers - 1), score_norm="rank")
    lengths = [(4, 6)] if grid == 24 else [(4, 6), 5, (2, 1)]
    equals_literal(prune, model, adapter, make_batch(*lengths, grid=grid))


@pytest.mark.parametrize("mode", MODES)
def test_thresholds_of_0_keep_everything_to_the_bit(model: Any, mode: str) -> None:
    keep_everything(prune, model, zero(model), ragged(), **MODES[mode])


@pytest.mark.parametrize("positions", ["1d", "2d"])
def test_a_batch_equals_its_samples_alone_with_beams(model: Any, positions: str) -> None:
    batch_equals_singles(prune, model, made(random_adapter(model, positions=positions)), ragged(), num_beams=3)


def test_the_cache_holds_what_is_there_and_attention_stays_fused(model: Any) -> None:
    method = made(random_adapter(model))
    cache_lengths(prune, model, method, ragged())
    written_once(prune, model, method, ragged())
    sdpa_everywhere(prune, model, method, make_batch((5, 9)))


@pytest.mark.parametrize("options", [{}, {"layers": (1, 2, 4), "score_norm": "rank", "causal_self": True}])
@pytest.mark.parametrize("control", ["none", "static"])
def test_the_host_waits_once_a_prune_point(
    options: dict[str, Any], control: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = made(random_adapter(small_llava(), **options), control=control)
    assert reads(monkeypatch, method) == len(method.prune_layers)


def test_no_attention_map_is_made() -> None:
    model, batch = small_llava(), make_batch((20, 43))
    adapter = random_adapter(model, causal_self=True, positions="2d")
    with prune(model, made(adapter)) as pruned, Shapes() as shapes, torch.no_grad():
        model(**batch.inputs())
    lengths = set((pruned.trace.tokens_per_layer() + 63).tolist())
    assert shapes.seen
    assert not [shape for shape in shapes.seen if len(shape) > 1 and shape[-1] in lengths and shape[-2] in lengths]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_thresholds_stay_fp32_under_a_model_of_half_precision(dtype: torch.dtype) -> None:
    model, batch = small_llava(dtype=dtype), ragged()
    assert batch.pixels is not None
    adapter = random_adapter(model)
    with prune(model, made(adapter)) as pruned:
        assert answer(model, batch._replace(pixels=batch.pixels.to(dtype))).logits.isfinite().all()
        assert min(trace.average_input for trace in pruned.traces if trace.grid != (0, 0)) < 36
    assert {p.dtype for p in adapter.modules.parameters()} == {torch.float32}


@pytest.fixture(scope="module")
def trained() -> tuple[Any, Any, dict[str, torch.Tensor]]:
    """A model, its twin with another language model, and the weights that make the one the other."""
    model, twin, other = small_llava(), small_llava(), small_llava(seed=3)
    named = {name: p.detach().clone() for name, p in other.named_parameters()}
    weights = {name: p for name, p in named.items() if "language_model" in name or "lm_head" in name}
    twin.load_state_dict(weights, strict=False)
    return model, twin, weights


@pytest.mark.parametrize("positions", ["1d", "2d"])
def test_a_trained_language_model_equals_the_literal_version_on_a_model_that_has_it(
    trained: tuple[Any, Any, dict[str, torch.Tensor]], positions: str
) -> None:
    model, twin, weights = trained
    plain = answer(model, ragged()).logits
    adapter = replace(random_adapter(model, positions=positions), language_model=weights)
    equals_literal(prune, model, adapter, ragged(), twin=twin)
    assert torch.equal(answer(model, ragged()).logits, plain)
