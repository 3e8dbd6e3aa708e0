"""Do methods keep the same tokens? Overlap of kept cells between methods, what is kept of the cells that a question is
about, and where in the picture kept cells lie; each against layers, with what chance alone would give.

A cell counts as kept by a layer that it enters as a token of its own. Tokens made of several cells (merging, pooling,
recycling) stand for no cell and count nowhere here. A sample in which a method has no cell left is left out there.
All questions weigh alike, whatever their benchmark. Intervals come from a bootstrap of pictures.

One pass over the records, a piece at a time (`tally.py`): memory grows with methods, prune points and pictures (up to
a limit), not with samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from atp_eval.analysis.aggregation import Sums
from atp_eval.analysis.cells import Shape, place, shape_of, side_by_side
from atp_eval.analysis.keepmap import TABLE_ONLY, KeepMap
from atp_eval.analysis.question_sums import intervals, ratio
from atp_eval.analysis.reading import Entry, benchmarks_of
from atp_eval.analysis.significance import DESCRIPTIVE_RESAMPLES, Interval
from atp_eval.analysis.tally import Running, Tally

COLUMNS = ["doc_id", "image_id", "trace", "asked_map"]
PIECE = 2**16  # samples times methods that are held at a time
BLOCK = 2048  # means that are resampled at a time
ALL_ALIKE = 1e-9


class Compared(NamedTuple):
    """A share in [0, 1], what chance gives with as many cells, and the difference of the two."""

    value: Interval
    chance: float
    gain: Interval


@dataclass(frozen=True)
class Overlap:
    """Jaccard index of two methods' kept cells: those that both keep over those that either keeps, mean over samples.

    starts: layers; from each on, until the next, holds the value at the same place of `values`. samples: that both
    methods answered. Chance: both draw as many cells as they keep at random.
    """

    first: str
    second: str
    samples: int
    starts: tuple[int, ...]
    values: tuple[Compared, ...]

    def at(self, layer: int) -> Compared:
        """What enters a layer."""
        return self.values[place(self.starts, [layer])[0]]


@dataclass(frozen=True)
class Place:
    """Where a method's cells lie. starts: as in Overlap, for all that follows.

    kept: mean share of all cells, in [0, 1], over `samples`. row, column: mean place of kept cells in the picture, 0
    top or left, 1 bottom or right, 0.5 without any bias. recall: share of the cells asked about that is kept, over the
    `asked` samples where they are known and there are some, none otherwise; chance is the share of all cells.
    merged: whether some of the method's tokens stand for no cell.
    """

    label: str
    samples: int
    asked: int
    starts: tuple[int, ...]
    kept: tuple[float, ...]
    row: tuple[Interval, ...]
    column: tuple[Interval, ...]
    recall: tuple[Compared, ...]
    merged: bool

    def span(self, layer: int) -> int:
        """The place in `row`, `column` and `recall` of what enters a layer."""
        return int(place(self.starts, [layer])[0])


@dataclass(frozen=True)
class Agreement:
    """Of pruning methods; the unpruned model keeps everything and is not among them.

    groups: labels that are compared with each other. pictures: how many there are. asked_row, asked_column: mean place
    of the cells that questions are about, as in Place; None where nobody knows them. maps: where cells stay.
    """

    shape: Shape
    pictures: int
    groups: tuple[tuple[str, ...], ...]
    overlaps: tuple[Overlap, ...]
    places: tuple[Place, ...]
    asked_row: Interval | None
    asked_column: Interval | None
    maps: tuple[KeepMap, ...] = field(default=(), metadata=TABLE_ONLY)

    def overlap(self, first: str, second: str) -> Overlap | None:
        """Of two methods in any order; None where no sample tells."""
        return self._pairs.get(frozenset((first, second)))

    def place(self, label: str) -> Place | None:
        """Of a method; None where no sample tells."""
        return next((p for p in self.places if p.label == label), None)

    @cached_property
    def _pairs(self) -> dict[frozenset[str], Overlap]:
        return {frozenset((o.first, o.second)): o for o in self.overlaps}


def measure_agreement(
    pieces: Iterable[tuple[str, Mapping[str, pd.DataFrame]]],
    groups: Sequence[Sequence[str]],
    *,
    resamples: int = DESCRIPTIVE_RESAMPLES,
    seed: int = 0,
) -> Agreement | None:
    """Measure methods against each other; None where no sample has a trace.

    pieces: a benchmark with rows (COLUMNS) of the same documents by label, as `agreement_rows` gives them.
    groups: labels of pruning methods; those of a group are compared with each other. A trace of another shape than the
    first one is left out.
    """
    tally: Tally | None = None
    for benchmark, frames in pieces:
        if tally is None:
            shape = shape_of(text for frame in frames.values() for text in frame["trace"])
            if shape is None:
                continue
            tally = Tally(shape, groups)
        tally.add(benchmark, frames)
    if tally is None:
        return None
    found = resampled(dict(parts_of(tally)), resamples, seed)

    def compared(kind: str, labels: tuple[str, ...], spans: int) -> tuple[Compared, ...]:
        both = [(found[kind, labels, s, 0], found[kind, labels, s, 1]) for s in range(spans)]
        return tuple(Compared(value, value.value - gain.value, gain) for value, gain in both)

    places, overlaps = [], []
    for label, running in tally.places.items():
        if not running.samples:
            continue
        asked, spans = tally.recalls[label].samples, len(running.starts)
        places.append(
            Place(
                label=label,
                samples=running.samples,
                asked=asked,
                starts=running.starts,
                row=tuple(found["place", (label,), s, 0] for s in range(spans)),
                column=tuple(found["place", (label,), s, 1] for s in range(spans)),
                kept=tuple(found["place", (label,), s, 2].value for s in range(spans)),
                recall=compared("recall", (label,), spans) if asked else (),
                merged=label in tally.merged,
            )
        )
    for pair, running in tally.pairs.items():
        if running.samples:
            values = compared("overlap", pair, len(running.starts))
            overlaps.append(Overlap(*pair, running.samples, running.starts, values))
    row, column = (found["asked", (), 0, k] for k in (0, 1))
    return Agreement(
        shape=tally.shape,
        pictures=len(tally.codes),
        groups=tuple(map(tuple, groups)),
        overlaps=tuple(overlaps),
        places=tuple(places),
        asked_row=row if tally.asked.samples else None,
        asked_column=column if tally.asked.samples else None,
        maps=tuple(m for label, counts in tally.maps.items() if (m := counts.map(label))),
    )


Key = tuple[str, tuple[str, ...], int, int]  # what of whom, in which span, which column


def parts_of(tally: Tally) -> Iterator[tuple[Key, Sums]]:
    """Every mean as a function of sums over clusters."""
    kinds: dict[str, dict[tuple[str, ...], Running]] = {
        "overlap": {pair: running for pair, running in tally.pairs.items()},
        "place": {(label,): running for label, running in tally.places.items()},
        "recall": {(label,): running for label, running in tally.recalls.items()},
        "asked": {(): tally.asked},
    }
    for kind, runs in kinds.items():
        for labels, running in runs.items():
            for s, k in product(range(len(running.starts)), range(running.sums.shape[-1] - 1)):
                sums = np.zeros((tally.clusters, 2))
                sums[: len(running.sums)] = running.sums[:, s, [k, -1]]
                yield (kind, labels, s, k), Sums(sums, lambda t: ratio(t[..., 0], t[..., 1]))


def resampled(parts: Mapping[Key, Sums], resamples: int, seed: int) -> dict[Key, Interval]:
    """`intervals` of many parts, some at a time; every block sees the same draws of clusters.

    What is the same for every sample has no interval, though sums of it differ in their last digits.
    """
    keys = list(parts)
    found: dict[Key, Interval] = {}
    for start in range(0, len(keys), BLOCK):
        found |= intervals({key: parts[key] for key in keys[start : start + BLOCK]}, resamples, seed)
    return {key: Interval(i.value) if i.high - i.low < ALL_ALIKE else i for key, i in found.items()}


def agreement_rows(methods: Sequence[Entry]) -> Iterator[tuple[str, dict[str, pd.DataFrame]]]:
    """What `measure_agreement` reads of run folders: of each benchmark, pieces with the same documents of all."""
    size = max(1, PIECE // max(1, len(methods)))
    for name in benchmarks_of(methods):
        pieces = {e.label: e.pieces(name, COLUMNS, size) for e in methods if name in e.results}
        for frames in side_by_side(pieces):
            yield name, frames
