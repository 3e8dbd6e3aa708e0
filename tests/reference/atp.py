"""ATP-LLaVA (arXiv 2412.00447, Sec. 3.3) written from its text, slowly: numbers, loops and full attention maps.

One sample at a time. Lists of scores hold the survivors only, or one value per cell of the full grid where it says so.
Shares no code with the package. Where the paper leaves something open, the options of the package are followed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from atp_eval.methods import Decision

Map = Sequence[Sequence[Sequence[float]]]  # [heads][queries][keys]


def s_self(logits: Map, visual: Sequence[int], causal: bool = False) -> list[float]:
    """Eq. 3: the mean over the visual queries m of A_logits(v_n, v_m), for each visual token n; heads are averaged."""
    scores = []
    for n in visual:
        queries = [m for m in visual if m >= n or not causal]
        scores.append(mean([logits[h][m][n] for h in range(len(logits)) for m in queries]))
    return scores


def s_cross(maps: Map, visual: Sequence[int], text: Sequence[int]) -> list[float]:
    """Eq. 4: the mean over the text queries m of the probability A(v_n, t_m), for each visual token n."""
    return [mean([maps[h][m][n] for h in range(len(maps)) for m in text]) for n in visual]


def normalise(scores: Sequence[float], norm: str, kind: str) -> list[float]:
    """The scale on which scores meet thresholds, over the survivors."""
    if norm == "minmax":
        low, high = min(scores), max(scores)
        return [(s - low) / (high - low) if high > low else 0.0 for s in scores]
    if norm == "rank":
        others = max(len(scores) - 1, 1)
        places = [[i for i, other in enumerate(sorted(scores)) if other == s] for s in scores]
        return [mean(place) / others for place in places]
    if norm == "zscore" or (norm == "rel" and kind == "self"):
        middle = mean(scores)
        deviation = math.sqrt(mean([(s - middle) ** 2 for s in scores]))
        z = [(s - middle) / deviation if max(scores) > min(scores) else 0.0 for s in scores]
        return z if norm == "zscore" else [sigmoid(x) for x in z]
    if norm == "rel":
        ratios = [s / mean(scores) if mean(scores) > 0 else 0.0 for s in scores]
        return [r / (1 + r) for r in ratios]
    return list(scores)


def s_redundant(own: Sequence[float], cross: Sequence[float], scores: str = "both", mix: float = 0.5) -> list[float]:
    """Sec. 3.3.1: "the average of S_self and S_cross", or one of them (Tab. 5)."""
    weight = {"both": mix, "self": 1.0, "cross": 0.0}[scores]
    return [weight * a + (1 - weight) * b for a, b in zip(own, cross, strict=True)]


def s_spatial(grid: tuple[int, int], lambda_sample: float, strides: Sequence[int]) -> list[float]:
    """Eq. 5: 1 - R * lambda_sample for each cell of the full grid; nested grids, the sparsest that holds it counts."""
    cells = [(row, col) for row in range(grid[0]) for col in range(grid[1])]
    scores = {cell: 0.0 for cell in cells}
    for stride in strides:
        sampled = [(row, col) for row, col in cells if row % stride == 0 and col % stride == 0]
        for cell in sampled:
            scores[cell] = max(scores[cell], 1 - len(sampled) / len(cells) * lambda_sample)
    return [scores[cell] for cell in cells]


def resize(values: Sequence[float], grid: tuple[int, int], to: tuple[int, int] = (24, 24)) -> list[float]:
    """Bilinear, pixels as areas (align_corners=False); cells of the full grid, row by row."""

    def neighbours(i: int, old: int, new: int) -> list[tuple[int, float]]:
        at = max((i + 0.5) * old / new - 0.5, 0.0)
        low = min(int(at), old - 1)
        return [(low, 1 - (at - low)), (min(low + 1, old - 1), at - low)]

    return [
        sum(
            values[r * grid[1] + c] * by_row * by_col
            for r, by_row in neighbours(row, grid[0], to[0])
            for c, by_col in neighbours(col, grid[1], to[1])
        )
        for row in range(to[0])
        for col in range(to[1])
    ]


def thresholds(
    weights: dict[str, Any], own: Sequence[float], cross: Sequence[float], grid: tuple[int, int]
) -> tuple[float, float]:
    """Eq. 6-8: theta_r and theta_s from the scores of the full grid, 0 where a token is gone; weights as lists."""
    if grid != (24, 24):
        own, cross = resize(own, grid), resize(cross, grid)
    z = linear(weights["z.weight"], weights["z.bias"], [*own, *cross])
    (r,) = linear(weights["head_r.weight"], weights["head_r.bias"], z)
    (s,) = linear(weights["head_s.weight"], weights["head_s.bias"], z)
    return sigmoid(r), sigmoid(s)


def soft_mask(
    redundant: Sequence[float], spatial: Sequence[float], theta: tuple[float, float], temperature: float
) -> list[float]:
    """Eq. 9-11."""
    by_redundant = [sigmoid((s - theta[0]) * temperature) for s in redundant]
    by_spatial = [sigmoid((s - theta[1]) * temperature) for s in spatial]
    return [max(pair) for pair in zip(by_redundant, by_spatial, strict=True)]


def keep(
    redundant: Sequence[float], spatial: Sequence[float], theta: tuple[float, float], rules: str = "both"
) -> list[bool]:
    """Sec. 3.3.2: "values below the threshold are directly discarded", by both rules or one (Tab. 4); never all."""
    stay = [
        (r >= theta[0] and rules != "spatial") or (s >= theta[1] and rules != "redundant")
        for r, s in zip(redundant, spatial, strict=True)
    ]
    if not any(stay):
        stay[max(range(len(stay)), key=lambda n: redundant[n])] = True
    return stay


def coordinates(ids: Sequence[int], image: int, grid: tuple[int, int]) -> list[tuple[int, int]]:
    """Sec. 3.3.1, 2-D rotary embedding: (row, column) of each token of one prompt, padding left out.

    The image lies at rows and columns from P on; text goes on after its longer side, equal in both.
    """
    places, following, cell = [], 0, 0
    for token in ids:
        if token == image:
            row, col = divmod(cell, grid[1])
            places.append((following + row, following + col))
            cell += 1
            if cell == grid[0] * grid[1]:
                following += max(grid)
        else:
            places.append((following, following))
            following += 1
    return places


def rotary(places: Sequence[tuple[int, int]], size: int, base: float) -> tuple[Tensor, Tensor]:
    """cos and sin [1, L, size] in fp64: frequency i of size / 2 turns with the row if it is of the faster half."""
    angles = []
    for row, col in places:
        turned = [(row if 2 * i < size // 2 else col) * base ** (-2 * i / size) for i in range(size // 2)]
        angles.append(turned + turned)
    table = torch.tensor([angles], dtype=torch.float64)
    return table.cos(), table.sin()


class LiteralATP:
    """The method for `engine.reference.Reference`, which keeps the full maps; `seen` is what it found on the way.

    static: the thresholds are the adapter's means.
    """

    positions = "1d"

    def __init__(self, adapter: Any, static: bool = False) -> None:
        self.options = adapter.config.options
        self.means = adapter.theta.tolist() if static else None
        self.prune_layers = self.options.layers
        self.weights = [{k: v.tolist() for k, v in module.state_dict().items()} for module in adapter.modules]
        self.seen: dict[int, dict[str, Any]] = {}

    def decide(self, point: Any) -> Decision:
        run, options = point._run, self.options
        image = run.image.tolist()
        alive = [cell for cell, token in enumerate(image) if run.alive[token]]
        visual = [image[cell] for cell in alive]
        text = range(image[-1] + 1, run.prompt)
        raw_self = s_self(run.logits.tolist(), visual, options.causal_self)
        raw_cross = s_cross(run.maps.tolist(), visual, text)
        own = normalise(raw_self, options.score_norm, "self")
        cross = normalise(raw_cross, options.score_norm, "cross")
        index = options.layers.index(point.layer)
        weights = self.weights[index]
        full = [[dict(zip(alive, x, strict=True)).get(cell, 0.0) for cell in range(len(image))] for x in (own, cross)]
        theta = self.means[index] if self.means else thresholds(weights, *full, point.grid)
        mix = sigmoid(weights["mix_logit"][0]) if options.learned_mix else 0.5
        redundant = s_redundant(own, cross, options.scores, mix)
        spatial = s_spatial(point.grid, options.lambda_sample, options.strides)
        stay = keep(redundant, [spatial[cell] for cell in alive], theta, options.rules)
        kept = {cell for cell, stays in zip(alive, stay, strict=True) if stays}
        self.seen[point.layer] = {"alive": alive, "self": raw_self, "cross": raw_cross, "theta": theta}
        return Decision(torch.tensor([[cell in kept for cell in range(len(image))]]))


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def linear(weight: Sequence[Sequence[float]], bias: Sequence[float], x: Sequence[float]) -> list[float]:
    return [math.fsum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
