"""One run of a cell: the vision tower, then `generate`, with stamps between; and one that counts instead of timing."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import LogitsProcessor, LogitsProcessorList

from atp_eval.bench.records import Cell, Stages, Survey
from atp_eval.bench.subject import Sample, Subject
from atp_eval.engine import Pruned, VisionStates, prune, recorded
from atp_eval.methods import Method
from atp_eval.models.llava import generate

COUNTABLE = {"flash_attention_2": "sdpa"}  # of backends whose operations torch does not count, one that does the same
STEPS = 3  # tokens of a survey: the first, and two steps of decoding


class Clock:
    """Stamps, and the seconds between two. On a CUDA device they are events of its own time line, so that taking one
    waits for nothing; elsewhere wall clock, after the device has done what it was told to."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    @property
    def name(self) -> str:
        """What times are taken with, for the record."""
        return "CUDA events" if self._device.type == "cuda" else "wall clock"

    def stamp(self) -> Any:
        """Now, on the device's time line."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))  # else that of the default device
            return event
        if self._device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    def seconds(self, start: Any, end: Any) -> float:
        """Between two stamps."""
        if self._device.type != "cuda":
            return float(end - start)
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000


class EachToken(LogitsProcessor):
    """Calls `then` with 0, 1, ... whenever a new token's scores are there."""

    def __init__(self, then: Callable[[int], None]) -> None:
        self._then, self._count = then, 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores as they are."""
        self._then(self._count)
        self._count += 1
        return scores


def encode(model: Any, pixels: Tensor) -> tuple[Tensor, VisionStates]:
    """[B, V, D], what goes into the LLM, and what methods that look at the vision tower are shown."""
    with recorded(model) as states:
        output = model.get_image_features(pixel_values=pixels)
    return torch.stack(list(output.pooler_output)), states[0]


def write(model: Any, sample: Sample, features: Tensor, new: int, then: Callable[[int], None]) -> None:
    """Read the prompts and write exactly `new` tokens after each, greedily; `then` is called for each (EachToken)."""
    inputs = {"input_ids": sample.ids, "attention_mask": sample.mask, "features": features}
    watch = LogitsProcessorList([EachToken(then)])
    generate(model, inputs, max_new_tokens=new, eos_token_id=None, logits_processor=watch)


def timed(subject: Subject, method: Method, cell: Cell, clock: Clock) -> Stages:
    """Seconds of one run. Attaching the method to the model is left out; whatever it does while it runs is not."""
    model, sample = subject.model, subject.sample(cell.side, cell.batch)
    stamps = [clock.stamp()]
    features, states = encode(model, sample.pixels)
    stamps.append(clock.stamp())
    with prune(model, method, sample_ids=sample.names, vision=states):
        stamps.append(clock.stamp())
        write(model, sample, features, cell.new, lambda token: None if token else stamps.append(clock.stamp()))
        stamps.append(clock.stamp())
    started, encoded, asked, answered, written = stamps
    return Stages(clock.seconds(started, encoded), clock.seconds(asked, answered), clock.seconds(answered, written))


def survey(subject: Subject, method: Method, cell: Cell) -> Survey:
    """One run that is not timed and writes no more than `STEPS` tokens: tokens that stayed, operations, and memory.

    A step of decoding takes as many operations more than the one before as that took more than the one before it, so
    two of them tell about all.
    """
    marks: list[int] = []
    sample = subject.sample(cell.side, cell.batch)  # made before memory is followed
    with ExitStack() as stack:
        peak = stack.enter_context(peak_bytes(subject.device))
        if cell.attention in COUNTABLE:
            stack.callback(subject.set_attention, cell.attention)
            subject.set_attention(COUNTABLE[cell.attention])
        counter = stack.enter_context(FlopCounterMode(display=False))  # asked first: it takes operations apart
        pruned = once(subject, method, cell, lambda: marks.append(counter.get_total_flops()))
    if cell.attention in COUNTABLE:  # once more: memory is the backend's own
        with peak_bytes(subject.device) as peak:
            once(subject, method, cell, lambda: None)
    vision, prefill, *steps = np.diff(marks, prepend=0).tolist()
    traces = pruned.traces
    per_layer = np.mean([trace.tokens_per_layer() for trace in traces], axis=0)
    return Survey(
        solved=str(pruned.method),
        tokens=tuple(map(float, per_layer)),
        averages=tuple(trace.average_input for trace in traces),
        text=sample.ids.shape[1] - subject.geometry.cells,
        vision_flops=vision,
        prefill_flops=prefill,
        decode_flops=decode_flops(steps, cell.new - 1),
        peak_bytes=peak(),
    )


def decode_flops(steps: Sequence[float], wanted: int) -> float:
    """Of `wanted` steps, where the first few take `steps` and each takes as much more than the one before."""
    if not wanted:
        return 0.0
    growth = steps[1] - steps[0] if len(steps) > 1 else 0.0
    return wanted * steps[0] + growth * wanted * (wanted - 1) / 2


def once(subject: Subject, method: Method, cell: Cell, mark: Callable[[], object]) -> Pruned:
    """One run of a few tokens; `mark` is called after the vision tower and after each new token."""
    sample = subject.sample(cell.side, cell.batch)
    features, states = encode(subject.model, sample.pixels)
    mark()

    def then(token: int) -> None:
        mark()

    with prune(subject.model, method, sample_ids=sample.names, vision=states) as pruned:
        write(subject.model, sample, features, min(cell.new, STEPS), then)
    return pruned


@contextmanager
def peak_bytes(device: torch.device) -> Iterator[Callable[[], int | None]]:
    """Inside the block, and behind it, the most bytes that were allocated at once on top of what was there before.

    A CUDA device tells it; on a CPU tensors are followed as operators make them, so what an operator holds only while
    it runs is not in there. None elsewhere.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - before
    elif device.type == "cpu":
        with Allocated() as found:
            yield lambda: found.peak
    else:
        yield lambda: None


class Allocated(TorchDispatchMode):
    """Bytes of the tensors that operators made inside the block and that live; `peak`: the most at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator; whatever storage of its results is none of its arguments' is new."""
        kwargs = kwargs or {}
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **kwargs)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in given:
                given.add(storage._cdata)
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return result

    def _add(self, count: int) -> None:
        self.live += count
        self.peak = max(self.peak, self.live)
