"""SparseVLM (arXiv 2410.04417) as its authors' code runs, slowly: numbers and loops, one sample, one token at a time.

Written from a description of that code; shares no code with the package. Noise on densities is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from atp_eval.methods import Decision

Vector = Sequence[float]


def raters(visual: Sequence[Vector], text: Sequence[Vector]) -> list[bool]:
    """m_t = the mean over visual tokens of softmax over text of v . t; above the mean of m, or all if none is."""
    shares = [0.0] * len(text)
    for v in visual:
        logits = [math.fsum(a * b for a, b in zip(v, t, strict=True)) for t in text]
        powers = [math.exp(x - max(logits)) for x in logits]
        for t, power in enumerate(powers):
            shares[t] += power / math.fsum(powers) / len(visual)
    above = [share > math.fsum(shares) / len(shares) for share in shares]
    return above if any(above) else [True] * len(text)


def clusters(points: Sequence[Vector], number: int) -> tuple[list[int], list[list[int]]]:
    """Density peaks: the centres in falling order of rho * delta, and the members of each one's cluster."""
    everyone = range(len(points))

    def distance(i: int, j: int) -> float:
        squares = math.fsum((a - b) ** 2 for a, b in zip(points[i], points[j], strict=True))
        return math.sqrt(squares) / math.sqrt(len(points[i]))

    table = [[distance(i, j) for j in everyone] for i in everyone]
    farthest = max(max(row) for row in table)
    rho = []
    for i in everyone:
        near = sorted(table[i])[:number]
        rho.append(math.exp(-math.fsum(d * d for d in near) / number))
    delta = []
    for i in everyone:
        denser = [table[i][j] for j in everyone if rho[j] > rho[i]]
        delta.append(min(denser) if denser else farthest)
    centres = sorted(everyone, key=lambda i: -rho[i] * delta[i])[:number]
    members: list[list[int]] = [[] for _ in centres]
    for i in everyone:
        if i in centres:
            members[centres.index(i)].append(i)
        else:
            to_centres = [table[i][centre] for centre in centres]
            members[to_centres.index(min(to_centres))].append(i)
    return centres, members


def stage(scores: Sequence[float], hidden: Sequence[Vector], keep: int) -> tuple[list[int], list[int], list[Vector]]:
    """Places that are kept; places of the clusters' centres; what the clusters become. Tokens in sequence order."""
    tokens = len(scores)
    ranking = sorted(range(tokens), key=lambda i: -scores[i])
    keep = min(keep, tokens - 1)
    dropped = ranking[keep:]
    recycled = dropped[: int(len(dropped) * 0.3) + 1]
    number = int(len(recycled) / 10) + 1
    centres, members = clusters([hidden[i] for i in recycled], number)
    merged = [
        [math.fsum(hidden[recycled[i]][c] for i in group) / len(group) for c in range(len(hidden[0]))]
        for group in members
    ]
    return sorted(ranking[:keep]), [recycled[i] for i in centres], merged


class LiteralSparseVLM:
    """The method for `engine.reference.Reference`, which keeps every token and full attention maps."""

    positions = "contiguous"

    def __init__(self, layers: Sequence[int], keep: Sequence[int]) -> None:
        self.prune_layers, self.keep = tuple(layers), keep
        self.kept: dict[int, list[int]] = {}
        self.merged: dict[int, list[int]] = {}

    def decide(self, point: Any) -> Decision:
        run, keep = point._run, self.keep[self.prune_layers.index(point.layer)]
        image, start, maps = run.image.tolist(), run.start[0].tolist(), run.maps.tolist()
        cells = range(len(image))
        if keep == len(image):
            return Decision(torch.ones(1, len(image), dtype=torch.bool))
        text = range(image[-1] + 1, run.prompt)
        rating = raters([start[slot] for slot in image], [start[slot] for slot in text])
        rows = [slot for slot, rates in zip(text, rating, strict=True) if rates]
        alive = sorted((c for c in cells if run.alive[image[c]]), key=lambda c: int(run.sequence[image[c]]))
        scores = [math.fsum(m[row][image[c]] for m in maps for row in rows) / len(maps) / len(rows) for c in alive]
        hidden = [point._hidden[0, image[c]].tolist() for c in alive]
        kept, centres, merged = stage(scores, hidden, keep)

        self.kept[point.layer] = sorted(alive[i] for i in kept)
        self.merged[point.layer] = sorted(alive[i] for i in centres)
        values = torch.zeros(1, len(image), len(hidden[0]), dtype=torch.float64)
        order = torch.zeros(1, len(image), dtype=torch.long)
        for place, i in enumerate([*kept, *centres]):
            order[0, alive[i]] = place
        for i, value in zip(centres, merged, strict=True):
            values[0, alive[i]] = torch.tensor(value, dtype=torch.float64)
        return Decision(
            torch.tensor([[c in self.kept[point.layer] for c in cells]]),
            carry=torch.tensor([[c in self.merged[point.layer] for c in cells]]),
            values=values,
            order=order,
        )
