"""What the prefill benchmark measures, by name: methods of atp_eval, and three kinds that are of the benchmark only.

fastv@144                        a method at its budget: its counts on 32 layers, its layers scaled to the model's
atp@144, atp@88                  an untrained ATP whose thresholds are set to keep the paper's tokens (Tab. 2), saved
                                 and loaded as a trained one would be
sparsevlm@144, no recycling      its scores and counts, but nothing is merged: tokens stay in place of clusters
fastv@144, as its authors wrote it  `fastv_eager.py`
METHOD, all rows                 every row goes through every layer that it enters
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import numpy as np
from fastv_eager import fastv_as_written
from numpy.typing import NDArray
from random_llava import BEFORE
from torch import Tensor

from atp_eval.bench.untrained import Stages, fitted_atp, paper_stages
from atp_eval.cost import ModelGeometry, tokens_per_layer
from atp_eval.engine import VisionStates, early, model_geometry, prune
from atp_eval.engine.linear import LEAST, by_onednn, large_linears
from atp_eval.engine.prefill import Prefill
from atp_eval.errors import UserError
from atp_eval.methods import Decision, Geometry, Method, get_method
from atp_eval.methods.budget import PAPER_LAYERS, scale_layer
from atp_eval.methods.decision import keep_top
from atp_eval.methods.sparsevlm import SparseVLM, raters
from atp_eval.methods.stages import scale_layers

ALL_ROWS, AS_WRITTEN, NO_RECYCLING = ", all rows", ", as its authors wrote it", ", no recycling"
ONEDNN = ", oneDNN"
UNTRAINED = re.compile(r"atp@(\d{1,3})")
Stamp = Callable[[], Any]


@dataclass
class Watch:
    """What one prefill tells. choosing: stamps before and after each decision; early: (layer, start, end) of what was
    decided inside of the layer before `layer`. tokens: asked for the visual tokens that entered each layer [layers], a
    mean over samples; kept: asked for the cells [cells] that enter the last layer in the first sample."""

    choosing: list[Any] = field(default_factory=list)
    early: list[tuple[int, Any, Any]] = field(default_factory=list)
    tokens: Callable[[], NDArray[np.float64]] = lambda: np.zeros(0)
    kept: Callable[[], NDArray[np.bool_]] = lambda: np.zeros(0, dtype=bool)


class Subject(Protocol):
    """One row of the benchmark. layers: before which this model is pruned; deep_layers: before which one of 32 is.
    leaves_early: whether rows that are pruned leave inside of the layer before; all_rows: whether none leaves at all
    before its layer, the last one's included."""

    layers: tuple[int, ...]
    deep_layers: tuple[int, ...]
    leaves_early: bool
    all_rows: bool

    def attached(self, model: Any, inputs: dict[str, Any], stamp: Stamp) -> AbstractContextManager[Watch]:
        """Inside the block the model prunes what it reads."""


# ------------------------------------------------------------------ methods under the engine


class Wrapped:
    """Stands in for a solved method; subclasses watch its decisions or take part in them."""

    def __init__(self, method: Method) -> None:
        self.inner: Any = method

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def solve(self, geometry: Geometry) -> Wrapped:
        return self


class Timed(Wrapped):
    """Takes a stamp before and after each decision: scores, modules and the rule."""

    def __init__(self, method: Method, stamp: Stamp, stamps: list[Any]) -> None:
        super().__init__(method)
        self.stamp, self.stamps = stamp, stamps

    def decide(self, point: Any) -> Decision:
        self.stamps.append(self.stamp())
        decision: Decision = self.inner.decide(point)
        self.stamps.append(self.stamp())
        return decision


@dataclass(frozen=True, kw_only=True)
class NoRecycling(SparseVLM):
    """SparseVLM's choice alone: where it makes clusters, as many tokens more stay."""

    def counts(self) -> tuple[int, ...]:
        assert self.keep is not None, "solve() first"
        return self.keep

    def decide(self, point: Any) -> Decision:
        assert self.layers is not None and self.keep is not None, "solve() first"
        scores = point.rows(raters(*point.embeddings)).masked_fill(~point.kept, float("-inf"))
        return keep_top(scores, self.keep[self.layers.index(point.layer)])


