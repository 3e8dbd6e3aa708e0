"""Traces of many samples at once: counts and cells out of `KeepTrace.to_json()` texts without parsing them one by one.

The traces of a method differ in their masks and in how many tokens were merged, and in little else. The first text of a
kind is parsed; of all others with the same bytes around its masks and counts, those are cut out as columns.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from binascii import a2b_base64
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Words = NDArray[np.uint64]
WORD = 8  # bytes
STAGE = re.compile(rb'\[\s*\d+\s*,\s*(?P<merged>\d+)\s*,\s*"(?P<mask>[A-Za-z0-9+/]*={0,2})"\s*\]')
ZERO, NINE, PAD, NOTHING = b"09=A"  # of base64, "A" is six zero bits


class Alike(NamedTuple):
    """Samples with the same grid (rows, columns), decoder layers and prune points.

    rows: [n], where they stand among the texts. starts: S layers before which tokens were removed, rising. merged:
    [n, S], tokens made of several cells. words: [n, S, W] bits of the cells that live on, padded with zeros.
    """

    rows: NDArray[np.intp]
    grid: tuple[int, int]
    layers: int
    starts: tuple[int, ...]
    merged: NDArray[np.int64]
    words: Words

    @property
    def cells(self) -> int:
        """Cells of the grid."""
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> NDArray[np.int64]:
        """[n, S]: visual tokens that enter each of `starts`."""
        return self.merged + count(self.words)


def read_traces(texts: Iterable[str | None]) -> list[Alike]:
    """Every trace, in kinds; missing ones are in none. Raises ValueError for a text that is none, or a mask that does
    not fit its grid."""
    array = pa.array(texts, pa.large_string(), from_pandas=True)
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if len(array) == array.null_count:
        return []
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(array.buffers()[2], dtype=np.uint8)
    lengths = np.diff(offsets)
    left = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
    found = []
    while len(left):
        size = int(lengths[left[0]])
        same = left[lengths[left] == size]
        windows = np.lib.stride_tricks.sliding_window_view(data, size)
        kind, fits = cut_out(windows[offsets[same]])
        found.append(kind._replace(rows=same[fits]))
        left = np.setdiff1d(left, same[fits], assume_unique=True)
    return found


def cut_out(chars: NDArray[np.uint8]) -> tuple[Alike, NDArray[np.bool_]]:
    """Texts of equal length [n, size] -> those that are like the first one (rows still missing), and which they are."""
    text = chars[0].tobytes()
    stages = list(STAGE.finditer(text))
    try:
        data = json.loads(text)
        grid, layers = (int(data["grid"][0]), int(data["grid"][1])), int(data["layers"])
        starts = tuple(int(layer) for layer, _, _ in data["stages"])
    except (ValueError, KeyError, TypeError, IndexError):
        raise ValueError(f"{text[:80]!r} is no trace") from None
    if len(stages) != len(starts):
        raise ValueError(f"{text[:80]!r} is no trace")
    free = np.zeros(len(text), dtype=bool)
    digits = np.zeros(len(text), dtype=bool)
    for stage in stages:
        free[slice(*stage.span("mask"))] = True
        digits[slice(*stage.span("merged"))] = True
    fits = (chars[:, ~(free | digits)] == chars[0, ~(free | digits)]).all(1)
    fits &= ((chars[:, digits] >= ZERO) & (chars[:, digits] <= NINE)).all(1)
    chars = chars[fits]
    size = -(-grid[0] * grid[1] // 8)
    merged = np.zeros((len(chars), len(starts)), dtype=np.int64)
    packed = np.zeros((len(chars), len(starts), size), dtype=np.uint8)
    for s, stage in enumerate(stages):
        for column in range(*stage.span("merged")):
            merged[:, s] = 10 * merged[:, s] + (chars[:, column] - ZERO)
        if (given := len(b64decode(stage["mask"]))) != size:
            raise ValueError(f"a mask of {given} bytes does not fit a grid of {grid[0]} x {grid[1]}")
        packed[:, s] = unpacked(chars[:, slice(*stage.span("mask"))])[:, :size]
    return Alike(np.flatnonzero(fits), grid, layers, starts, merged, as_words(packed)), fits


def unpacked(chars: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Base64 texts of equal length [n, 4 k] -> their bytes [n, 3 k], zeros where they are padded."""
    whole = np.where(chars == PAD, np.uint8(NOTHING), chars)
    return np.frombuffer(a2b_base64(whole.tobytes()), dtype=np.uint8).reshape(len(chars), -1)


def as_words(packed: NDArray[np.uint8]) -> Words:
    """[..., bytes] -> [..., W], padded with zeros."""
    padded = np.zeros((*packed.shape[:-1], -(-packed.shape[-1] // WORD) * WORD), dtype=np.uint8)
    padded[..., : packed.shape[-1]] = packed
    return padded.view(np.uint64)


_HALVES = tuple(np.uint64(int(pattern * (64 // len(pattern)), 2)) for pattern in ("01", "0011", "00001111"))
_ONES, _SHIFTS = np.uint64(int("00000001" * 8, 2)), tuple(np.uint64(n) for n in (1, 2, 4, 56))


def count(words: Words) -> NDArray[np.int64]:
    """[..., W] -> [...]: how many bits are set, added up in parallel within words (Warren, Hacker's Delight, 5-1)."""
    pairs = words - ((words >> _SHIFTS[0]) & _HALVES[0])
    fours = (pairs & _HALVES[1]) + ((pairs >> _SHIFTS[1]) & _HALVES[1])
    eights = (fours + (fours >> _SHIFTS[2])) & _HALVES[2]
    found: NDArray[np.int64] = ((eights * _ONES) >> _SHIFTS[3]).sum(-1).astype(np.int64)
    return found
