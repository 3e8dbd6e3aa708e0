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

    def problem(self, shape: tuple[int, ...]) -> str | None:
        """What is wrong with the tensors for `shape` (B, V), as far as that is known without waiting for the device."""
        for name in ("keep", "carry", "rewrite"):
            cells = getattr(self, name)
            if cells is not None and (cells.dtype != torch.bool or tuple(cells.shape) != shape):
                found = f"{str(cells.dtype).removeprefix('torch.')} {list(cells.shape)}"
                return f"{name} must be a bool mask {list(shape)}, not {found}; keep_cells makes one of indexes"
        if (self.values is None) != (self.carry is None and self.rewrite is None):
            return "values go with carry or rewrite; give both or neither"
        if self.values is not None and tuple(self.values.shape[:2]) != shape:
            return f"values must be {list(shape)} and the width of the hidden states, not {list(self.values.shape)}"
        if self.order is not None and tuple(self.order.shape) != shape:
            return f"order must be {list(shape)}, not {list(self.order.shape)}"
        return None


def keep_top(scores: Tensor, count: int) -> Decision:
    """Keep the `count` highest scores [B, V] of every sample; of equal ones the earlier cell, so that runs agree."""
    return keep_cells(scores.argsort(dim=1, descending=True, stable=True)[:, :count], scores.shape[1])


def keep_cells(index: Tensor, cells: int) -> Decision:
    """Keep the tokens of cells `index` [B, k], in raster order. A cell named twice would make `count` wrong."""
    keep = torch.zeros(len(index), cells, dtype=torch.bool, device=index.device).scatter(1, index, True)
    return Decision(keep, count=index.shape[1])
