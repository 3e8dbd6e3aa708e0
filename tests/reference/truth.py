"""The controls that know the ground truth, slowly: one sample, lists."""

from __future__ import annotations

from collections.abc import Sequence


def keep(asked: Sequence[int], drawn: Sequence[float], count: int, control: str) -> list[int]:
    """The cells that stay, rising. drawn: a random number a cell; within a group the highest stay."""
    cells = range(len(drawn))
    first = [n for n in cells if (n in asked) == (control == "oracle")]
    then = [n for n in cells if n not in first]
    stay: list[int] = []
    for group in (first, then):
        left = list(group)
        while left and len(stay) < count:
            best = max(left, key=lambda n: (drawn[n], -n))
            stay.append(best)
            left.remove(best)
    return sorted(stay)
