"""VisPruner (arXiv 2412.01818) written from its description, slowly: one image, numbers and loops.

Shares no code with the package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = Sequence[float]


def cls_attention(q: Sequence[Vector], k: Sequence[Sequence[Vector]]) -> list[float]:
    """The mean over heads h of the CLS query's softmax over CLS and patches, patches only; q[h], k[h][token]."""
    found = [0.0] * (len(k[0]) - 1)
    for query, keys in zip(q, k, strict=True):
        weights = [math.exp(dot(query, key) / math.sqrt(len(query))) for key in keys]
        for patch in range(len(found)):
            found[patch] += weights[1 + patch] / sum(weights) / len(q)
    return found


def vispruner(x: Sequence[Vector], s: Vector, t: int, r: float = 0.5) -> tuple[list[int], list[int]]:
    """The important tokens, and the diverse ones that are left of the rest, of features x and CLS attention s."""
    order = sorted(range(len(x)), key=lambda i: (-s[i], i))
    t_imp = int(t * r)
    return order[:t_imp], diverse(x, order[t_imp:], t - t_imp)


def diverse(x: Sequence[Vector], residual: list[int], t_div: int) -> list[int]:
    """Drops, eight at a time, from the even places of the list what is most like something at its odd places."""
    if t_div == 0:
        return []
    while len(residual) > t_div:
        a, b = residual[0::2], residual[1::2]
        q = min(8, len(residual) - t_div, len(a))
        score = {i: max(dot(x[i], x[j]) / math.sqrt(dot(x[i], x[i]) * dot(x[j], x[j])) for j in b) for i in a}
        a.sort(key=lambda i: -score[i])  # stable
        residual = a[q:] + b
    return residual


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
