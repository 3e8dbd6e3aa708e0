"""Timing one prefill from the inside: each layer, what happens in front of it, decisions, and reads by the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atp_eval.engine import Pruned, VisionStates, prune
from atp_eval.engine.prefill import Prefill
from atp_eval.methods import Decision, Geometry, Method

READS = ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__")


class Clock:
    """Stamps, and the seconds between two.

    On a GPU stamps are events of its own time line, so that taking one waits for nothing. kind "cpu" counts processor
    seconds of this process, all threads together, which depend little on what else the machine does.
    """

    def __init__(self, device: torch.device, kind: str) -> None:
        self._cuda = device.type == "cuda"
        self._now: Callable[[], float] = time.process_time if kind == "cpu" else time.perf_counter

    def stamp(self) -> Any:
        if not self._cuda:
            return self._now()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        if not self._cuda:
            return float(end - start)
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    def between(self, starts: Sequence[Any], ends: Sequence[Any]) -> list[float]:
        return [self.seconds(start, end) for start, end in zip(starts, ends, strict=True)]


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

    def __init__(self, method: Method, clock: Clock) -> None:
        super().__init__(method)
        self.clock = clock
        self.stamps: list[Any] = []

    def decide(self, point: Any) -> Decision:
        self.stamps.append(self.clock.stamp())
        decision: Decision = self.inner.decide(point)
        self.stamps.append(self.clock.stamp())
        return decision


@dataclass
class Times:
    """Seconds of one method's prefills: [rounds], or [rounds, layers] in front of each layer and in it.

    A decision that is made inside of the layer before counts as in front of its own. alone: layers that leave out work
    for rows that nobody reads, so that their time tells nothing about the layers around them.
    """

    total: list[float] = field(default_factory=list)
    before: list[list[float]] = field(default_factory=list)
    inside: list[list[float]] = field(default_factory=list)
    choosing: list[float] = field(default_factory=list)
    alone: set[int] = field(default_factory=set)


def prefill(
    model: Any, method: Method, inputs: dict[str, Any], clock: Clock, times: Times, seen: VisionStates | None = None
) -> Pruned:
    """One prefill, added to `times`; its traces are still to be read. seen: what the vision tower left."""
    timed, layers = Timed(method, clock), model.model.language_model.layers
    stamps: list[Any] = []
    early: list[tuple[int, Any, Any]] = []
    plain = Prefill.prune_early

    def mark(*_: Any) -> None:
        stamps.append(clock.stamp())

    def watched(self: Prefill, method: Any, layer: int, attention: Any) -> Tensor:
        start = clock.stamp()
        rows = plain(self, method, layer, attention)
        early.append((layer, start, clock.stamp()))
        return rows

    def leave_last(module: Any, args: Any, output: Tensor) -> None:
        if output.shape[1] == 1:
            times.alone.add(len(layers) - 1)

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(mark).remove)
        samples = range(len(inputs["input_ids"]))
        pruned: Pruned = stack.enter_context(prune(model, timed, sample_ids=samples, vision=seen))  # type: ignore[arg-type]
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(mark).remove)  # runs after the hook that prunes
            stack.callback(layer.register_forward_hook(mark).remove)
        stack.callback(layers[-1].register_forward_hook(leave_last).remove)
        stack.callback(setattr, Prefill, "prune_early", plain)
        Prefill.prune_early = watched  # type: ignore[method-assign]
        start = clock.stamp()
        model(**inputs)
        end = clock.stamp()
    arrive, enter, leave = (stamps[i::3] for i in range(3))
    times.total.append(clock.seconds(start, end))
    before, inside = clock.between(arrive, enter), clock.between(enter, leave)
    for layer, asked, decided in early:
        seconds = clock.seconds(asked, decided)
        before[layer], inside[layer - 1] = before[layer] + seconds, inside[layer - 1] - seconds
        times.alone.add(layer - 1)
    times.before.append(before)
    times.inside.append(inside)
    times.choosing.append(sum(clock.between(timed.stamps[::2], timed.stamps[1::2])))
    return pruned


def at_depth(
    times: Times,
    cuts: Sequence[int],
    deep_cuts: Sequence[int],
    depth: int,
    unpruned: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """[rounds]: seconds of a prefill of `depth` layers, pruned before `deep_cuts`, computed from fewer layers' times.

    What is around the layers, prune points included, counts as measured, and so does each layer of `times.alone`; any
    other counts as the mean of its stage. unpruned: [rounds], of a layer before the first cut, where none was measured.
    """
    inside = np.array(times.inside)
    seconds = np.array(times.total) - inside.sum(1)
    edges, deep = [0, *cuts, inside.shape[1]], [0, *deep_cuts, depth]
    for start, end, first, last in zip(edges[:-1], edges[1:], deep[:-1], deep[1:], strict=True):
        if end > start:
            alone = [i for i in range(start, end) if i in times.alone]
            others = [i for i in range(start, end) if i not in times.alone]
            if others:
                each = inside[:, others].mean(1)
            else:
                each = inside[:, start:end].mean(1) if start or unpruned is None else unpruned
            seconds += inside[:, alone].sum(1) + each * (last - first - len(alone))
    return seconds


@contextmanager
def counted_reads() -> Iterator[Callable[[], int]]:
    """Inside the block, how often Python asked a tensor for its values: each waits for the device that it lies on."""
    count, plain = 0, {name: getattr(Tensor, name) for name in READS}

    def counting(name: str) -> Callable[..., Any]:
        def read(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            return plain[name](self, *args, **kwargs)

        return read

    try:
        for name in READS:
            setattr(Tensor, name, counting(name))
        yield lambda: count
    finally:
        for name, method in plain.items():
            setattr(Tensor, name, method)
