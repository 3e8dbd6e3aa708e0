"""DivPrune (arXiv 2503.02175) written from its description, slowly: one image, numbers and loops.

Shares no code with the package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = Sequence[float]


def cosine(a: Vector, b: Vector) -> float:
    """a . b / (|a| |b|)"""
    length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / length


def max_min(d: Sequence[Vector], k: int) -> list[int]:
    """The k tokens that the greedy max-min rule names, in its order, from the distances d[i][j]."""
    n, chosen = len(d), []
    while len(chosen) < k:
        best, best_value = -1, -math.inf
        for i in range(n):
            if i in chosen:
                continue
            against = chosen or [j for j in range(n) if j != i]
            value = min((d[j][i] for j in against), default=0.0)
            if value > best_value:
                best, best_value = i, value
        chosen.append(best)
    return chosen


def divprune(x: Sequence[Vector], k: int) -> list[int]:
    """The k tokens of the projected features x that stay, in the order of choice."""
    return max_min([[1 - cosine(a, b) for b in x] for a in x], k)
