"""The common part of methods that make fewer, coarser tokens instead of choosing among them: bins over the grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from atp_eval.errors import UserError
from atp_eval.methods.base import Geometry, Method
from atp_eval.methods.budget import check_average
from atp_eval.methods.decision import Decision
from atp_eval.methods.grid import spread

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_STRETCH = 2  # a bin may be at most this much longer one way than the other


def binned_grid(tokens: int, grid: tuple[int, int]) -> tuple[int, int] | None:
    """(rows, cols) with rows * cols == tokens whose bins are closest to square; None where all are too stretched."""
    shapes = [(r, tokens // r) for r in range(1, grid[0] + 1) if tokens % r == 0 and tokens // r <= grid[1]]
    stretches = {shape: grid[0] / shape[0] * shape[1] / grid[1] for shape in shapes}
    fits = {shape: max(s, 1 / s) for shape, s in stretches.items() if max(s, 1 / s) <= MAX_STRETCH}
    return min(fits, key=lambda shape: fits[shape]) if fits else None


def middle_cells(rows: int, cols: int, grid: tuple[int, int]) -> list[int]:
    """The cells (raster indexes, rising) in the middles of `rows` x `cols` equal parts of the grid."""
    return [row * grid[1] + col for row in spread(rows, grid[0]) for col in spread(cols, grid[1])]


@dataclass(frozen=True, kw_only=True)
class Bins(Method):
    """`rows` x `cols` tokens before the LLM, each in the place of the cell in the middle of its bin, in raster order.

    As many bins as cells change nothing.
    """

    rows: int | None = None
    cols: int | None = None

    @property
    def reads_question(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        name, rows, cols = self.name, self.rows, self.cols
        if (rows is None) != (cols is None) or (rows is None) == (self.average is None):
            raise UserError(f"{name} needs a budget or a shape: write {name}@144 or {name}:rows=12,cols=12")
        if rows is not None and cols is not None and min(rows, cols) < 1:
            raise UserError(f"{name}: rows={rows}, cols={cols} must be at least 1")

    @property
    def prune_layers(self) -> tuple[int, ...]:
        return (0,)

    def solve(self, geometry: Geometry) -> Self:
        name, grid, rows, cols = self.name, geometry.grid, self.rows, self.cols
        if self.average is not None:
            check_average(name, self.average, geometry)
            shape = binned_grid(self.average, grid)
            if shape is None:
                fits = [n for n in range(1, geometry.cells + 1) if binned_grid(n, grid)]
                nearest = min(fits, key=lambda n: abs(n - (self.average or 0)))
                raise UserError(
                    f"{name}@{self.average}: no {self.average} bins on {grid[0]} x {grid[1]} cells are nearly square. "
                    f"The nearest is {name}@{nearest}"
                )
            rows, cols = shape
        assert rows is not None and cols is not None, "held by __post_init__"
        if rows > grid[0] or cols > grid[1]:
            raise UserError(f"{name}: {rows} x {cols} bins do not fit a grid of {grid[0]} x {grid[1]}")
        return self._solved(rows=rows, cols=cols)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols) of a solved method."""
        assert self.rows is not None and self.cols is not None, "solve() first"
        return self.rows, self.cols

    def counts(self) -> tuple[int, ...] | None:
        return (self.shape[0] * self.shape[1],)

    def placed(self, tokens: Tensor, grid: tuple[int, int], like: Tensor) -> Decision:
        """Put tokens [B, rows * cols, D] into the middles of their bins; all that was there goes. like: [B, V, D]."""
        cells = torch.tensor(middle_cells(*self.shape, grid)).to(like.device, non_blocking=True)
        values = torch.zeros_like(like).index_copy(1, cells, tokens.to(like.dtype))
        taken = torch.zeros(like.shape[:2], dtype=torch.bool, device=like.device).index_fill(1, cells, True)
        return Decision(torch.zeros_like(taken), count=len(cells), carry=taken, values=values)
