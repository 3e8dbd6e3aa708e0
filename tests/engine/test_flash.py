"""FlashAttention 2: its contract on a CPU by a stand-in that takes what it takes, the kernel where there is a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from atp_eval.engine import prune
from atp_eval.engine.prefill import Prefill
from engine import proofs
from engine.proofs import KEEPING, PRUNING, mixed
from engine.small import answer, make_batch, small_llava


def flash(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, **options: Any
) -> tuple[Tensor, None]:
    """What the kernel sees: a 2-D padding mask or None, causal from the end; gaps in positions would mean packing."""
    positions = options.get("position_ids")
    if positions is not None and len(query) == 1:
        assert (positions.diff(dim=-1) == 1).all()
    if "cu_seq_lens_q" in options:
        return varlen(module, query, key, value, mask, scaling, options)
    share = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(share, 1), value.repeat_interleave(share, 1)
    rows, (queries, keys) = [], (query.shape[2], key.shape[2])
    assert mask is None or mask.shape == (len(query), keys)
    for row in range(len(query)):
        there = torch.ones(keys, dtype=torch.bool) if mask is None else mask[row].bool()
        asked = there[keys - queries :]
        seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)[asked][:, there]
        out = torch.zeros_like(query[row])
        out[:, asked] = scaled_dot_product_attention(
            query[row : row + 1, :, asked],
            key[row : row + 1, :, there],
            value[row : row + 1, :, there],
            seen,
            scale=scaling,
        )[0]
        rows.append(out)
    return torch.stack(rows).transpose(1, 2).contiguous(), None


def varlen(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, options: dict[str, Any]
) -> tuple[Tensor, None]:
    """What the kernel for sequences one behind the other sees: where queries and keys of each begin, and no mask."""
    assert mask is None
    queries, keys = options["cu_seq_lens_q"], options["cu_seq_lens_k"]
    assert queries.dtype == keys.dtype == torch.int32
    assert (queries[-1], keys[-1]) == (query.shape[2], key.shape[2])
    assert (queries.diff().max(), keys.diff().max()) == (options["max_length_q"], options["max_length_k"])
    found = []
    for (start, stop), (first, last) in zip(
        *(zip(x[:-1].tolist(), x[1:].tolist(), strict=True) for x in (queries, keys)), strict=True
    ):
        parts = query[:, :, start:stop], key[:, :, first:last], value[:, :, first:last]
        found.append(flash(module, *parts, None, scaling)[0])
    return torch.cat(found, dim=1), None


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A model that believes it runs FlashAttention 2."""
    ALL_ATTENTION_FUNCTIONS["flash_attention_2"] = flash
    model = small_llava()
    model.model.language_model.config._attn_implementation = "flash_attention_2"
    yield model
    del ALL_ATTENTION_FUNCTIONS["flash_attention_2"]


@pytest.mark.parametrize("spec", KEEPING)
def test_keep_everything_is_bit_identical(model: Any, spec: str) -> None:
    proofs.keep_everything(prune, model, spec, mixed())


@pytest.mark.parametrize("spec", PRUNING)
def test_pruned_equals_the_masked_reference(model: Any, spec: str) -> None:
    proofs.masked_reference(prune, model, spec, make_batch((5, 9)))


@pytest.mark.parametrize("spec", PRUNING[:3])
@pytest.mark.parametrize("beams", [1, 2])
def test_a_ragged_batch_equals_its_samples_alone(model: Any, spec: str, beams: int) -> None:
    proofs.batch_equals_singles(prune, model, spec, mixed(), num_beams=beams)


def on_gpu(attention: str) -> Any:
    batch = mixed()
    assert batch.pixels is not None
    batch = batch._replace(ids=batch.ids.cuda(), mask=batch.mask.cuda(), pixels=batch.pixels.cuda().bfloat16())
    return small_llava(attention=attention, dtype=torch.bfloat16, kv_heads=4).cuda(), batch


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2"])
@pytest.mark.parametrize("spec", KEEPING)
def test_keep_everything_is_bit_identical_on_a_gpu(spec: str, attention: str) -> None:
    if attention == "flash_attention_2":
        import flash_attn  # noqa: F401 -- without it this check has not passed
    model, batch = on_gpu(attention)
    proofs.keep_everything(prune, model, spec, batch)


@pytest.mark.gpu
@pytest.mark.parametrize("spec", ["random:layer=0,keep=10", "grid:layer=3,keep=8", "pool:rows=3,cols=4"])
def test_the_kernel_agrees_with_sdpa(spec: str) -> None:
    """Methods that look at no score, so that bf16 cannot change the choice."""
    import flash_attn  # noqa: F401 -- without it this check has not passed

    found = []
    for attention in ("sdpa", "flash_attention_2"):
        model, batch = on_gpu(attention)
        with prune(model, spec, sample_ids=range(4)):
            found.append(answer(model, batch, steps=1).logits)
    torch.testing.assert_close(found[0], found[1], rtol=0.05, atol=0.1)


@pytest.mark.gpu
@pytest.mark.parametrize("spec", PRUNING)
def test_a_fixed_count_never_waits_for_the_gpu(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = on_gpu("sdpa")

    def watch(name: str) -> None:
        decide = getattr(Prefill, name)

        def watched(self: Prefill, *args: Any) -> Tensor:
            torch.cuda.set_sync_debug_mode("error")
            try:
                return decide(self, *args)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        monkeypatch.setattr(Prefill, name, watched)

    for name in ("prune", "prune_early"):
        watch(name)
    with prune(model, spec, sample_ids=range(4)):
        model(**batch.inputs())
