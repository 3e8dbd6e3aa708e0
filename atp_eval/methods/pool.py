"""Average pooling of the grid before the LLM: fewer, coarser tokens instead of a choice among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import adaptive_avg_pool2d

from atp_eval.errors import UserError
from atp_eval.methods.base import Geometry, Method
from atp_eval.methods.budget import check_average
from atp_eval.methods.decision import Decision
from atp_eval.methods.grid import spread
from atp_eval.methods.point import Point

MAX_STRETCH = 2  # a pooled cell may be at most this much longer one way than the other


def pooled_grid(tokens: int, grid: tuple[int, int]) -> tuple[int, int] | None:
    """(rows, cols) with rows * cols == tokens whose cells are closest to square; None where all are too stretched."""
    shapes = [(r, tokens // r) for r in range(1, grid[0] + 1) if tokens % r == 0 and tokens // r <= grid[1]]
    stretches = {shape: grid[0] / shape[0] * shape[1] / grid[1] for shape in shapes}
    fits = {shape: max(s, 1 / s) for shape, s in stretches.items() if max(s, 1 / s) <= MAX_STRETCH}
    return min(fits, key=lambda shape: fits[shape]) if fits else None


@dataclass(frozen=True, kw_only=True)
class Pool(Method):
    """Average the projected features over a grid of `rows` x `cols` bins (adaptive: bins may overlap by a cell).

    A pooled token takes the position of the cell in the middle of its bin. As many bins as cells change nothing.
    """

    name: ClassVar[str] = "pool"
    rows: int | None = None
    cols: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.rows is None) != (self.cols is None) or (self.rows is None) == (self.average is None):
            raise UserError("pool needs a budget or a shape: write pool@144 or pool:rows=12,cols=12")
        if self.rows is not None and self.cols is not None and min(self.rows, self.cols) < 1:
            raise UserError(f"pool: rows={self.rows}, cols={self.cols} must be at least 1")

    @property
    def prune_layers(self) -> tuple[int, ...]:
        return (0,)

    def solve(self, geometry: Geometry) -> Pool:
        rows, cols = self.rows, self.cols
        if self.average is not None:
            check_average("pool", self.average, geometry)
            shape = pooled_grid(self.average, geometry.grid)
            if shape is None:
                fits = [n for n in range(1, geometry.cells + 1) if pooled_grid(n, geometry.grid)]
                nearest = min(fits, key=lambda n: abs(n - (self.average or 0)))
                raise UserError(
                    f"pool@{self.average}: no grid of {self.average} bins has nearly square cells on "
                    f"{geometry.grid[0]} x {geometry.grid[1]}. The nearest is pool@{nearest}"
                )
            rows, cols = shape
        assert rows is not None and cols is not None, "held by __post_init__"
        if rows > geometry.grid[0] or cols > geometry.grid[1]:
            raise UserError(f"pool: {rows} x {cols} bins do not fit a grid of {geometry.grid[0]} x {geometry.grid[1]}")
        return self._solved(rows=rows, cols=cols)

    def counts(self) -> tuple[int, ...]:
        assert self.rows is not None and self.cols is not None, "solve() first"
        return (self.rows * self.cols,)

    def decide(self, point: Point) -> Decision:
        assert self.rows is not None and self.cols is not None, "solve() first"
        batch, cells, width = point.hidden.shape
        image = point.hidden.view(batch, *point.grid, width).permute(0, 3, 1, 2)  # [B, D, R, C]
        pooled = adaptive_avg_pool2d(image, (self.rows, self.cols)).flatten(2).transpose(1, 2)  # [B, rows * cols, D]
        middles = torch.cartesian_prod(
            torch.tensor(spread(self.rows, point.grid[0])), torch.tensor(spread(self.cols, point.grid[1]))
        ).to(point.hidden.device, non_blocking=True)
        index = middles[:, 0] * point.grid[1] + middles[:, 1]  # [rows * cols]
        values = torch.zeros_like(point.hidden).index_copy(1, index, pooled)
        taken = (
            torch.zeros(cells, dtype=torch.bool, device=index.device).index_fill(0, index, True).expand(batch, cells)
        )
        count = self.rows * self.cols
        if count == cells:
            return Decision(taken, count=count)
        return Decision(torch.zeros_like(taken), count=count, carry=taken, values=values)
