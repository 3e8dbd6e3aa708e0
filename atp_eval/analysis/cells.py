"""Which grid cells stayed in many samples at once: traces as words of bits, several methods side by side in pieces."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from atp_eval.analysis.traces import Words, as_words, read_traces
from atp_eval.records import ASKED_GRID

BLOCK = 256  # masks that are spread out to bits at a time: they stay in a processor's cache


class Shape(NamedTuple):
    """Decoder layers of the LLM, and rows and columns of the visual grid."""

    layers: int
    rows: int
    cols: int

    @property
    def cells(self) -> int:
        """Cells of the grid."""
        return self.rows * self.cols


@dataclass(frozen=True)
class Kept:
    """The cells that live on as tokens of their own in some samples of a method.

    known: [n], whether the sample has a trace of the right shape. starts: S layers, rising from 0; from each of them
    on, until the next, the cells are the same. words: [n, S, W] bits of the cells, padded with zeros.
    merged: whether some sample has tokens that stand for no single cell.
    """

    known: NDArray[np.bool_]
    starts: tuple[int, ...]
    words: Words
    merged: bool

    def at(self, starts: Iterable[int]) -> Words:
        """[n, len(starts), W]: the cells from other layers on."""
        return self.words[:, place(self.starts, starts)]


def place(starts: Iterable[int], layers: Iterable[int]) -> NDArray[np.intp]:
    """For each layer, which of the spans that begin at `starts` (rising from 0) it lies in."""
    return np.searchsorted(np.array(list(starts)), np.array(list(layers)), side="right") - 1


def shape_of(traces: Iterable[str | None]) -> Shape | None:
    """Of the first of them (`KeepTrace.to_json()` as text); None where there is none."""
    first = next((text for text in traces if isinstance(text, str)), None)
    return Shape(kind.layers, *kind.grid) if first and (kind := read_traces([first])[0]) else None


def read_kept(traces: pd.Series[str], shape: Shape) -> Kept:
    """Traces as text (missing ones are not known) -> their cells. Raises ValueError for a mask of another size."""
    kinds = [kind for kind in read_traces(traces) if (kind.layers, *kind.grid) == shape]
    starts = sorted({0}.union(*(kind.starts for kind in kinds)))
    whole = as_words(np.packbits(np.ones(shape.cells, dtype=bool)))
    words = np.empty((len(traces), len(starts), len(whole)), dtype=np.uint64)
    words[:] = whole
    known = np.zeros(len(traces), dtype=bool)
    for kind in kinds:
        known[kind.rows] = True
        for s, layer in enumerate(kind.starts):
            words[kind.rows, starts.index(layer) :] = kind.words[:, s, None]
    return Kept(known, tuple(starts), words, any(kind.merged.any() for kind in kinds))


def asked_words(texts: pd.Series[str], shape: Shape) -> tuple[NDArray[np.bool_], Words]:
    """Of `asked_map` texts: [n] whether the cells are known on this grid, and [n, W] the cells, none where not."""
    size = -(-shape.cells // 8)
    fits = (shape.rows, shape.cols) == ASKED_GRID
    known = np.array([fits and isinstance(text, str) for text in texts], dtype=bool)
    maps = [b64decode(text) if here else bytes(size) for text, here in zip(texts, known, strict=True)]
    packed = np.frombuffer(b"".join(maps), dtype=np.uint8).reshape(len(maps), size)
    return known, as_words(packed)


def cell_sums(words: Words, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """[..., W] masks and [cells, K] weights -> [..., K]: sums over kept cells, exact where weights are whole."""
    masks = np.ascontiguousarray(words).reshape(-1, words.shape[-1]).view(np.uint8)
    found = np.empty((len(masks), weights.shape[1]))
    for start in range(0, len(masks), BLOCK):
        bits = np.unpackbits(masks[start : start + BLOCK], axis=-1, count=len(weights))
        found[start : start + BLOCK] = bits.astype(np.float32) @ weights
    return found.reshape(*words.shape[:-1], -1)


def side_by_side(pieces: Mapping[str, Iterable[pd.DataFrame]]) -> Iterator[dict[str, pd.DataFrame]]:
    """Frames that rise in doc_id, by name -> the same rows in pieces that hold the same stretch of documents of all."""
    left = {name: iter(found) for name, found in pieces.items()}
    rest: dict[str, pd.DataFrame] = {}
    while True:
        for name in [n for n in left if n not in rest]:
            piece = next((p for p in left[name] if len(p)), None)
            if piece is None:
                del left[name]
            else:
                rest[name] = piece
        if not rest:
            return
        last = min(frame["doc_id"].iloc[-1] for frame in rest.values())
        here = {name: frame[frame["doc_id"] <= last] for name, frame in rest.items()}
        rest = {name: tail for name, frame in rest.items() if len(tail := frame[frame["doc_id"] > last])}
        yield {name: frame for name, frame in here.items() if len(frame)}
