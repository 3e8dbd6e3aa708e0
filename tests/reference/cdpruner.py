"""CDPruner (arXiv 2506.10967) written from its description, slowly: one image, numbers and loops.

Shares no code with the package. Where the authors' code makes NaN, the rule of the package's docstring is followed.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

Vector = Sequence[float]


def cosine(a: Vector, b: Vector) -> float:
    """0 where either is zero."""
    length = math.sqrt(dot(a, a)) * math.sqrt(dot(b, b))
    return dot(a, b) / length if length else 0.0


def llm_relevance(visual: Sequence[Vector], text: Sequence[Vector]) -> list[float]:
    """The mean over the text tokens of their cosine with each visual token."""
    return [sum(cosine(v, t) for t in text) / len(text) for v in visual]


def min_max(r: Vector) -> list[float]:
    """Of one image; all 1 where all are equal."""
    if max(r) == min(r):
        return [1.0] * len(r)
    return [(x - min(r) + 1e-6) / (max(r) - min(r)) for x in r]


def kernel(x: Sequence[Vector], r: Vector) -> list[list[float]]:
    """L[i][j] = q_i cos(x_i, x_j) q_j"""
    q = min_max(r)
    return [[q[i] * cosine(x[i], x[j]) * q[j] for j in range(len(x))] for i in range(len(x))]


def greedy_map(kernel: Sequence[Vector], t: int) -> list[int]:
    """Incremental Cholesky: c[i] grows by one number a turn, d[i] is what is left of kernel[i][i]."""
    n = len(kernel)
    d, c = [kernel[i][i] for i in range(n)], [[] for _ in range(n)]
    chosen: list[int] = []
    while len(chosen) < t:
        rest = [i for i in range(n) if i not in chosen]
        free = [i for i in rest if d[i] > sys.float_info.epsilon * n * kernel[i][i]]
        if free:
            j = max(free, key=lambda i: d[i])  # the first of equal ones
            for i in rest:
                e = (kernel[j][i] - dot(c[j], c[i])) / math.sqrt(d[j])
                if i != j:
                    c[i].append(e)
                    d[i] -= e * e
        else:
            j = max(rest, key=lambda i: kernel[i][i])
        chosen.append(j)
    return chosen


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
