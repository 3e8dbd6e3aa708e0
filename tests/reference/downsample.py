"""Where the tokens of a smaller picture go, slowly."""

from __future__ import annotations

import math


def middles(rows: int, cols: int, grid: tuple[int, int]) -> list[int]:
    """Cut the grid into equal parts; of each the cell that holds its centre (the later one where two share it)."""
    cells = []
    for i in range(rows):
        for j in range(cols):
            row, col = (i + 0.5) * grid[0] / rows, (j + 0.5) * grid[1] / cols
            cells.append(math.floor(row + 1e-9) * grid[1] + math.floor(col + 1e-9))
    return cells


def shape(tokens: int, grid: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns whose patches are stretched least against the full picture's, and at most twofold."""
    best, least = None, 2.0 + 1e-12
    for rows in range(1, grid[0] + 1):
        for cols in range(1, grid[1] + 1):
            height, width = grid[0] / rows, grid[1] / cols
            stretch = max(height / width, width / height)
            if rows * cols == tokens and stretch < least - (0 if best is None else 1e-12):
                best, least = (rows, cols), stretch
    return best
