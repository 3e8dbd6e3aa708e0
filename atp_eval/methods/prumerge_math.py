"""PruMerge's and PruMerge+'s mathematics on plain tensors: which cells are kept, and what is merged into them.

Every `select_*` starts from the attention [B, V] of `class_attention` and gives a `Selection`; `merge` makes the
tokens. Samples of a batch may keep different numbers of cells; nothing here waits for the device.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from atp_eval.methods.grid import spread
from atp_eval.methods.tensors import rows

Rule = Literal["code", "paper"]


class Selection(NamedTuple):
    """pool: [B, V] cells, first the kept ones in the order in which the LLM reads them, then the others, rising. A cell
    may stand in it twice (`select_ratio`); then as many of the lowest other cells are missing.
    kept: [B] how many entries of the pool are kept.
    home: [B, V] different cells: in whose place of the picture each entry lives; `pool`, save for a cell's second
    entry, which lives in the place of a missing one.
    """

    pool: Tensor
    kept: Tensor
    home: Tensor


def class_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """[B, V]: attention probability from CLS to each patch, all heads taken as one vector.

    queries, keys: [B, H, 1 + V, d], projections of the last encoder layer, with bias, unscaled, CLS first. The logits
    are scaled by 1 / sqrt(H d) and the softmax includes CLS itself, so that a row adds up to less than 1.
    Computed in fp32 (fp64 for fp64 inputs); the authors' code stays in fp16, where values near each other tie.
    """
    precision = torch.promote_types(queries.dtype, torch.float32)
    query = queries[:, :, :1].transpose(1, 2).flatten(2).to(precision)  # [B, 1, H * d]
    key = keys.transpose(1, 2).flatten(2).to(precision)  # [B, 1 + V, H * d]
    logits = (query @ key.transpose(1, 2))[:, 0] * key.shape[-1] ** -0.5
    return logits.softmax(-1)[:, 1:]


def outlier_count(attention: Tensor) -> Tensor:
    """[B]: how many of a row of attention [B, V] lie above Q3 + 1.5 (Q3 - Q1), strictly.

    Quartiles by linear interpolation (numpy.percentile's default), of each sample alone. The authors' code takes them
    over the whole batch, which is the same for their batches of one.
    """
    ordered = attention.sort(dim=1).values
    q1, q3 = _quantile(ordered, 0.25), _quantile(ordered, 0.75)
    return (attention > (q3 + 1.5 * (q3 - q1))[:, None]).sum(1)


def select_adaptive(attention: Tensor, plus: bool) -> Selection:
    """The authors' adaptive count: the n outliers, from the highest down; of equal ones the earlier cell first.

    plus: then every cell of the raster line 0, s, 2s, ... below V - 1 that is not among them, s = (V // n) // 3; the
    last cell is never on the line. 32 outliers of 576 give at most 128 kept cells (97 on the line of stride 6, fewer by
    those that are outliers too). Without outliers nothing is kept, the line neither; the authors' PruMerge then gives
    the extra token alone, as here, and their PruMerge+ divides by zero.
    """
    cells = attention.shape[1]
    outliers = outlier_count(attention)[:, None]  # [B, 1]
    top = _ranks(attention) < outliers
    if not plus:
        return _arranged(attention, top, torch.zeros_like(top))
    index = torch.arange(cells, device=attention.device)
    stride = (cells // outliers.clamp(min=1) // 3).clamp(min=1)
    return _arranged(attention, top, (index % stride == 0) & (index < cells - 1) & (outliers > 0))


def select_exact(attention: Tensor, count: int, plus: bool) -> Selection:
    """Exactly `count` tokens with the extra one, 1 <= count <= V: the count - 1 highest; no such mode in the paper.

    plus: half of the tokens, count // 2, are cells evenly spread over the raster line (for 144 of 576 the official
    4, 12, ..., 572), the others the highest outside of them: 71 + 72 + 1 = 144. So duplicates are refilled by the next
    scores. A cell of the line that is higher than the last of the others is read among the high ones.
    """
    line = count // 2 if plus else 0
    high = count - 1 - line
    grid = torch.zeros(attention.shape[1], dtype=torch.bool)
    grid[spread(line, len(grid))] = True
    grid = grid.to(attention.device, non_blocking=True).expand_as(attention)
    ranks = _ranks(attention)
    outside = (~grid).long().scatter(1, ranks, (~grid).long())  # by rank
    earlier = outside.cumsum(1) - outside
    return _arranged(attention, (earlier < high).gather(1, ranks), grid)


def select_ratio(attention: Tensor, ratio: float, plus: bool) -> Selection:
    """The authors' fixed count (if_adaptive=False): the int(V * ratio) highest, at least 1.

    plus: and the cells t // 2, t // 2 + t, ... below V - 1 for t = int(1 / ratio), even where they are among the
    highest. Such a cell is kept twice, and as in the code the duplicate pushes the lowest cell that is not kept out of
    the pool: it is merged into nothing.
    """
    cells = attention.shape[1]
    ranks = _ranks(attention)
    if not plus:
        top = ranks < int(cells * ratio)
        return _arranged(attention, top, torch.zeros_like(top))
    line = torch.tensor(ratio_line(cells, ratio), dtype=torch.long)
    line = line.to(attention.device, non_blocking=True).expand(len(attention), -1)
    high = ranks.argsort(1)[:, : int(cells * ratio)]
    chosen = torch.cat([high, line], dim=1)
    index = torch.arange(cells, device=attention.device)
    others = index.expand_as(attention).scatter(1, chosen, 0).sort(1).values  # a zero for each kept cell, then the rest
    pool = torch.cat([chosen, others[:, chosen.shape[1] :]], dim=1)
    twin = torch.zeros_like(ranks, dtype=torch.bool)
    twin[:, high.shape[1] : chosen.shape[1]] = ranks.gather(1, line) < high.shape[1]
    missing = chosen.shape[1] - twin.sum(1, keepdim=True) + twin.cumsum(1) - 1  # where `others` has the twin's place
    home = torch.where(twin, others.gather(1, missing.clamp(0, cells - 1)), pool)
    return Selection(pool, torch.full_like(pool[:, 0], chosen.shape[1]), home)


def ratio_line(cells: int, ratio: float) -> list[int]:
    """PruMerge+'s line of cells at a fixed ratio; for 1/8 of 576 they are 4, 12, ..., 572."""
    step = int(1 / ratio)
    return list(range(step // 2, cells - 1, step))


def merge(
    features: Tensor,
    keys: Tensor,
    attention: Tensor,
    selection: Selection,
    tokens: int,
    neighbours: int = 32,
    rule: Rule = "code",
) -> Tensor:
    """The tokens that the LLM reads: [B, tokens, C], each kept one, then the extra one (before the projector).

    features: [B, V, C] that go into the projector; keys: [B, V, E] of the last encoder layer, heads side by side;
    attention: [B, V] of `class_attention`. tokens: 1 + the largest number kept, at most V; rows after a sample's extra
    token mean nothing. A sample that keeps all V cells has no extra token (the authors' is zeros).

    Kept cell i takes in its `neighbours` nearest by cosine of the keys, kept or not, of equal ones the earlier in the
    pool; everything is made of the original features, and a cell may go into many.
    code: x_i + sum_j a_j x_j, and the extra token is sum_j a_j x_j over the others; nothing is divided.
    paper: weighted averages, so divided by the sum of the weights, a_i for x_i itself among them.
    """
    precision = torch.promote_types(features.dtype, torch.float32)
    pool, place = selection.pool, torch.arange(selection.pool.shape[1], device=features.device)
    x, unit = rows(features.to(precision), pool), rows(normalize(keys.to(precision), dim=-1), pool)
    a = attention.to(precision).gather(1, pool)[:, None]  # [B, 1, V]
    itself = place[:tokens, None] == place  # [tokens, V]
    similarity = (unit[:, :tokens] @ unit.transpose(1, 2)).masked_fill(itself, float("-inf"))
    nearest = similarity.argsort(dim=-1, descending=True, stable=True)[..., : min(neighbours, len(place) - 1)]
    own = itself * a if rule == "paper" else itself.to(precision)
    weights = torch.zeros_like(similarity).scatter(-1, nearest, 1.0) * a + own
    kept = selection.kept[:, None, None]
    weights = torch.where(place[:tokens, None] == kept, (place >= kept) * a, weights)
    if rule == "paper":
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(precision).tiny)
    return (weights @ x).to(features.dtype)


def _quantile(ordered: Tensor, share: float) -> Tensor:
    """[B] of rising rows [B, V]."""
    place = share * (ordered.shape[1] - 1)
    low = int(place)
    return ordered[:, low].lerp(ordered[:, min(low + 1, ordered.shape[1] - 1)], place - low)


def _ranks(attention: Tensor) -> Tensor:
    """[B, V]: 0 for the highest; of equal ones the earlier cell is higher."""
    return attention.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def _arranged(attention: Tensor, top: Tensor, grid: Tensor) -> Selection:
    """Cells of `top` [B, V] from the highest down, those of `grid` alone in raster order, then the others."""
    cells = attention.shape[1]
    index = torch.arange(cells, device=attention.device)
    key = torch.where(top, _ranks(attention), torch.where(grid, cells + index, 2 * cells + index))
    pool = key.argsort(dim=1)
    return Selection(pool, (top | grid).sum(1), pool)
