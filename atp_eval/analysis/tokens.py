"""Visual tokens of many samples: averages in every convention and tokens per layer, read from stored KeepTraces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atp_eval.analysis.traces import Alike

Vector = NDArray[np.float64]


class TokenAverages(NamedTuple):
    """Mean visual tokens a sample.

    input: entering a layer, averaged over all decoder layers, the convention used throughout; output: leaving a layer;
    final: entering the last layer; full: of the unpruned grid.
    """

    input: float
    output: float
    final: float
    full: float


@dataclass(frozen=True)
class TokenStats:
    """Tokens of samples with an image.

    samples: how many. averages: means over them. mean, low, high: [layers], tokens that enter each layer: mean,
    least and most over samples.
    """

    samples: int
    averages: TokenAverages
    mean: Vector
    low: NDArray[np.int64]
    high: NDArray[np.int64]


@dataclass(frozen=True)
class Entering:
    """Tokens of n samples with an image.

    layers: decoder layers. starts: S layers, rising from 0. rows: [n], where the samples stand among all. full: [n],
    tokens of the unpruned grid. tokens: [n, S], what enters each of `starts`, and the layers from there to the next.
    """

    layers: int
    starts: tuple[int, ...]
    rows: NDArray[np.intp]
    full: NDArray[np.int32]
    tokens: NDArray[np.int32]

    @property
    def spans(self) -> NDArray[np.intp]:
        """[layers]: which of `starts` each layer belongs to."""
        return np.searchsorted(self.starts, np.arange(self.layers), side="right") - 1

    @property
    def lengths(self) -> NDArray[np.intp]:
        """[S]: how many layers there are from each of `starts` on."""
        return np.bincount(self.spans, minlength=len(self.starts))

    @property
    def averages(self) -> Vector:
        """[n]: tokens that enter a layer, averaged over all layers."""
        return self.tokens @ self.lengths / self.layers

    def at(self, layer: int) -> NDArray[np.int32]:
        """[n]: tokens that enter a layer."""
        return self.tokens[:, self.spans[layer]]


def entering(kinds: Sequence[Alike]) -> Entering | None:
    """Of traces; None where none has an image. Raises ValueError where samples differ in their number of layers."""
    kinds = [kind for kind in kinds if kind.cells]
    if len({kind.layers for kind in kinds}) > 1:
        raise ValueError("samples of models with different numbers of layers cannot be averaged")
    if not kinds:
        return None
    starts = tuple(sorted({0}.union(*(kind.starts for kind in kinds))))
    parts = []
    for kind in kinds:
        known = np.concatenate([np.full((len(kind.rows), 1), kind.cells), kind.tokens], axis=1)
        parts.append(known[:, np.searchsorted(kind.starts, starts, side="right")])
    rows = np.concatenate([kind.rows for kind in kinds])
    full = np.concatenate([np.full(len(kind.rows), kind.cells, dtype=np.int32) for kind in kinds])
    order = np.argsort(rows)
    return Entering(kinds[0].layers, starts, rows[order], full[order], np.concatenate(parts)[order].astype(np.int32))


def token_stats(found: Entering | None) -> TokenStats | None:
    """Averages over samples; None without any."""
    if found is None:
        return None
    mean, low, high = (
        f(found.tokens, axis=0)[found.spans].astype(kind)
        for f, kind in ((np.mean, np.float64), (np.min, np.int64), (np.max, np.int64))
    )
    leaving = np.append(mean[1:], mean[-1])
    averages = TokenAverages(float(mean.mean()), float(leaving.mean()), float(mean[-1]), float(found.full.mean()))
    return TokenStats(len(found.rows), averages, mean, low, high)


def combine(parts: Sequence[TokenStats]) -> TokenStats | None:
    """Several benchmarks together, weighing alike; None without any, or where their numbers of layers differ."""
    if not parts or len({len(p.mean) for p in parts}) > 1:
        return None
    averages = TokenAverages(*np.mean([p.averages for p in parts], axis=0).tolist())
    return TokenStats(
        sum(p.samples for p in parts),
        averages,
        np.mean([p.mean for p in parts], axis=0),
        np.min([p.low for p in parts], axis=0),
        np.max([p.high for p in parts], axis=0),
    )
