"""VisionZip written slowly from its description: one sample, lists, loops, every token on its own.

Shares no code with the package. Vectors are lists of numbers; cells are counted in raster order from 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

Vector = Sequence[float]


class Zipped(NamedTuple):
    """dominant: cells beside CLS, in raster order; targets: cells of the contextual tokens; contextual: the tokens."""

    dominant: list[int]
    targets: list[int]
    contextual: list[list[float]]


def class_attention(queries: Sequence[Sequence[Vector]], keys: Sequence[Sequence[Vector]]) -> list[float]:
    """queries, keys: [heads][1 + V][d], CLS first. A softmax for each head over CLS and patches; then summed."""
    total = [0.0] * len(keys[0])
    for head_query, head_keys in zip(queries, keys, strict=True):
        cls = head_query[0]
        logits = [sum(p * q for p, q in zip(cls, key, strict=True)) / math.sqrt(len(cls)) for key in head_keys]
        largest = max(logits)
        powers = [math.exp(x - largest) for x in logits]
        total = [t + x / sum(powers) for t, x in zip(total, powers, strict=True)]
    return total[1:]


def metric(keys: Sequence[Sequence[Vector]]) -> list[list[float]]:
    """keys: [heads][1 + V][d] -> [V][d], the mean over heads without CLS."""
    return [
        [sum(head[token][c] for head in keys) / len(keys) for c in range(len(keys[0][0]))]
        for token in range(1, len(keys[0]))
    ]


def visionzip(
    features: Sequence[Vector], keys: Sequence[Vector], attention: Vector, dominant: int, contextual: int, rule: str
) -> Zipped:
    """features: [V][C]; keys: [V][d], mean of the heads; attention: [V]; dominant counts CLS, which comes first."""
    cells = range(len(attention))
    high = sorted(sorted(cells, key=lambda cell: (-attention[cell], cell))[: dominant - 1])
    rest = [cell for cell in cells if cell not in high]
    if contextual == 0:
        return Zipped(high, [], [])
    step = max(1, len(rest) // contextual)
    targets = [rest[place] for place in range(0, len(rest), step)][:contextual]
    clusters: dict[int, list[int]] = {target: [] for target in targets}
    for cell in rest:
        if cell not in targets:
            best = targets[0]
            for target in targets[1:]:
                if cosine(keys[cell], keys[target]) > cosine(keys[cell], keys[best]):
                    best = target
            clusters[best].append(cell)
    tokens = []
    for target, cluster in clusters.items():
        total = [sum(features[cell][c] for cell in cluster) for c in range(len(features[0]))]
        if rule == "code":
            tokens.append([own + t / max(len(cluster), 1) for own, t in zip(features[target], total, strict=True)])
        else:
            tokens.append([(own + t) / (1 + len(cluster)) for own, t in zip(features[target], total, strict=True)])
    return Zipped(high, targets, tokens)


def cosine(x: Vector, y: Vector) -> float:
    """0 for a vector of zeros."""
    lengths = math.sqrt(sum(p * p for p in x)) * math.sqrt(sum(q * q for q in y))
    return sum(p * q for p, q in zip(x, y, strict=True)) / lengths if lengths else 0.0
