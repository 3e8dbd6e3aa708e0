"""Image down-sampling: the picture at a lower resolution through the vision tower again, so that fewer tokens come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from atp_eval.errors import UserError
from atp_eval.methods.base import Geometry, Method, Need
from atp_eval.methods.budget import check_average
from atp_eval.methods.decision import Decision
from atp_eval.methods.grid import spread
from atp_eval.methods.point import Point
from atp_eval.methods.pool import pooled_grid


def middle_cells(rows: int, cols: int, grid: tuple[int, int]) -> list[int]:
    """The cells (raster indexes, rising) in the middles of `rows` x `cols` equal parts of the grid."""
    return [row * grid[1] + col for row in spread(rows, grid[0]) for col in spread(cols, grid[1])]


def placed(tokens: Tensor, cells: Tensor, like: Tensor) -> Decision:
    """Put tokens [B, n, D] in the places of `cells` [n], different ones; all that was there goes. like: [B, V, D]."""
    values = torch.zeros_like(like).index_copy(1, cells, tokens.to(like.dtype))
    taken = torch.zeros(like.shape[:2], dtype=torch.bool, device=like.device).index_fill(1, cells, True)
    return Decision(torch.zeros_like(taken), count=len(cells), carry=taken, values=values)


@dataclass(frozen=True, kw_only=True)
class Downsample(Method):
    """Encode the picture again at `rows` x `cols` patches, and give the LLM those tokens, in raster order.

    The tower's own input is resized (bicubic, antialiased) and its position embeddings are interpolated, as
    transformers does for towers that allow it. The tower runs a second time: this is the control for what the LLM needs
    to see, not for what the whole costs. Full size leaves the model untouched.

    positions: contiguous, the default, numbers the tokens as if the model had been given the small picture; 1d gives
        each the position of the cell in the middle of its part of the grid, as `pool` does.
    """

    name: ClassVar[str] = "downsample"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision"})
    rows: int | None = None
    cols: int | None = None
    positions: Literal["contiguous", "1d"] = "contiguous"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.rows is None) != (self.cols is None) or (self.rows is None) == (self.average is None):
            raise UserError("downsample needs a budget or a shape: write downsample@144 or downsample:rows=12,cols=12")
        if self.rows is not None and self.cols is not None and min(self.rows, self.cols) < 1:
            raise UserError(f"downsample: rows={self.rows}, cols={self.cols} must be at least 1")

    @property
    def prune_layers(self) -> tuple[int, ...]:
        return (0,)

    def solve(self, geometry: Geometry) -> Downsample:
        rows, cols = self.rows, self.cols
        if self.average is not None:
            check_average(self.name, self.average, geometry)
            shape = pooled_grid(self.average, geometry.grid)
            if shape is None:
                fits = [n for n in range(1, geometry.cells + 1) if pooled_grid(n, geometry.grid)]
                nearest = min(fits, key=lambda n: abs(n - (self.average or 0)))
                raise UserError(
                    f"downsample@{self.average}: no picture of {self.average} patches has nearly the shape of "
                    f"{geometry.grid[0]} x {geometry.grid[1]}. The nearest is downsample@{nearest}"
                )
            rows, cols = shape
        assert rows is not None and cols is not None, "held by __post_init__"
        if rows > geometry.grid[0] or cols > geometry.grid[1]:
            raise UserError(
                f"downsample: {rows} x {cols} patches are more than the {geometry.grid[0]} x {geometry.grid[1]} of "
                "the picture; ask for at most that many"
            )
        return self._solved(rows=rows, cols=cols)

    def counts(self) -> tuple[int, ...] | None:
        assert self.rows is not None and self.cols is not None, "solve() first"
        return (self.rows * self.cols,)

    def decide(self, point: Point) -> Decision:
        assert self.rows is not None and self.cols is not None, "solve() first"
        if (self.rows, self.cols) == point.grid:
            return Decision(torch.ones_like(point.kept), count=self.rows * self.cols)
        cells = torch.tensor(middle_cells(self.rows, self.cols, point.grid))
        tokens = point.vision.encode_resized(self.rows, self.cols)
        return placed(tokens, cells.to(point.kept.device, non_blocking=True), point.hidden)
