"""How tokens are spread: over questions, after every prune point, by benchmark and by category.

Questions weigh alike, whatever their benchmark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from atp_eval.analysis.tokens import Entering

BINS = 24
DECILES = np.arange(11) / 10
QUANTILES = (0.05, 0.95)  # nine questions in ten lie between


@dataclass(frozen=True)
class Histogram:
    """Of visual tokens over questions. deciles: least, then every tenth of the questions, then most (11 values).

    edges: bins + 1, rising. shares: of the questions, in [0, 1], in each bin. middle: within it lie nine questions in
    ten, 5 to 95 %.
    """

    mean: float
    deciles: tuple[float, ...]
    edges: tuple[float, ...]
    shares: tuple[float, ...]
    middle: tuple[float, float]

    @property
    def varies(self) -> bool:
        """Whether questions differ."""
        return self.deciles[0] < self.deciles[-1]


@dataclass(frozen=True)
class Average:
    """Mean tokens of some questions: entering a layer, averaged over all layers, and entering after each prune point.

    category: "" for all questions of the benchmark.
    """

    benchmark: str
    category: str
    questions: int
    tokens: float
    points: tuple[float, ...]


@dataclass(frozen=True)
class TokenUse:
    """What a method's tokens came to. layers: P prune points, those before which some question loses tokens.

    question: a question's average over layer inputs. points: what enters each of `layers`. averages: of every
    benchmark, and of its categories where it has several.
    """

    label: str
    is_reference: bool
    layers: tuple[int, ...]
    question: Histogram
    points: tuple[Histogram, ...]
    averages: tuple[Average, ...]

    @property
    def varies(self) -> bool:
        """Whether questions differ in their tokens at any layer."""
        return any(point.varies for point in self.points)


class Asked(NamedTuple):
    """A method's tokens on a benchmark, and of all its questions the category."""

    tokens: Entering
    category: pd.Series[Any]


def token_use(label: str, is_reference: bool, found: Mapping[str, Asked]) -> TokenUse | None:
    """Of a method by benchmark; None where no question has a picture, or models of different depth are mixed."""
    if not found or len({asked.tokens.layers for asked in found.values()}) > 1:
        return None
    layers = sorted({layer for asked in found.values() for layer in pruning(asked.tokens)})
    columns = {name: tabled(asked.tokens, layers) for name, asked in found.items()}
    question, *points = (histogram(column) for column in np.concatenate(list(columns.values())).T)
    means = [m for name, asked in found.items() for m in averages(name, columns[name], asked)]
    return TokenUse(label, is_reference, tuple(layers), question, tuple(points), tuple(means))


def pruning(tokens: Entering) -> Iterator[int]:
    """The layers before which some question loses tokens."""
    before = tokens.full
    for start, entering in zip(tokens.starts, tokens.tokens.T, strict=True):
        if (entering != before).any():
            yield start
        before = entering


def averages(benchmark: str, columns: NDArray[np.float64], asked: Asked) -> Iterator[Average]:
    """Of a benchmark, and of its categories where it has several."""
    groups = asked.category.iloc[asked.tokens.rows].fillna("").astype(str).to_numpy()
    codes, names = pd.factorize(groups, sort=True)
    yield average(benchmark, "", columns)
    for code, name in enumerate(names):
        if name and len(names) > 1:
            yield average(benchmark, str(name), columns[codes == code])


def average(benchmark: str, category: str, columns: NDArray[np.float64]) -> Average:
    """Of some questions."""
    tokens, *points = columns.mean(0).tolist()
    return Average(benchmark, category, len(columns), tokens, tuple(points))


def tabled(tokens: Entering, layers: Sequence[int]) -> NDArray[np.float64]:
    """[n, 1 + P]: average over layer inputs, and tokens that enter each of `layers`."""
    return np.stack([tokens.averages, *(tokens.at(layer) for layer in layers)], axis=1)


def histogram(values: NDArray[np.float64]) -> Histogram:
    """Of one value a question. Whole numbers get bins of whole numbers."""
    low, high = float(values.min()), float(values.max())
    if (values == values.round()).all():
        step = math.ceil((high - low + 1) / BINS)
        edges = np.arange(low, high + step + 1, step) - 0.5
    else:
        edges = np.linspace(low, high, BINS + 1) if low < high else np.array([low - 0.5, low + 0.5])
    shares = np.histogram(values, edges)[0] / len(values)
    deciles = np.quantile(values, DECILES, method="inverted_cdf")
    low, high = np.quantile(values, QUANTILES)
    told = [tuple(column.tolist()) for column in (deciles, edges, shares)]
    return Histogram(float(values.mean()), told[0], told[1], told[2], (float(low), float(high)))


def tokens_frame(found: Sequence[TokenUse]) -> pd.DataFrame:
    """One row a method, prune point (none: the average over layer inputs) and group of questions, with its mean; of all
    questions together ("all") the deciles as well."""
    rows: list[dict[str, object]] = []
    for use in found:
        for layer, told in [(None, use.question), *zip(use.layers, use.points, strict=True)]:
            where = {"method": use.label, "benchmark": "all", "category": None, "first_layer": layer}
            deciles = {f"q{round(100 * q):02d}": value for q, value in zip(DECILES, told.deciles, strict=True)}
            questions = sum(a.questions for a in use.averages if not a.category)
            rows.append({**where, "questions": questions, "tokens": told.mean, **deciles})
        for a in use.averages:
            for layer, tokens in [(None, a.tokens), *zip(use.layers, a.points, strict=True)]:
                where = {"method": use.label, "benchmark": a.benchmark, "category": a.category or None}
                rows.append({**where, "first_layer": layer, "questions": a.questions, "tokens": tokens})
    return pd.DataFrame(rows).astype({"first_layer": "Int64"} if rows else {})
