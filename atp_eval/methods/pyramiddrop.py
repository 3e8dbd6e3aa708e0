"""PyramidDrop: keep a share of the visual tokens, and the same share of those again, stage by stage.

Xing et al., "PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy Reduction", CVPR
2025 (https://arxiv.org/abs/2410.17247).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from atp_eval.cost.scorer import Prompt, coming_row
from atp_eval.errors import UserError
from atp_eval.methods.base import Geometry
from atp_eval.methods.budget import average_input, check_average
from atp_eval.methods.decision import Decision, keep_top
from atp_eval.methods.point import Point
from atp_eval.methods.stages import Stages, scale_layers

PUBLISHED_LAYERS, PUBLISHED_RATIO = (8, 16, 24), 0.5
BUDGET_LAYERS = (2, 8, 16)  # an author's advice for small budgets, which 8, 16, 24 cannot reach


def pyramid(ratio: float, stages: int, cells: int) -> tuple[int, ...]:
    """Tokens after each stage: int(cells * ratio^j) for j = 1, 2, ..., cut off, of the unpruned number, at least 1."""
    return tuple(max(1, int(cells * ratio**j)) for j in range(1, stages + 1))


def solve_ratio(average: float, layers: Sequence[int], geometry: Geometry) -> float:
    """The lambda whose counts before `layers` have the input average nearest to `average`; 0 to 1.

    The average rises with lambda in steps of a token or so: bisection finds the step across the budget, and the nearer
    of its two sides is taken, the smaller one if both are as near.
    """

    def off(ratio: float) -> float:
        return average_input(geometry, layers, pyramid(ratio, len(layers), geometry.cells)) - average

    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if off(middle) <= 0 else (low, middle)
    return low if abs(off(low)) <= abs(off(high)) else high


@dataclass(frozen=True, kw_only=True)
class PyramidDrop(Stages):
    """Before `layers[j]` keep int(V * ratio^(j + 1)) of the V visual tokens, those that the last prompt token looks at.

    ratio: the paper's lambda (a reserved word in Python); without a budget 1/2 as published: 50, 25 and 12.5 % before
        layers 8, 16 and 24 of 32, 270 tokens on average. A model of another depth gets its layers scaled (the
        authors take 8, 16, 24 of 40 too: layers=8-16-24). A count never falls to 0, which their code would allow.
    keep: the counts themselves instead.

    The score is the attention in the layer that is about to be entered (its norm, projections and RoPE at the current
    places), mean over heads; the tokens that stay are in raster order and numbered without gaps, text included. All of
    this is the authors' code. The paper speaks of the last instruction token; its code takes the last token of the
    whole prompt (the ":" of "ASSISTANT:"), and so does this. That code rounds probabilities to the model's half
    precision before the mean over heads, where ties are common; here they stay in fp32, and of equal ones the earlier
    token stays.

    The authors publish no lists for other budgets; one of them advises to move the layers, for instance to 2, 8, 16,
    and to solve for lambda (their repository, issue 29). `pyramiddrop@144` does that: scaled layers 2, 8, 16 unless
    `layers` says otherwise, and the lambda whose input average is nearest (about 0.46 for 144 on 32 layers).
    """

    name: ClassVar[str] = "pyramiddrop"
    ratio: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise UserError(f"pyramiddrop: ratio={self.ratio} must be above 0 and at most 1")
        if self.ratio is not None and (self.keep is not None or self.average is not None):
            raise UserError(f"pyramiddrop: ratio={self.ratio} goes without a budget and without keep; they set it")

    def solve(self, geometry: Geometry) -> PyramidDrop:
        published = PUBLISHED_LAYERS if self.average is None else BUDGET_LAYERS
        layers = self.layers or scale_layers(published, geometry.num_layers)
        keep = self.keep
        if keep is None:
            keep = pyramid(self._ratio(layers, geometry), len(layers), geometry.cells)
        self._check(layers, keep, geometry)
        return self._solved(layers=layers, keep=keep, ratio=None)

    def _ratio(self, layers: tuple[int, ...], geometry: Geometry) -> float:
        if self.average is None:
            return self.ratio or PUBLISHED_RATIO
        check_average(self.name, self.average, geometry)
        self._check(layers, [1] * len(layers), geometry)
        lowest = average_input(geometry, layers, [1] * len(layers))
        if self.average < lowest - 0.5:
            self._refuse(math.ceil(lowest), layers, geometry)
        return solve_ratio(self.average, layers, geometry)

    def decide(self, point: Point) -> Decision:
        assert self.layers is not None and self.keep is not None, "solve() first"
        return keep_top(point.coming_row(), self.keep[self.layers.index(point.layer)])

    def counts(self) -> tuple[int, ...]:
        assert self.keep is not None, "solve() first"
        return self.keep

    def scorer_flops(self, prompt: Prompt) -> int:
        return sum(coming_row(prompt, layer) for layer in self.prune_layers)
