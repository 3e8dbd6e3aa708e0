"""What a method answers: which tokens enter the layer, with which content and in which order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Decision:
    """Which visual tokens enter the layer.

    keep: [B, V] bool, cells whose token stays as it is; cells that are gone already may be True and stay gone.
    count: tokens that stay in each sample, merged ones included, where that is the same for all and known beforehand;
        it saves the wait for the device. Leave None where it depends on the data.
    carry: [B, V] bool, disjoint from keep: cells, still there so far, whose token gives its place to a merged one,
        which stands for no single cell.
    rewrite: [B, V] bool, within keep: cells that live on, with another hidden state (their own with others' merged in).
    values: [B, V, D], the hidden states that are put in where `carry` or `rewrite` is True.
    order: [B, V] whole numbers, different ones for different tokens that stay: the tokens enter the layer in rising
        order of them. None leaves the order as it is.
    """

    keep: Tensor
    count: int | None = None
    carry: Tensor | None = None
    rewrite: Tensor | None = None
    values: Tensor | None = None
    order: Tensor | None = None


def keep_top(scores: Tensor, count: int) -> Decision:
    """Keep the `count` highest scores [B, V] of every sample; of equal ones the earlier cell, so that runs agree."""
    return keep_cells(scores.argsort(dim=1, descending=True, stable=True)[:, :count], scores.shape[1])


def keep_cells(index: Tensor, cells: int) -> Decision:
    """Keep the tokens of cells `index` [B, k], different ones in a row, in raster order."""
    keep = torch.zeros(len(index), cells, dtype=torch.bool, device=index.device).scatter(1, index, True)
    return Decision(keep, count=index.shape[1])
