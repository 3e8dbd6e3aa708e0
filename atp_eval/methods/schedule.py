"""Fixed-ratio schedules: prune at chosen layers to chosen counts by a chosen score (ATP-LLaVA, Tab. 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from atp_eval.cost.scorer import Prompt, attention_rows, self_score
from atp_eval.errors import UserError
from atp_eval.methods.atp.scores import ScoreNorm, normalise, redundant_score
from atp_eval.methods.base import Geometry, Method
from atp_eval.methods.budget import average_input, check_average, check_keep, check_layer, scale_layer
from atp_eval.methods.decision import Decision, keep_top
from atp_eval.methods.grid import uniform_scores
from atp_eval.methods.point import Point
from atp_eval.methods.random import random_scores

BLIND = ("random", "grid")  # scores that need no attention, so that layer 0 is open to them


@dataclass(frozen=True, kw_only=True)
class Schedule(Method):
    """Before `layers[j]` keep the `keep[j]` best tokens.

    layers: prune points, rising; default is ATP-LLaVA's 4, 14, 24 of 32, scaled to the model's depth.
    keep: counts, falling. With a budget instead the first is solved and each later one is `ratio` of the one before.
    ratio: share that stays at each later prune point (Tab. 2 has 1/2, and 1/3 as "2/3" pruned).
    score: last_row (FastV), cross and self (Eq. 4 and 3), redundant (their mean), random, grid.
    score_norm: the scale on which score=redundant takes the mean (`normalise`).
    seed: for score=random.
    """

    name: ClassVar[str] = "schedule"
    layers: tuple[int, ...] | None = None
    keep: tuple[int, ...] | None = None
    ratio: float = 0.5
    score: Literal["last_row", "cross", "self", "redundant", "random", "grid"] = "last_row"
    score_norm: ScoreNorm = "minmax"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        layers, keep = self.layers, self.keep
        if (keep is None) == (self.average is None):
            raise UserError(
                "schedule needs a budget or counts: write schedule@144 or schedule:layers=1-3-6,keep=126-88-20"
            )
        if not 0 < self.ratio <= 1:
            raise UserError(f"schedule: ratio={self.ratio} must be above 0 and at most 1")
        if self.score_norm != "minmax" and self.score != "redundant":
            raise UserError(f"schedule: score_norm={self.score_norm} is for score=redundant, not score={self.score}")
        if self.seed < 0:
            raise UserError(f"schedule: seed={self.seed} must not be negative")
        if layers is not None and list(layers) != sorted(set(layers)):
            raise UserError(f"schedule: layers={'-'.join(map(str, layers))} must rise")
        if layers is not None and layers[0] < (0 if self.score in BLIND else 1):
            raise UserError(
                f"schedule: score={self.score} needs the attention of the layer before, so layers start at 1"
            )
        if keep is not None and (list(keep) != sorted(keep, reverse=True) or keep[-1] < 1):
            raise UserError(f"schedule: keep={'-'.join(map(str, keep))} must fall and end at 1 or more")
        if keep is not None and layers is not None and len(keep) != len(layers):
            raise UserError(f"schedule: {len(layers)} layers need as many counts in keep, not {len(keep)}")

    @property
    def prune_layers(self) -> tuple[int, ...]:
        assert self.layers is not None, "solve() first"
        return self.layers

    @property
    def reads_question(self) -> bool:
        return self.score not in ("self", "grid")  # the picture stands before the question: its tokens see none of it

    def solve(self, geometry: Geometry) -> Schedule:
        layers = self.layers or tuple(sorted({scale_layer(i, geometry.num_layers) for i in (4, 14, 24)}))
        for layer in layers:
            check_layer(self.name, layer, geometry)
        keep = self.keep or self._counts(layers, geometry)
        if len(keep) != len(layers):
            raise UserError(f"schedule: {len(layers)} layers need as many counts in keep, not {len(keep)}")
        check_keep(self.name, keep[0], geometry)
        return self._solved(layers=layers, keep=keep)

    def _counts(self, layers: tuple[int, ...], geometry: Geometry) -> tuple[int, ...]:
        """The counts of the first stage and its fixed-ratio followers whose average is nearest to the budget."""
        assert self.average is not None
        check_average(self.name, self.average, geometry)
        ladders = []
        for first in range(1, geometry.cells + 1):
            ladder = [first]
            for _ in layers[1:]:
                ladder.append(max(1, round(ladder[-1] * self.ratio)))
            ladders.append(tuple(ladder))
        averages = [average_input(geometry, layers, ladder) for ladder in ladders]
        lowest, highest = averages[0], averages[-1]
        if not lowest - 0.5 <= self.average <= highest + 0.5:
            nearest = round(lowest if self.average < lowest else highest)
            raise UserError(
                f"schedule@{self.average} is out of reach with layers={'-'.join(map(str, layers))} and "
                f"ratio={self.ratio:g} on {geometry.num_layers} layers. The nearest is schedule@{nearest}"
            )
        average = self.average
        return ladders[min(range(len(ladders)), key=lambda i: abs(averages[i] - average))]

    def counts(self) -> tuple[int, ...]:
        assert self.keep is not None, "solve() first"
        return self.keep

    @property
    def early(self) -> bool:
        return True

    def decide(self, point: Point) -> Decision:
        assert self.layers is not None and self.keep is not None, "solve() first"
        return keep_top(self.scores(point), self.keep[self.layers.index(point.layer)])

    def scores(self, point: Point) -> Tensor:
        """[B, V]: what `decide` ranks by; -inf where the token is gone."""
        if self.score == "last_row":
            return point.last_row()
        if self.score == "cross":
            return point.cross_score()
        if self.score == "self":
            return point.self_score()
        if self.score == "redundant":
            s_self = normalise(point.self_score(), point.kept, self.score_norm, "self")
            s_cross = normalise(point.cross_score(), point.kept, self.score_norm, "cross")
            return redundant_score(s_self, s_cross).masked_fill(~point.kept, float("-inf"))
        if self.score == "random":
            scores = random_scores(self.seed, point.sample_ids, point.kept.shape[1])
        else:
            scores = uniform_scores(point.grid).expand(point.kept.shape)
        return scores.to(point.kept.device, non_blocking=True).masked_fill(~point.kept, float("-inf"))

    def scorer_flops(self, prompt: Prompt) -> int:
        def of(layer: int) -> int:
            rows = {"last_row": 1, "cross": prompt.after, "redundant": prompt.after}.get(self.score, 0)
            mean_query = self_score(prompt, layer) if self.score in ("self", "redundant") else 0
            return mean_query + attention_rows(prompt, layer, rows)

        return 0 if self.score in BLIND else sum(of(layer) for layer in self.prune_layers)
