"""ATP where there are no trained modules: random ones with thresholds moved until they keep a budget's tokens.

Time does not depend on what was learned, only on how many tokens stay; that is what the fit sets, and a bench says how
many did. What such modules choose means nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch

from atp_eval.cost import Geometry, averages, tokens_per_layer
from atp_eval.engine import model_geometry, prune
from atp_eval.engine.fingerprint import fingerprint
from atp_eval.errors import UserError
from atp_eval.methods import Decision
from atp_eval.methods.atp import ATP, Adapter, AdapterConfig, AtpOptions, BaseModelId, new_modules
from atp_eval.methods.atp.thresholds import ThresholdModule
from atp_eval.methods.budget import scale_layer
from atp_eval.methods.point import Point
from atp_eval.paper import claimed_tables

HALVINGS = 26  # of the range of a threshold's bias
WIDEST = 20.0  # of that bias: a sigmoid is 0 or 1 there in fp32
SPATIAL = 2.75  # bias of theta_s, about 0.94: 12 of 576 tokens stay by their place, the rest is up to theta_r
SEED = 0


class Stages(NamedTuple):
    """Where an ATP prunes, and how many tokens stay from there on."""

    layers: tuple[int, ...]
    keep: tuple[int, ...]


def paper_stages(average: float, geometry: Geometry) -> Stages:
    """Layers and counts for an average of visual tokens, after the paper's (Tab. 2) for 144 or 88 of 576, whichever
    share is nearer: layers at the same depth, counts in the same proportions.

    On 32 layers and 576 tokens these are the paper's own. Raises UserError for an average that those layers do not
    allow.
    """
    known = {row.raw["tokens"]: row.raw for row in _rows() if row.raw["strategy"] == "atp"}
    raw = known[min(known, key=lambda tokens: abs(tokens / PAPER_CELLS - average / geometry.cells))]
    layers = tuple(dict.fromkeys(scale_layer(layer, geometry.num_layers) for layer in raw["layers"]))
    shares = [kept / PAPER_CELLS for kept in raw["kept"]][-len(layers) :]

    def counts(factor: float) -> tuple[int, ...]:
        return tuple(min(geometry.cells, max(1, round(factor * share * geometry.cells))) for share in shares)

    def reached(factor: float) -> float:
        return averages(tokens_per_layer(geometry, layers, counts(factor))).input

    if abs(reached(1.0) - average) < 0.5:
        return Stages(layers, counts(1.0))
    low, high = 0.0, geometry.cells / min(shares)
    if not reached(low) - 0.5 <= average <= geometry.cells:
        raise UserError(
            f"atp@{average:g} is out of reach with layers {'-'.join(map(str, layers))} of {geometry.num_layers}, those "
            f"before see all {geometry.cells} tokens. The nearest is atp@{round(reached(low))}"
        )
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) < average else (low, middle)
    return Stages(
        layers, min(counts(low), counts(high), key=lambda keep: abs(_average(geometry, layers, keep) - average))
    )


PAPER_CELLS = 576


def _rows() -> Sequence[Any]:
    """Of Table 2."""
    return next(table for table in claimed_tables() if table.key == "pruning_strategy").rows


def _average(geometry: Geometry, layers: Sequence[int], keep: Sequence[int]) -> float:
    return averages(tokens_per_layer(geometry, layers, keep)).input


@dataclass(frozen=True, kw_only=True)
class Fitting(ATP):
    """An ATP that, where it is asked, first moves theta_r until `wanted` tokens stay, as a mean over the batch."""

    wanted: tuple[int, ...] = ()

    def decide(self, point: Point) -> Decision:
        """What the module keeps once its threshold is moved; the threshold stays there."""
        place = self.prune_layers.index(point.layer)
        bias = cast(ThresholdModule, self._adapter.modules[place]).head_r.bias
        wanted, low, high = self.wanted[place] * len(point.kept), -WIDEST, WIDEST
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            bias.fill_(middle)
            stay = int((super().decide(point).keep & point.kept).sum())
            low, high = (middle, high) if stay > wanted else (low, middle)
        bias.fill_(high)
        return super().decide(point)


def fitted_atp(model: Any, stages: Stages, label: str, read: Callable[[], object], **given: Any) -> ATP:
    """A solved ATP for this model that keeps `stages.keep` tokens of the prompts that `read` has the model read.

    label: what it is asked for as. given: what `prune` is told of these prompts.
    """
    geometry = model_geometry(model.config)
    options = AtpOptions(layers=stages.layers)
    base = BaseModelId(
        id="random weights", fingerprint=fingerprint(model), num_layers=geometry.num_layers, grid=geometry.grid
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        modules = new_modules(options).requires_grad_(False)
    for module in modules:
        cast(ThresholdModule, module).head_s.bias.fill_(SPATIAL)
    points = len(stages.layers)
    adapter = Adapter(
        AdapterConfig(base=base, options=options), modules, torch.zeros(points, 2), torch.zeros(0, points)
    )
    adapter = adapter.to(model.device)
    with prune(model, Fitting(adapter="untrained", trained=adapter, wanted=stages.keep), **given):
        read()
    return ATP(adapter="untrained", layers=stages.layers, trained=adapter, asked=label)
