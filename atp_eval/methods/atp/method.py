"""ATP-LLaVA: thresholds that are learned for each layer and instance decide how many tokens stay.

Ye et al., "ATP-LLaVA: Adaptive Token Pruning for Large Vision Language Models", CVPR 2025 (arXiv 2412.00447).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch

from atp_eval.cost.scorer import Prompt, attention_rows, causal_self_score, self_score, thresholds
from atp_eval.errors import UserError
from atp_eval.methods.atp.adapter import Adapter, load_adapter, read_config, shipped
from atp_eval.methods.atp.rules import hard_mask, margin
from atp_eval.methods.atp.scores import normalise, redundant_score, spatial_score
from atp_eval.methods.atp.thresholds import GRID, ThresholdModule
from atp_eval.methods.base import Geometry, Method
from atp_eval.methods.decision import Decision
from atp_eval.methods.point import Point
from atp_eval.methods.random import random_scores

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ATP(Method):
    """Before each of the adapter's layers a token stays if its redundant score passes theta_r or its spatial score
    passes theta_s (Eq. 11).

    adapter: a folder that `atp-eval train` wrote, or the name of one that ships. With a budget instead (atp@144) it is
        the one that ships for a model of this shape and was trained for that average; the average that it achieves on
        some questions is measured, not exact.
    layers: for the record; must be those of the adapter.
    control: asks whether adapting helps at all, by taking one part of it away. Best means by Eq. 11's margin, then by
        the redundant score.
        none: ATP itself. static: thresholds are their means over training samples; counts still vary, as scores do.
        fixed: those thresholds again, but every sample keeps the same count, the best by them; against static, only
        the varying count is gone. shuffled: each sample's own thresholds rank, but it keeps as many as some training
        sample did; counts vary as in ATP, but tell nothing of the sample.
    scale: for control=fixed: the count before each layer is `scale` times its mean over training samples.
    """

    name: ClassVar[str] = "atp"
    adapter: str | None = None
    layers: tuple[int, ...] | None = None
    control: Literal["none", "static", "shuffled", "fixed"] = "none"
    scale: float = 1.0
    trained: Adapter | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.average is None and self.adapter is None:
            raise UserError("atp needs an adapter: write atp@144 where one ships, or atp:adapter=FOLDER")
        if self.average is not None and self.adapter is not None:
            raise UserError(f"atp: give a budget (@{self.average}) or adapter={self.adapter}, not both")
        if self.scale != 1.0 and self.control != "fixed":
            raise UserError(f"atp: scale={self.scale:g} is for fixed counts; add control=fixed or leave scale= out")
        if not 0 < self.scale < math.inf:
            raise UserError(f"atp: scale={self.scale:g} must be above 0")

    @property
    def prune_layers(self) -> tuple[int, ...]:
        return self._adapter.config.options.layers

    @property
    def positions(self) -> Literal["1d", "2d"]:
        return self._adapter.config.options.positions

    @property
    def weights(self) -> str:
        return self._adapter.digest()

    @property
    def language_model(self) -> dict[str, Tensor] | None:
        return self._adapter.language_model

    @property
    def _adapter(self) -> Adapter:
        assert self.trained is not None, "solve() first"
        return self.trained

    def solve(self, geometry: Geometry) -> ATP:
        if self.trained is not None:
            return self
        name = self.adapter or self._shipped(geometry)
        folder = shipped().get(name, Path(name))
        config = read_config(folder)
        base, layers = config.base, config.options.layers
        if (base.num_layers, base.grid) != (geometry.num_layers, geometry.grid):
            raise UserError(
                f"{self.label}: the adapter is for {base.id} with {base.num_layers} layers and {_by(base.grid)} visual "
                f"tokens; this model has {geometry.num_layers} and {_by(geometry.grid)}. Train one: atp-eval train"
            )
        if self.layers is not None and self.layers != layers:
            asked, has = ("-".join(map(str, x)) for x in (self.layers, layers))
            raise UserError(f"atp: layers={asked}, but the adapter prunes before {has}; leave layers= out")
        trained = load_adapter(folder)
        if self.control != "none" and not len(trained.counts):
            raise UserError(f"atp: control={self.control} needs the statistics of training samples; {name} holds none")
        return self._solved(adapter=name, layers=layers, trained=trained)

    def _shipped(self, geometry: Geometry) -> str:
        """The name of the package's adapter for this budget and a model of this shape."""
        found = {}
        for name, folder in shipped().items():
            config = read_config(folder)
            fits = (config.base.num_layers, config.base.grid) == (geometry.num_layers, geometry.grid)
            if fits and config.budget is not None:
                found[config.budget] = name
        if self.average in found:
            return found[self.average]
        there = ", ".join(f"atp@{average}" for average in sorted(found))
        hint = f"there are {there}" if found else "none ships for this model"
        raise UserError(
            f"atp@{self.average}: no trained adapter; {hint}. Train one: atp-eval train, then adapter=FOLDER"
        )

    def verify(self, fingerprint: Callable[[], str]) -> None:
        base = self._adapter.config.base
        if (found := fingerprint()) != base.fingerprint:
            raise UserError(
                f"{self.label}: the adapter was trained on {base.id} (weights {base.fingerprint}), this model has "
                f"weights {found}. An adapter fits only its own model; train one: atp-eval train"
            )

    def counts(self) -> tuple[int, ...] | None:
        return self.fixed_counts if self.control == "fixed" else None

    @property
    def early(self) -> bool:
        return True

    def decide(self, point: Point) -> Decision:
        adapter = self._adapter.to(point.kept.device)
        if adapter is not self.trained:
            object.__setattr__(self, "trained", adapter)
        options, index = adapter.config.options, self.prune_layers.index(point.layer)
        module, kept = cast(ThresholdModule, adapter.modules[index]), point.kept
        s_self = normalise(point.self_score(causal=options.causal_self), kept, options.score_norm, "self")
        s_cross = normalise(point.cross_score(), kept, options.score_norm, "cross")
        redundant = redundant_score(s_self, s_cross, options.scores, module.mix)
        spatial = spatial_score(point.grid, options.lambda_sample, options.strides, kept.device).to(redundant)
        theta_r, theta_s = module(s_self, s_cross, point.grid)
        if self.control in ("static", "fixed"):
            theta_r, theta_s = adapter.theta[index].to(redundant)
        passed = margin(redundant, spatial, theta_r.to(redundant), theta_s.to(redundant), options.rules)
        if self.control == "fixed":
            count = self.fixed_counts[index]
            return Decision(_places(passed, redundant, kept) < count, count=count)
        if self.control == "shuffled":
            counts = self._other_counts(point, adapter.counts[:, index])
            return Decision((_places(passed, redundant, kept) < counts[:, None]) & kept)
        return Decision(hard_mask(passed, redundant, kept))

    def scorer_flops(self, prompt: Prompt) -> int:
        """Both scores and the threshold module at every prune point, whatever of it is used."""
        options = self._adapter.config.options
        mean_query = causal_self_score if options.causal_self else self_score
        module = thresholds(2 * math.prod(GRID), options.hidden)
        return sum(
            mean_query(prompt, layer) + attention_rows(prompt, layer, prompt.after) + module
            for layer in self.prune_layers
        )

    @cached_property
    def fixed_counts(self) -> tuple[int, ...]:
        """Tokens before each prune layer under control=fixed: at least 1, at most all, never rising."""
        cells = math.prod(self._adapter.config.base.grid)
        means: list[float] = self._adapter.counts.double().mean(0).tolist()
        counts = [min(cells, max(1, round(self.scale * mean))) for mean in means]
        return tuple(min(counts[: i + 1]) for i in range(len(counts)))

    @staticmethod
    def _other_counts(point: Point, counts: Tensor) -> Tensor:
        """[B]: the count of one training sample each, the same sample at every prune point."""
        drawn = random_scores(0, point.sample_ids, 1)[:, 0]
        return counts[(drawn * len(counts)).long().to(counts.device, non_blocking=True)]


def _places(margin: Tensor, redundant: Tensor, kept: Tensor) -> Tensor:
    """[B, V]: place of each token from the best, 0, to the worst; survivors in `kept` come first.

    Cells of one uniform grid have the same spatial score: of equal margins the higher redundant score comes first, lest
    the picture's top be preferred; of equal ones of these the earlier cell.
    """
    first = redundant.argsort(dim=1, descending=True, stable=True)
    second = margin.masked_fill(~kept, -torch.inf).gather(1, first).argsort(dim=1, descending=True, stable=True)
    return first.gather(1, second).argsort(1)


def _by(grid: tuple[int, int]) -> str:
    return f"{grid[0]} x {grid[1]}"
