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
    The paper puts no causal mask on these logits and neither does this. `visual` [B, L]: the queries to average, bool
    or weights; a sample with none scores 0.
    """
    query, key = exact(query), exact(key)
    batch, groups, _, size = key.shape
    weights = visual.to(query.dtype)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-30)
    mean_query = (weights[:, None] @ _heads_last(query)).view(batch, groups, -1, size).mean(2)  # [B, G, d]
    return (_heads_last(key) @ mean_query.flatten(1)[..., None])[..., 0] * (scaling / groups)


def causal_self_score(query: Tensor, key: Tensor, visual: Tensor, scaling: float) -> Tensor:
    """[B, L]: like `self_score`, but over the visual queries that may see the key: itself and those after it.

    The mean over m >= n of q_m . k_n is the suffix sum of queries at n, over their number, times k_n: still one pass.
    """
    query, key = exact(query), exact(key)
    batch, groups = key.shape[:2]
    seen = visual.to(query.dtype)
    queries = (query * seen[:, None, :, None]).view(batch, groups, -1, *query.shape[2:]).mean(2)  # [B, G, L, d]
    later = queries.flip(2).cumsum(2).flip(2)
    count = seen.flip(1).cumsum(1).flip(1).clamp(min=1e-30)
    return torch.einsum("bgld,bgld->bl", later, key) / count * (scaling / groups)


def rows_score(query: Tensor, key: Tensor, weights: Tensor, valid: Tensor, scaling: float) -> Tensor:
    """[B, L]: mean attention probability that each token gets from the last R rows, averaged over heads.

    query: [B, H, R or more, d], of which the last R are read.
    A softmax row needs its own query only, so R rows cost R x L. Causal; keys that are not `valid` [B, L] get nothing.
    weights: [B, R], not negative; the rows' shares in the mean, scaled here to add up to 1. All zero scores 0.
    """
    length, rows = key.shape[2], weights.shape[1]
    places = torch.arange(length - rows, length, device=key.device).expand(len(weights), -1)
    return _attended(query[:, :, -rows:], places, key, weights, valid, scaling)


def rows_score_at(query: Tensor, key: Tensor, rows: Tensor, valid: Tensor, bias: Tensor, scaling: float) -> Tensor:
    """[B, L]: like `rows_score` with equal weights, from the rows in `rows` [B, L] bool, wherever they are.

    bias [B, L] is added to the logits of each key: the log of a soft mask. For training, where tokens stay in place;
    waits for the device.
    """
    count = int(rows.sum(1).max())
    places = rows.int().argsort(dim=1, descending=True, stable=True)[:, :count]
    index = places[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3])
    return _attended(query.gather(2, index), places, key, rows.gather(1, places), valid, scaling, bias)


def _attended(
    queries: Tensor,
    places: Tensor,
    key: Tensor,
    weights: Tensor,
    valid: Tensor,
    scaling: float,
    bias: Tensor | None = None,
) -> Tensor:
    """[B, L]: weighted mean of the softmax rows of queries [B, H, R, d] at places [B, R]."""
    queries, key = exact(queries) * scaling, exact(key)
    batch, heads, rows, size = queries.shape
    groups, length = key.shape[1:3]
    logits = queries.reshape(batch, groups, -1, size) @ key.transpose(2, 3)  # [B, G, H/G * R, L]
    logits = logits.view(batch, heads, rows, length)
    if bias is not None:
        logits = logits + bias[:, None, None].to(logits.dtype)
    seen = (torch.arange(length, device=key.device) <= places[..., None]) & valid[:, None, :]  # [B, R, L]
    logits.masked_fill_(~seen[:, None], torch.finfo(logits.dtype).min)
    shares = weights.to(logits.dtype) / weights.sum(1, keepdim=True).to(logits.dtype).clamp(min=1e-30)
    return (shares[:, None] @ logits.softmax(-1).sum(1))[:, 0] / heads


def _heads_last(x: Tensor) -> Tensor:
    """[B, H, L, d] -> [B, L, H * d], the order that projections leave in memory: nothing is copied."""
    return x.transpose(1, 2).flatten(2)


def exact(x: Tensor) -> Tensor:
    """At least fp32: half precision would lose the differences that rank tokens."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
