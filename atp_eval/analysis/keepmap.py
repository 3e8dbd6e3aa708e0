"""Where in the picture tokens survive: of every cell of the grid, the share of questions in which it still is a token.

Cells are those of the grid as the model saw the picture, after its processor's crop or padding: of a padded picture
the outer cells show nothing, and of a cropped one they do not show its edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from atp_eval.analysis.cells import Kept, Shape, place

TABLE_ONLY = {"json": False}  # of a field: too long for summary.json, since `keep_rate.csv` holds it
BLOCK = 255  # masks whose bits are added up in bytes


@dataclass(frozen=True)
class KeepMap:
    """A method's map. starts: S layers before which some question loses cells of its own. samples: questions.

    rates: [S, rows, cols], the share in [0, 1] of questions in which a cell enters the layers from there on as a token
    of its own. Its mean over cells is what every cell would have, were they all alike.
    """

    label: str
    samples: int
    starts: tuple[int, ...]
    rates: NDArray[np.float64]

    @property
    def uniform(self) -> NDArray[np.float64]:
        """[S]: the mean rate."""
        return self.rates.mean((1, 2))


class KeepCounts:
    """Adds up masks, in whatever pieces they come."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.samples = 0
        self.starts: tuple[int, ...] = (0,)
        self.counts = np.zeros((1, shape.cells), dtype=np.int64)

    def add(self, kept: Kept) -> None:
        """Some samples of the method; those of another shape are left out."""
        union = tuple(sorted({*self.starts, *kept.starts}))
        counts = bit_sums(kept.words[kept.known], self.shape.cells)
        # A layer that is new on either side has what the layer before it has.
        self.counts = self.counts[place(self.starts, union)] + counts[place(kept.starts, union)]
        self.starts = union
        self.samples += int(kept.known.sum())

    def map(self, label: str) -> KeepMap | None:
        """From the first layer on at which a cell is missing; None where all stay, or there is no sample."""
        if not self.samples:
            return None
        rates = self.counts / self.samples
        # Where nothing changes nothing is said.
        changes = [s for s in range(len(rates)) if (rates[s] != (rates[s - 1] if s else 1.0)).any()]
        if not changes:
            return None
        maps = rates[changes].reshape(len(changes), self.shape.rows, self.shape.cols)
        return KeepMap(label, self.samples, tuple(self.starts[s] for s in changes), maps)


def bit_sums(words: NDArray[np.uint64], cells: int) -> NDArray[np.int64]:
    """[n, S, W] -> [S, cells]: in how many of the n masks each bit is set."""
    total = np.zeros((words.shape[1], cells), dtype=np.int64)
    for start in range(0, len(words), BLOCK):
        packed = np.ascontiguousarray(words[start : start + BLOCK]).view(np.uint8)
        total += np.unpackbits(packed, axis=-1, count=cells).sum(0, dtype=np.uint8)
    return total


def keep_frame(maps: Sequence[KeepMap]) -> pd.DataFrame:
    """One row a method, prune point and cell."""
    frames = [
        pd.DataFrame({**where, "keep_rate": rates.ravel(), "uniform": rates.mean()})
        for found in maps
        for rates, where in zip(found.rates, places(found), strict=True)
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def places(found: KeepMap) -> Iterator[Mapping[str, object]]:
    """What each of a map's rows says besides rates."""
    row, col = np.indices(found.rates.shape[1:]).reshape(2, -1)
    for layer in found.starts:
        yield {"method": found.label, "first_layer": layer, "row": row, "col": col, "samples": found.samples}
