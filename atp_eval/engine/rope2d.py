"""The pruning positional embedding of ATP-LLaVA (Sec. 3.3.1): rotary embeddings by row and column for the image.

The fast half of the rotary frequencies turns with the row, the slow half with the column. Text has equal coordinates,
so for it nothing changes but the numbers: they go on after the longer side of the grid. With P tokens before the image,
image token (r, c) is at (P + r, P + c), the first text token after it at P + max(rows, cols) in both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from atp_eval.engine.layout import Layout


def coordinates(layout: Layout, grid: tuple[int, int]) -> Tensor:
    """[2, B, L] rows and columns of unpruned prompts; tokens of a row without an image count 0, 1, 2, ... in both."""
    place = (layout.valid.cumsum(1) - 1).clamp(min=0)
    visual = layout.visual
    behind = layout.valid & ~visual & (visual.cumsum(1) > 0)
    place = place - (grid[0] * grid[1] - max(grid)) * behind
    start = place.masked_fill(~visual, torch.iinfo(torch.long).max).amin(1, keepdim=True)
    row, col = layout.cell // grid[1], layout.cell % grid[1]
    return torch.stack([torch.where(visual, start + at, place) for at in (row, col)])


def rotary_2d(rotary: Any, like: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [B, L, d] for places [2, B, L]; `rotary` is the model's own rotary embedding.

    transformers lays out d as the frequencies, fast to slow, twice.
    """
    by_row, by_col = (rotary(like, position_ids=at) for at in places)
    half = by_row[0].shape[-1] // 2
    fast = (torch.arange(2 * half, device=like.device) % half) < half // 2
    cos, sin = (torch.where(fast, r, c) for r, c in zip(by_row, by_col, strict=True))
    return cos, sin
