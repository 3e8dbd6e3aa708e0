"""Timing one prefill from the inside: each layer, what happens in front of it, decisions, and reads by the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from subjects import Subject, Watch
from torch import Tensor

from atp_eval.bench import stages

READS = ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__")


class Clock(stages.Clock):
    """A bench's clock. Off GPUs kind "cpu" counts processor seconds of this process instead, all threads together: they
    depend little on what else the machine does."""

    def __init__(self, device: torch.device, kind: str) -> None:
        super().__init__(device)
        self._processor = kind == "cpu" and device.type != "cuda"

    def stamp(self) -> Any:
        return time.process_time() if self._processor else super().stamp()

    def between(self, starts: Sequence[Any], ends: Sequence[Any]) -> list[float]:
        return [self.seconds(start, end) for start, end in zip(starts, ends, strict=True)]


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


def prefill(model: Any, subject: Subject, inputs: dict[str, Any], clock: Clock, times: Times) -> Watch:
    """One prefill, added to `times`; what it tells is still to be asked for."""
    layers = model.model.language_model.layers
    stamps: list[Any] = []

    def mark(*_: Any) -> None:
        stamps.append(clock.stamp())

    def leave(index: int, module: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        stamps.append(clock.stamp())
        if output.shape[:2] != args[0].shape[:2]:
            times.alone.add(index)

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(mark).remove)
        watch = stack.enter_context(subject.attached(model, inputs, clock.stamp))
        for index, layer in enumerate(layers):
            stack.callback(layer.register_forward_pre_hook(mark).remove)  # runs after the hook that prunes
            stack.callback(layer.register_forward_hook(partial(leave, index)).remove)
        start = clock.stamp()
        model(**inputs)
        end = clock.stamp()
    arrive, enter, left = (stamps[i::3] for i in range(3))
    times.total.append(clock.seconds(start, end))
    before, inside = clock.between(arrive, enter), clock.between(enter, left)
    for layer, asked, decided in watch.early:
        seconds = clock.seconds(asked, decided)
        before[layer], inside[layer - 1] = before[layer] + seconds, inside[layer - 1] - seconds
    times.before.append(before)
    times.inside.append(inside)
    times.choosing.append(sum(clock.between(watch.choosing[::2], watch.choosing[1::2])))
    return watch


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
