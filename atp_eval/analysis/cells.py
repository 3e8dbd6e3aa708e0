"""Which grid cells stayed in many samples at once: traces as words of bits, several methods side by side in pieces."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from atp_eval.records import ASKED_GRID

Words = NDArray[np.uint64]
WORD = 8  # bytes


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


def shape_of(trace: str) -> Shape:
    """Of a trace (`KeepTrace.to_json()` as text)."""
    data = json.loads(trace)
    return Shape(int(data["layers"]), *(int(n) for n in data["grid"]))


def read_kept(traces: pd.Series[str], shape: Shape) -> Kept:
    """Traces as text (missing ones are not known) -> their cells. Raises ValueError for a mask of another size."""
    # Methods that look at no content have few distinct traces: each is parsed once.
    codes, texts = pd.factorize(traces)
    stages: list[dict[int, bytes]] = []
    fits, merged = np.zeros(len(texts) + 1, dtype=bool), False  # the last one stands for missing traces
    for i, text in enumerate(texts):
        data = json.loads(text)
        fits[i] = [data["layers"], *data["grid"]] == list(shape)
        stages.append({layer: b64decode(packed) for layer, _, packed in data["stages"]} if fits[i] else {})
        merged |= bool(fits[i]) and any(count for _, count, _ in data["stages"])
    starts = sorted({0}.union(*stages))
    whole = np.packbits(np.ones(shape.cells, dtype=bool)).tobytes()
    masks = []
    for stage in (*stages, {}):
        mask = whole
        for layer in starts:
            mask = stage.get(layer, mask)
            masks.append(mask)
    if wrong := next((mask for mask in masks if len(mask) != len(whole)), None):
        raise ValueError(f"a mask of {len(wrong)} bytes does not fit a grid of {shape.rows} x {shape.cols}")
    table = np.frombuffer(b"".join(masks), dtype=np.uint8).reshape(len(texts) + 1, len(starts), len(whole))
    return Kept(fits[codes], tuple(starts), as_words(table)[codes], merged)


def as_words(packed: NDArray[np.uint8]) -> Words:
    """[..., bytes] -> [..., W], padded with zeros."""
    padded = np.zeros((*packed.shape[:-1], -(-packed.shape[-1] // WORD) * WORD), dtype=np.uint8)
    padded[..., : packed.shape[-1]] = packed
    return padded.view(np.uint64)


def asked_words(texts: pd.Series[str], shape: Shape) -> tuple[NDArray[np.bool_], Words]:
    """Of `asked_map` texts: [n] whether the cells are known on this grid, and [n, W] the cells, none where not."""
    size = -(-shape.cells // 8)
    fits = (shape.rows, shape.cols) == ASKED_GRID
    known = np.array([fits and isinstance(text, str) for text in texts], dtype=bool)
    maps = [b64decode(text) if here else bytes(size) for text, here in zip(texts, known, strict=True)]
    packed = np.frombuffer(b"".join(maps), dtype=np.uint8).reshape(len(maps), size)
    return known, as_words(packed)


_HALVES = tuple(np.uint64(int(pattern * (64 // len(pattern)), 2)) for pattern in ("01", "0011", "00001111"))
_ONES, _SHIFTS = np.uint64(int("00000001" * 8, 2)), tuple(np.uint64(n) for n in (1, 2, 4, 56))


def count(words: Words) -> NDArray[np.int64]:
    """[..., W] -> [...]: how many bits are set, added up in parallel within words (Warren, Hacker's Delight, 5-1)."""
    pairs = words - ((words >> _SHIFTS[0]) & _HALVES[0])
    fours = (pairs & _HALVES[1]) + ((pairs >> _SHIFTS[1]) & _HALVES[1])
    eights = (fours + (fours >> _SHIFTS[2])) & _HALVES[2]
    found: NDArray[np.int64] = ((eights * _ONES) >> _SHIFTS[3]).sum(-1).astype(np.int64)
    return found


class CellSums:
    """Sums of weights over kept cells: a table of what each byte of a mask adds, looked up rather than unpacked.

    weights: [cells, K].
    """

    def __init__(self, weights: NDArray[np.float64]) -> None:
        cells, columns = weights.shape
        self.bytes = -(-cells // 8)
        padded = np.zeros((self.bytes * 8, columns))
        padded[:cells] = weights
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)  # (256, 8), first cell first
        self.table = np.einsum("vb,jbk->jvk", bits, padded.reshape(self.bytes, 8, columns))

    def __call__(self, words: Words) -> NDArray[np.float64]:
        """[..., W] -> [..., K]"""
        packed = np.ascontiguousarray(words).view(np.uint8)
        total = np.zeros((*words.shape[:-1], self.table.shape[-1]))
        for j in range(self.bytes):
            total += self.table[j][packed[..., j]]
        return total


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
