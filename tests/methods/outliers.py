"""Attention with outliers, and the cells that PruMerge keeps of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from atp_eval.methods import Geometry
from atp_eval.methods.prumerge_math import (
    Selection,
)

LLAVA = Geometry(32, (24, 24))


def floats(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kept_of(selection: Selection) -> list[list[int]]:
    return [row[:n].tolist() for row, n in zip(selection.pool, selection.kept.tolist(), strict=True)]


def others_of(selection: Selection) -> list[list[int]]:
    return [row[n:].tolist() for row, n in zip(selection.pool, selection.kept.tolist(), strict=True)]


def with_outliers(count: int, cells: list[int]) -> Tensor:
    """[1, 576], the `count` first of these cells far above the others, falling."""
    attention = torch.linspace(1, 2, 576, dtype=torch.float64)
    attention[cells[:count]] = torch.arange(2000, 2000 - count, -1, dtype=torch.float64)
    return attention[None]
