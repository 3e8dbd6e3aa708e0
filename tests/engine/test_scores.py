"""Scores without maps against the full maps."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atp_eval.engine.scores import rows_score, self_score


def full_maps(query: Tensor, key: Tensor, valid: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Logits without any mask, and causal probabilities over valid keys: [B, H, L, L] each."""
    logits = query @ key.repeat_interleave(query.shape[1] // key.shape[1], 1).transpose(2, 3) * scaling
    length = query.shape[2]
    seen = torch.ones(length, length, dtype=torch.bool).tril() & valid[:, None, None, :]
    return logits, logits.masked_fill(~seen, float("-inf")).softmax(-1).nan_to_num(0)


shapes = st.tuples(
    st.integers(1, 3), st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]), st.integers(2, 12), st.sampled_from([2, 8])
)


@settings(max_examples=60, deadline=None)
@given(shape=shapes, pads=st.integers(0, 6), seed=st.integers(0, 99), data=st.data())
def test_scores_equal_the_full_maps(
    shape: tuple[int, tuple[int, int], int, int], pads: int, seed: int, data: st.DataObject
) -> None:
    batch, (heads, groups), length, size = shape
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, heads, length, size, generator=generator, dtype=torch.float64)
    key = torch.randn(batch, groups, length, size, generator=generator, dtype=torch.float64)
    starts = torch.randint(0, min(pads, length - 1) + 1, (batch, 1), generator=generator)
    valid = torch.arange(length) >= starts
    visual = valid & (torch.rand(batch, length, generator=generator) < 0.6)
    logits, maps = full_maps(query, key, valid, 0.3)

    for b in range(batch):
        found = self_score(query, key, visual, 0.3)[b]
        truth = logits[b][:, visual[b]].mean((0, 1)) if visual[b].any() else torch.zeros(length, dtype=torch.float64)
        torch.testing.assert_close(found, truth, rtol=0, atol=1e-12)

    rows = data.draw(st.integers(1, length))
    weights = torch.rand(batch, rows, generator=generator, dtype=torch.float64) * valid[:, -rows:]
    found = rows_score(query, key, weights, valid, 0.3)
    truth = torch.einsum("br,bhrl->bl", weights / weights.sum(1, keepdim=True), maps[:, :, -rows:]) / heads
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-12)


def test_what_stands_in_padding_changes_no_score() -> None:
    query, key = torch.randn(2, 1, 4, 9, 8, dtype=torch.float64).unbind(0)
    valid = torch.arange(9)[None] >= 3
    visual = valid & (torch.arange(9)[None] < 6)
    weights = torch.ones(1, 2)
    before = self_score(query, key, visual, 1.0), rows_score(query, key, weights, valid, 1.0)
    query[:, :, :3], key[:, :, :3] = 1e6, -1e6
    after = self_score(query, key, visual, 1.0), rows_score(query, key, weights, valid, 1.0)
    assert torch.equal(before[0][:, 3:], after[0][:, 3:])
    assert torch.equal(before[1], after[1])


def test_rows_add_up_to_one_and_scores_come_in_fp32() -> None:
    query, key = torch.randn(2, 1, 4, 9, 8, dtype=torch.bfloat16).unbind(0)
    score = rows_score(query, key, torch.tensor([[1, 0, 3]]), torch.ones(1, 9, dtype=torch.bool), 0.5)
    assert score.dtype == torch.float32
    torch.testing.assert_close(score.sum(), torch.tensor(1.0))


def test_no_rows_and_no_visual_tokens_score_zero() -> None:
    query, key = torch.randn(2, 1, 2, 5, 4).unbind(0)
    none = torch.zeros(1, 5, dtype=torch.bool)
    assert not self_score(query, key, none, 1.0).any()
    assert not rows_score(query, key, torch.zeros(1, 3), ~none, 1.0).any()
