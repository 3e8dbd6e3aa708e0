"""Average pooling of the grid before the LLM: fewer, coarser tokens instead of a choice among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import adaptive_avg_pool2d

from atp_eval.cost.scorer import Prompt
from atp_eval.methods.bins import Bins
from atp_eval.methods.decision import Decision
from atp_eval.methods.point import Point


@dataclass(frozen=True, kw_only=True)
class Pool(Bins):
    """Average the projected features over a grid of `rows` x `cols` bins (adaptive: bins may overlap by a cell).

    A pooled token takes the position of the cell in the middle of its bin. As many bins as cells change nothing.
    """

    name: ClassVar[str] = "pool"

    def decide(self, point: Point) -> Decision:
        if self.shape == point.grid:
            return Decision(torch.ones_like(point.kept), count=point.kept.shape[1])
        batch, _, width = point.hidden.shape
        image = point.hidden.view(batch, *point.grid, width).permute(0, 3, 1, 2)  # [B, D, R, C]
        pooled = adaptive_avg_pool2d(image, self.shape).flatten(2).transpose(1, 2)  # [B, rows * cols, D]
        return self.placed(pooled, point.grid, point.hidden)

    def scorer_flops(self, prompt: Prompt) -> int:
        return 0
