"""PyramidDrop (arXiv 2410.17247) as its authors' code runs, slowly: numbers and loops, one sample.

Written from a description of that code; shares no code with the package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from atp_eval.methods import Decision

Vector = Sequence[float]


def counts(ratios: Sequence[float], cells: int) -> list[int]:
    """Of the unpruned number, cut off."""
    return [math.floor(cells * ratio) for ratio in ratios]


def rms_norm(x: Vector, weight: Vector, eps: float) -> list[float]:
    scale = 1 / math.sqrt(math.fsum(a * a for a in x) / len(x) + eps)
    return [a * scale * w for a, w in zip(x, weight, strict=True)]


def project(x: Vector, weight: Sequence[Vector]) -> list[float]:
    return [math.fsum(a * w for a, w in zip(x, row, strict=True)) for row in weight]


def turn(x: Vector, place: int, base: float) -> list[float]:
    """Rotary embedding of one head: element i turns with element i + size / 2."""
    half = len(x) // 2
    angles = [place * base ** (-2 * i / len(x)) for i in range(half)]
    first = [x[i] * math.cos(a) - x[i + half] * math.sin(a) for i, a in enumerate(angles)]
    second = [x[i + half] * math.cos(a) + x[i] * math.sin(a) for i, a in enumerate(angles)]
    return first + second


def last_row(hidden: Sequence[Vector], weights: dict[str, Any], head: int, base: float, eps: float) -> list[float]:
    """What each token of a sequence gets from the last one in a layer that reads `hidden`: the mean over heads.

    Tokens are at places 0, 1, 2, ...; query heads share key heads where there are fewer of those.
    """
    normed = [rms_norm(x, weights["input_layernorm.weight"], eps) for x in hidden]
    query = project(normed[-1], weights["self_attn.q_proj.weight"])
    keys = [project(x, weights["self_attn.k_proj.weight"]) for x in normed]
    heads, groups = len(query) // head, len(keys[0]) // head
    found = [0.0] * len(hidden)
    for h in range(heads):
        q = turn(query[h * head : (h + 1) * head], len(hidden) - 1, base)
        g = h * groups // heads
        logits = []
        for place, key in enumerate(keys):
            k = turn(key[g * head : (g + 1) * head], place, base)
            logits.append(math.fsum(a * b for a, b in zip(q, k, strict=True)) / math.sqrt(head))
        powers = [math.exp(x - max(logits)) for x in logits]
        for place, power in enumerate(powers):
            found[place] += power / math.fsum(powers) / heads
    return found


class LiteralPyramidDrop:
    """The method for `engine.reference.Reference`."""

    positions = "contiguous"

    def __init__(self, layers: Sequence[int], keep: Sequence[int]) -> None:
        self.prune_layers, self.keep = tuple(layers), keep
        self.scores: dict[int, list[float]] = {}

    def decide(self, point: Any) -> Decision:
        run = point._run
        config = run.model.config.text_config
        weights = {name: value.tolist() for name, value in run.layers[point.layer].state_dict().items()}
        slots = [slot for slot in range(run.prompt) if run.alive[slot]]
        hidden = [point._hidden[0, slot].tolist() for slot in slots]
        base = config.rope_parameters["rope_theta"]
        row = dict(zip(slots, last_row(hidden, weights, config.head_dim, base, config.rms_norm_eps), strict=True))
        image = run.image.tolist()
        alive = [cell for cell, slot in enumerate(image) if run.alive[slot]]
        keep = self.keep[self.prune_layers.index(point.layer)]
        best = sorted(alive, key=lambda cell: -row[image[cell]])[:keep]
        self.scores[point.layer] = [row.get(slot, -math.inf) for slot in image]
        return Decision(torch.tensor([[cell in best for cell in range(len(image))]]))
