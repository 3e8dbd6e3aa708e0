"""PruMerge and PruMerge+ written slowly from their description: one sample, lists, loops, every token on its own.

Shares no code with the package. Vectors are lists of numbers; cells are counted in raster order from 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Vector = Sequence[float]


class Merged(NamedTuple):
    """kept: the cells of the kept tokens as the LLM reads them, a cell twice where it is read twice. others: the cells
    of the extra token. tokens: what is read, the extra token last (none if there are no others)."""

    kept: list[int]
    others: list[int]
    tokens: list[list[float]]


def class_attention(queries: Sequence[Sequence[Vector]], keys: Sequence[Sequence[Vector]]) -> list[float]:
    """queries, keys: [heads][1 + V][d], CLS first. Heads side by side, softmax over CLS and patches, CLS left out."""
    query = [x for head in queries for x in head[0]]
    logits = []
    for token in range(len(keys[0])):
        key = [x for head in keys for x in head[token]]
        logits.append(sum(p * q for p, q in zip(query, key, strict=True)) / math.sqrt(len(query)))
    largest = max(logits)
    powers = [math.exp(x - largest) for x in logits]
    return [x / sum(powers) for x in powers][1:]


def outliers(a: Vector) -> int:
    """How many are strictly above the third quartile by more than one and a half times the quartiles' distance."""
    q1, q3 = np.percentile(a, 25), np.percentile(a, 75)
    return sum(x > q3 + 1.5 * (q3 - q1) for x in a)


def highest(a: Vector, count: int) -> list[int]:
    """From the highest down; of equal ones the earlier first."""
    return sorted(range(len(a)), key=lambda cell: (-a[cell], cell))[:count]


def adaptive(a: Vector, plus: bool) -> list[int]:
    """Kept cells at inference; none if there is no outlier."""
    cells, count = len(a), outliers(a)
    if count == 0:
        return []
    top = highest(a, count)
    if not plus:
        return top
    return top + [cell for cell in range(0, cells - 1, cells // count // 3) if cell not in top]


def exact(a: Vector, tokens: int, plus: bool) -> list[int]:
    """Kept cells for `tokens` tokens: one is the extra token, of PruMerge+ half are a line."""
    cells, line = len(a), tokens // 2 if plus else 0
    grid = [math.floor((j + 0.5) * cells / line) for j in range(line)]
    top: list[int] = []
    for cell in highest(a, cells):
        if len(set(top) | set(grid)) == tokens - 1:
            break
        top.append(cell)
    return top + [cell for cell in grid if cell not in top]


def fixed(a: Vector, ratio: float, plus: bool) -> list[int]:
    """Kept cells at a fixed ratio, a cell twice that is both high and on the line."""
    top, step = highest(a, int(len(a) * ratio)), int(1 / ratio)
    return top + (list(range(int(step / 2), len(a) - 1, step)) if plus else [])


def prumerge(
    features: Sequence[Vector], keys: Sequence[Vector], a: Vector, kept: list[int], neighbours: int, rule: str
) -> Merged:
    """features: [V][C]; keys: [V][E], heads side by side; a: [V], attention from CLS; kept: cells, in order."""
    numbers = sorted(0 if cell in kept else cell for cell in range(len(a)))
    others = numbers[len(kept) :]  # as in the authors' code: the lowest others go where `kept` has a cell twice
    tokens = []
    for place, center in enumerate(kept):
        pool = kept[:place] + kept[place + 1 :] + others
        near = sorted(range(len(pool)), key=lambda i: -cosine(keys[center], keys[pool[i]]))[:neighbours]
        cluster = [pool[i] for i in near]
        if rule == "code":
            tokens.append([own + sum(a[j] * features[j][c] for j in cluster) for c, own in enumerate(features[center])])
        else:
            tokens.append(average(features, a, [center, *cluster]))
    if others and rule == "code":
        tokens.append([sum(a[j] * features[j][c] for j in others) for c in range(len(features[0]))])
    elif others:
        tokens.append(average(features, a, others))
    return Merged(kept, others, tokens)


def average(features: Sequence[Vector], a: Vector, cells: Sequence[int]) -> list[float]:
    """The mean of the cells' features, weighted by their attention."""
    total = sum(a[j] for j in cells)
    return [sum(a[j] * features[j][c] for j in cells) / total for c in range(len(features[0]))]


def cosine(x: Vector, y: Vector) -> float:
    """0 for a vector of zeros."""
    lengths = math.sqrt(sum(p * p for p in x)) * math.sqrt(sum(q * q for q in y))
    return sum(p * q for p, q in zip(x, y, strict=True)) / lengths if lengths else 0.0
