"""DART from its card, slowly: lists of numbers, loops, one sample, and a real Python set for the order of pivots."""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = Sequence[float]


def l1(vector: Vector) -> float:
    total = 0.0
    for x in vector:
        total += abs(x)
    return total


def cosine(a: Vector, b: Vector) -> float:
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / (max(math.sqrt(sum(x * x for x in a)), 1e-8) * max(math.sqrt(sum(x * x for x in b)), 1e-8))


def largest(vectors: Sequence[Vector], number: int) -> list[int]:
    """Indexes of the largest L1 norms, falling; of equal ones the earlier."""
    return sorted(range(len(vectors)), key=lambda n: (-l1(vectors[n]), n))[:number]


def turns(image: Sequence[int], text: Sequence[int]) -> list[int]:
    """The pivots' places in the order in which the authors' loop meets them."""
    return list(set([*image, *text]))


def dart(
    keys: Sequence[Vector],
    text_keys: Sequence[Vector],
    features: Sequence[Vector],
    text_features: Sequence[Vector],
    count: int,
    start: int = 35,
    rule: str = "code",
) -> list[int]:
    """The visual tokens that stay, rising. Keys of all heads in one vector a token; text is what follows the image."""
    cells = len(keys)
    if count <= 4:
        return sorted(largest(keys, count))
    image = [start + n for n in largest(keys, 4)]
    text = [start + cells + n for n in largest(text_keys, 4)]
    state = {start + n: vector for n, vector in enumerate([*features, *text_features])}
    stay, left = set(image), [start + n for n in range(cells) if start + n not in image]
    pivots = turns(image, text)
    if rule == "paper":  # Eq. 9 and 10: the lowest threshold that lets enough tokens pass
        lowest = {n: min(cosine(state[p], state[n]) for p in pivots) for n in left}
        stay |= set(sorted(left, key=lambda n: (lowest[n], n))[: count - 4])
        return sorted(n - start for n in stay)
    for turn, pivot in enumerate(pivots):
        number = (count - 4) // len(pivots)
        if turn < (count - 4) % len(pivots):
            number += 1
        alike = {n: cosine(state[pivot], state[n]) for n in left}
        found = sorted(left, key=lambda n: (alike[n], n))[:number]
        stay |= set(found)
        left = [n for n in left if n not in found]
    return sorted(n - start for n in stay)


def kept_by_the_code(target: float) -> int:
    """4 pivots stay, and 8 pivots keep ceil(target // 8) each."""
    return 4 + 8 * math.ceil(target // 8)
