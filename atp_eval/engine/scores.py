"""Importance scores from post-RoPE queries and keys, exact and without a length x length attention map.

Shapes: B samples, H query heads, G key heads (G divides H), L tokens, d head size; `query` is [B, H, L, d], `key`
[B, G, L, d]. Sequences are padded on the left. Results are fp32, or fp64 for fp64 input. The caller leaves dropped and
padded tokens out of `visual`, `valid` and `weights`, so that they reach no mean.
"""

from __future__ import annotations

import torch
from torch import Tensor


def self_score(query: Tensor, key: Tensor, visual: Tensor, scaling: float) -> Tensor:
    """[B, L]: mean pre-softmax logit that a token gets from the visual queries, averaged over heads (ATP-LLaVA, Eq. 3).

    Logits are linear in the query, so the mean over queries is one query: mean_m(q_m . k_n) = mean_m(q_m) . k_n.
    The paper puts no causal mask on these logits and neither does this. `visual` [B, L] bool: the queries to average;
    a sample with none scores 0.
    """
    query, key = _exact(query), _exact(key)
    batch, groups, _, size = key.shape
    weights = visual.to(query.dtype) / visual.sum(1, keepdim=True).clamp(min=1)
    mean_query = torch.einsum("bl,bhld->bhd", weights, query).view(batch, groups, -1, size).mean(2)  # [B, G, d]
    return torch.einsum("bgd,bgld->bl", mean_query, key) * (scaling / groups)


def causal_self_score(query: Tensor, key: Tensor, visual: Tensor, scaling: float) -> Tensor:
    """[B, L]: like `self_score`, but over the visual queries that may see the key: itself and those after it.

    The mean over m >= n of q_m . k_n is the suffix sum of queries at n, over their number, times k_n: still one pass.
    """
    query, key = _exact(query), _exact(key)
    batch, groups = key.shape[:2]
    seen = visual.to(query.dtype)
    queries = (query * seen[:, None, :, None]).view(batch, groups, -1, *query.shape[2:]).mean(2)  # [B, G, L, d]
    later = queries.flip(2).cumsum(2).flip(2)
    count = seen.flip(1).cumsum(1).flip(1).clamp(min=1)
    return torch.einsum("bgld,bgld->bl", later, key) / count * (scaling / groups)


def rows_score(query: Tensor, key: Tensor, weights: Tensor, valid: Tensor, scaling: float) -> Tensor:
    """[B, L]: mean attention probability that each token gets from the last R rows, averaged over heads.

    A softmax row needs its own query only, so R rows cost R x L. Causal; keys that are not `valid` [B, L] get nothing.
    weights: [B, R], not negative; the rows' shares in the mean, scaled here to add up to 1. All zero scores 0.
    """
    query, key = _exact(query), _exact(key)
    batch, heads, length, size = query.shape
    groups, rows = key.shape[1], weights.shape[1]
    last = query[:, :, length - rows :].reshape(batch, groups, -1, size)  # [B, G, H/G * R, d]
    logits = (last @ key.transpose(2, 3)).view(batch, heads, rows, length) * scaling
    place = torch.arange(length, device=key.device)
    seen = (place <= place[length - rows :, None]) & valid[:, None, :]  # [B, R, L]
    logits = logits.masked_fill(~seen[:, None], torch.finfo(logits.dtype).min)
    shares = weights.to(logits.dtype) / weights.sum(1, keepdim=True).to(logits.dtype).clamp(min=1e-30)
    return torch.einsum("br,bhrl->bl", shares, logits.softmax(-1)) / heads


def _exact(x: Tensor) -> Tensor:
    """At least fp32: half precision would lose the differences that rank tokens."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