@dataclass(frozen=True)
class UnderEngine:
    """A solved method under `engine.prune`. seen: what the vision tower left. onednn: makes all products."""

    method: Method
    deep_layers: tuple[int, ...]
    seen: VisionStates
    all_rows: bool = False
    onednn: bool = False

    @property
    def layers(self) -> tuple[int, ...]:
        return self.method.prune_layers

    @property
    def leaves_early(self) -> bool:
        return self.method.early and not self.all_rows

    @contextmanager
    def attached(self, model: Any, inputs: dict[str, Any], stamp: Stamp) -> Iterator[Watch]:
        watch, plain = Watch(), Prefill.prune_early
        timed: Any = Timed(self.method, stamp, watch.choosing)

        def watched(prefill: Prefill, method: Method, layer: int, attention: Any) -> Tensor:
            start = stamp()
            rows = plain(prefill, method, layer, attention)
            watch.early.append((layer, start, stamp()))
            return rows

        kinds = early.LAYERS, early.LAST_LAYERS
        if self.all_rows:
            early.LAYERS = early.LAST_LAYERS = ()  # type: ignore[assignment]
        Prefill.prune_early = watched  # type: ignore[method-assign]
        large = large_linears(model.model.language_model.layers) if self.onednn else []
        try:
            with (
                by_onednn(large, range(LEAST, sys.maxsize)),
                prune(model, timed, sample_ids=range(len(inputs["input_ids"])), vision=self.seen) as pruned,
            ):
                watch.tokens = lambda: np.mean([trace.tokens_per_layer() for trace in pruned.traces], axis=0)
                watch.kept = lambda: pruned.traces[0].keep_at(pruned.traces[0].num_layers - 1)
                yield watch
        finally:
            Prefill.prune_early = plain  # type: ignore[method-assign]
            early.LAYERS, early.LAST_LAYERS = kinds


# ------------------------------------------------------------------ FastV as its authors wrote it


@dataclass(frozen=True)
class AsWritten:
    """Batch 1. keep: tokens that stay before `layers[0]`."""

    layers: tuple[int, ...]
    deep_layers: tuple[int, ...]
    keep: int
    geometry: ModelGeometry
    leaves_early: bool = False
    all_rows: bool = True

    @contextmanager
    def attached(self, model: Any, inputs: dict[str, Any], stamp: Stamp) -> Iterator[Watch]:
        cells = self.geometry.cells
        watch = Watch()
        watch.tokens = lambda: np.array(tokens_per_layer(self.geometry, self.layers, [self.keep]), dtype=float)
        with fastv_as_written(model, self.layers[0], self.keep, slice(BEFORE, BEFORE + cells), stamp) as kept:
            watch.choosing = kept.stamps

            def cells_kept() -> NDArray[np.bool_]:
                assert kept.cells is not None, "the model was called"
                return np.isin(np.arange(cells), kept.cells.cpu().numpy())

            watch.kept = cells_kept
            yield watch


# ------------------------------------------------------------------ by name


def subject(name: str, model: Any, inputs: dict[str, Any], seen: VisionStates) -> Subject:
    """Raises UserError for a name that is none, or does not fit the prompts."""
    geometry = model_geometry(model.config)
    if name.endswith(ONEDNN):
        if name != f"upper_bound{ONEDNN}":
            raise UserError(f"{name!r}: pruned prompts take oneDNN by themselves; only upper_bound{ONEDNN} is there")
        return UnderEngine(*shallow("upper_bound", geometry), seen, onednn=True)
    spec, every = name.removesuffix(ALL_ROWS), name.endswith(ALL_ROWS)
    if match := UNTRAINED.fullmatch(spec):
        deep = paper_stages(int(match[1]), Geometry(PAPER_LAYERS, geometry.grid))
        stages = Stages(scale_layers(deep.layers, geometry.num_layers), deep.keep)
        method: Method = fitted_atp(model, stages, spec, lambda: model(**inputs))
        return UnderEngine(method, deep.layers, seen, every)
    if spec.endswith(AS_WRITTEN):
        spec = spec.removesuffix(AS_WRITTEN)
        if not spec.startswith("fastv@"):
            raise UserError(f"{name!r}: only FastV is here as its authors wrote it, such as fastv@144{AS_WRITTEN}")
        if len(inputs["input_ids"]) > 1:
            raise UserError(f"{name!r} reads one prompt at a time, as its authors do; use --batch 1 or leave it out")
        method, layers = shallow(spec, geometry)
        (keep,) = method.counts() or ()
        return AsWritten(method.prune_layers, layers, keep, geometry)
    if spec.endswith(NO_RECYCLING):
        method, layers = shallow(spec.removesuffix(NO_RECYCLING), geometry)
        if not isinstance(method, SparseVLM):
            raise UserError(f"{name!r}: only SparseVLM recycles tokens; try sparsevlm@144{NO_RECYCLING}")
        return UnderEngine(NoRecycling(layers=method.layers, keep=method.counts()).solve(geometry), layers, seen, every)
    return UnderEngine(*shallow(spec, geometry), seen, every)


def shallow(spec: str, geometry: Geometry) -> tuple[Method, tuple[int, ...]]:
    """(a budget's counts on 32 layers, before the layers of a model of another depth; its layers of 32)."""
    deep = get_method(spec).solve(Geometry(PAPER_LAYERS, geometry.grid))
    method, names = deep, [f.name for f in fields(deep)]
    if "layers" in names:
        method = replace(deep, layers=scale_layers(deep.prune_layers, geometry.num_layers))  # type: ignore[call-arg]
    elif "layer" in names and (first := deep.prune_layers[0]):
        method = replace(deep, layer=scale_layer(first, geometry.num_layers))  # type: ignore[call-arg]
    return method.solve(geometry), deep.prune_layers
