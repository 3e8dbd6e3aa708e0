"""FastV from its card, slowly: full attention maps of one prompt, without padding, and loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

Map = list[list[list[float]]]  # [heads][queries][keys]


def maps(queries: Sequence[Sequence[Sequence[float]]], keys: Sequence[Sequence[Sequence[float]]]) -> Map:
    """Causal attention of queries [heads][L][d] and keys [groups][L][d], each group read by equally many heads."""
    found: Map = []
    for head, of_head in enumerate(queries):
        group = keys[head * len(keys) // len(queries)]
        rows = []
        for place, query in enumerate(of_head):
            logits = [
                sum(a * b for a, b in zip(query, key, strict=True)) / math.sqrt(len(query))
                for key in group[: place + 1]
            ]
            weights = [math.exp(x - max(logits)) for x in logits]
            rows.append([w / sum(weights) for w in weights] + [0.0] * (len(of_head) - place - 1))
        found.append(rows)
    return found


def received(attention: Map, token: int, rule: str = "code") -> float:
    """By code: from the last row. By the paper's text: on average from every row; the token's own row counts too."""
    last = len(attention[0]) - 1
    rows = [last] if rule == "code" else range(last + 1)
    return sum(head[row][token] for head in attention for row in rows) / (len(attention) * len(rows))


def keep(attention: Map, image: Sequence[int], count: int, rule: str = "code") -> list[int]:
    """The visual tokens that stay, counted from the first one, rising; `image` are their places in the prompt."""
    scores = [received(attention, place, rule) for place in image]
    stay = []
    for n, score in enumerate(scores):
        better = sum(other > score or (other == score and m < n) for m, other in enumerate(scores))
        if better < count:
            stay.append(n)
    return stay


def count(tokens: int, r: float) -> int:
    """round(Lv * (1 - r)); halves go to the even neighbour."""
    exact = tokens * (1 - r)
    below = math.floor(exact)
    if exact - below == 0.5:
        return below if below % 2 == 0 else below + 1
    return below if exact - below < 0.5 else below + 1


def count_for_average(average: float, layer: int, layers: int = 32, tokens: int = 576) -> int:
    """The count whose mean over the inputs of all layers is nearest to `average`."""

    def distance(kept: int) -> float:
        return abs(sum(tokens if i < layer else kept for i in range(layers)) / layers - average)

    return min(range(1, tokens + 1), key=distance)
