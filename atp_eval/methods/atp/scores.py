"""The scores of ATP-LLaVA (arXiv 2412.00447, Sec. 3.3.1): redundant (Eq. 3-4) and spatial (Eq. 5).

All scores are [B, V], one value per cell of the visual grid, 0 where the token is gone. The raw S_self and S_cross come
from the engine, which computes them without an attention map; here they are made comparable with a threshold in (0, 1).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

ScoreNorm = Literal["minmax", "rel", "rank", "zscore", "none"]
Scores = Literal["both", "self", "cross"]
STRIDES = (2, 3, 4, 6, 8, 12, 24)


def normalise(score: Tensor, kept: Tensor, norm: ScoreNorm, kind: Literal["self", "cross"]) -> Tensor:
    """Raw scores [B, V] as fp32 (fp64 for fp64) values that a threshold in (0, 1) can be compared with; 0 where gone.

    The paper averages logits (Eq. 3) and probabilities (Eq. 4) and compares both with one threshold; it does not say on
    which scale. Statistics run over the tokens in `kept` [B, V] bool, sample by sample.

    minmax: (s - min) / (max - min); constant scores give 0. rel: the sigmoid of the z-score for S_self; r / (1 + r),
    r = s / mean(s), for S_cross. rank: rank / (n - 1), ties share their mean rank; a single token gets 0. zscore: with
    the population's deviation. none: as it is.
    """
    score = score.to(torch.promote_types(score.dtype, torch.float32)).masked_fill(~kept, 0)
    if norm == "minmax":
        score = _minmax(score, kept)
    elif norm == "rank":
        score = _rank(score, kept)
    elif norm == "zscore" or (norm == "rel" and kind == "self"):
        score = _zscore(score, kept)
        score = score.sigmoid() if norm == "rel" else score
    elif norm == "rel":
        ratio = score / _mean(score, kept).clamp(min=torch.finfo(score.dtype).tiny)
        score = ratio / (1 + ratio)
    return score.masked_fill(~kept, 0)


def redundant_score(s_self: Tensor, s_cross: Tensor, scores: Scores = "both", mix: Tensor | None = None) -> Tensor:
    """S_redundant [B, V]: the average of S_self and S_cross (Sec. 3.3.1), or one of them alone (Tab. 5).

    mix: weight of S_self in the average, a number in (0, 1). It is our extension; the paper's is 1/2.
    """
    if scores == "self":
        return s_self
    if scores == "cross":
        return s_cross
    if mix is None:
        return (s_self + s_cross) / 2
    return mix * s_self + (1 - mix) * s_cross


@lru_cache(maxsize=32)
def spatial_score(
    grid: tuple[int, int],
    lambda_sample: float = 3.0,
    strides: tuple[int, ...] = STRIDES,
    device: torch.device | None = None,
) -> Tensor:
    """S_spatial [V], fp64 (Eq. 5): 1 - lambda_sample * R of the sparsest uniform grid that holds the cell.

    The grids start at the first cell and take every n-th row and column; R is their share of all cells, fixed under
    pruning. Cells on no grid, and negative scores, count as 0. The paper says both that higher rates score higher and
    the formula that says the opposite; the formula is followed. On 24 x 24 the default strides score 0.25, 0.667,
    0.8125, 0.917, 0.953, 0.979 and 0.995. Made once for a device; not to be written to.
    """
    rows, cols = grid
    row = torch.arange(rows, device=device)[:, None].expand(grid).flatten()
    col = torch.arange(cols, device=device).repeat(rows)
    score = torch.zeros(rows * cols, dtype=torch.float64, device=device)
    for stride in strides:
        sampled = (row % stride == 0) & (col % stride == 0)
        rate = len(range(0, rows, stride)) * len(range(0, cols, stride)) / (rows * cols)
        score = score.where(~sampled, score.clamp(min=1 - lambda_sample * rate))
    return score


def _mean(score: Tensor, kept: Tensor) -> Tensor:
    return (score * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1)


def _minmax(score: Tensor, kept: Tensor) -> Tensor:
    low = score.masked_fill(~kept, torch.inf).amin(1, keepdim=True)
    high = score.masked_fill(~kept, -torch.inf).amax(1, keepdim=True)
    span = high - low
    return (score - low) / span.where(span > 0, 1)


def _zscore(score: Tensor, kept: Tensor) -> Tensor:
    score = score - score.masked_fill(~kept, torch.inf).amin(1, keepdim=True)  # constant scores: exactly 0
    centred = (score - _mean(score, kept)) * kept
    deviation = _mean(centred.square(), kept).sqrt()
    return centred / deviation.where(deviation > 0, 1)


def _rank(score: Tensor, kept: Tensor) -> Tensor:
    """Mean of the lowest and the highest place of equal values, from a sort on each side."""
    ordered = score.masked_fill(~kept, torch.inf).sort(1).values
    below = torch.searchsorted(ordered, score, side="left")
    upto = torch.searchsorted(ordered, score, side="right")
    count = kept.sum(1, keepdim=True)
    return (below + upto - 1).to(score.dtype) / 2 / (count - 1).clamp(min=1)
