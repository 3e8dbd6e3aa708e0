"""Shares of a run's batches: which of them one of several processes answers."""

from __future__ import annotations

from typing import NamedTuple


class Share(NamedTuple):
    """Every `of`-th batch of a benchmark, from `number` on (0 .. of - 1).

    Batches are whole, and the same as those of one process: answers do not depend on how many share the work, and
    questions about one picture stay together. They are dealt out in turn, since neighbours are about equally long.
    """

    number: int = 0
    of: int = 1

    def has(self, batch: int) -> bool:
        """Whether the batch of that number (from 0) is in it."""
        return batch % self.of == self.number

    def __str__(self) -> str:
        return f"share {self.number + 1} of {self.of}"


WHOLE = Share()
