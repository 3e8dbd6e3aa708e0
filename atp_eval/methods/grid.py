"""A uniform grid of tokens: the control that looks at neither the image nor the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from atp_eval.cost.scorer import Prompt
from atp_eval.methods.decision import Decision
from atp_eval.methods.point import Point
from atp_eval.methods.single import SinglePoint


def spread(count: int, length: int) -> list[int]:
    """`count` different places of 0..length-1, evenly spread: the middles of `count` equal parts."""
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]


def uniform_cells(count: int, grid: tuple[int, int]) -> list[int]:
    """`count` cells of the grid (raster indexes, rising), evenly spread over rows and within each row.

    As many rows are used as make the lattice nearest to square; where `count` does not divide, some hold one more.
    """
    rows, cols = grid
    lines = min(rows, count, max(-(-count // cols), round((count * rows / cols) ** 0.5)))
    per_line = [(i + 1) * count // lines - i * count // lines for i in range(lines)]
    return [
        row * cols + col
        for row, number in zip(spread(lines, rows), per_line, strict=True)
        for col in spread(number, cols)
    ]


@lru_cache(maxsize=8)
def uniform_order(grid: tuple[int, int]) -> Sequence[int]:
    """All cells in an order whose every beginning is spread out: each next cell is the one farthest from those before.

    Starts in the middle; of equally far cells the first in raster order comes next. Nested, so that a schedule can
    prune such a grid further.
    """
    rows, cols = grid
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).to(torch.float64)
    order = [rows // 2 * cols + cols // 2]
    nearest = torch.full((rows * cols,), float("inf"), dtype=torch.float64)
    while len(order) < rows * cols:
        nearest = torch.minimum(nearest, (places - places[order[-1]]).square().sum(1))
        order.append(int(nearest.argmax()))
    return tuple(order)


def uniform_scores(grid: tuple[int, int]) -> Tensor:
    """[cells], higher is earlier in `uniform_order`."""
    order = torch.tensor(uniform_order(grid))
    return torch.empty(len(order), dtype=torch.float64).scatter(0, order, torch.arange(len(order), 0.0, -1).double())


@dataclass(frozen=True, kw_only=True)
class Grid(SinglePoint):
    """Keep `keep` tokens on a uniform 2-D grid, the same for every image."""

    name: ClassVar[str] = "grid"

    @property
    def reads_question(self) -> bool:
        return False

    @property
    def early(self) -> bool:
        return True

    def decide(self, point: Point) -> Decision:
        assert self.keep is not None, "solve() first"
        keep = torch.zeros(point.kept.shape[1], dtype=torch.bool)
        keep[uniform_cells(self.keep, point.grid)] = True
        return Decision(keep.to(point.kept.device, non_blocking=True).expand_as(point.kept), count=self.keep)

    def scorer_flops(self, prompt: Prompt) -> int:
        return 0
