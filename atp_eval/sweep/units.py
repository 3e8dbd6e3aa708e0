"""Units of a sweep's work, small enough to balance: some methods on a benchmark; and what answers them in a worker."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from atp_eval.benchmarks import get_benchmark
from atp_eval.config import RunConfig
from atp_eval.records import SAMPLES, slug
from atp_eval.sweep.planning import Planned, finished, questions

if TYPE_CHECKING:
    from atp_eval.models import Bundle

MOST = 8  # methods of a unit: a picture is encoded once for all of them, which costs as much as some of them answering
EACH = 4  # units a worker at least, so that none waits long for the last of the others


class Unit(NamedTuple):
    """Some methods on a benchmark. answers: how many that takes. run: the settings of its run, in a part folder."""

    name: str
    benchmark: str
    methods: tuple[str, ...]
    answers: int
    run: RunConfig

    @property
    def cells(self) -> list[tuple[str, str]]:
        """Its methods, each with the benchmark."""
        return [(method, self.benchmark) for method in self.methods]

    @property
    def said(self) -> str:
        """Its name for a person: `gqa with fastv@144 and 7 more`."""
        more = f" and {len(self.methods) - 1} more" if len(self.methods) > 1 else ""
        return f"{self.benchmark} with {self.methods[0]}{more}"

    def files(self) -> list[Path]:
        """Where its answers go."""
        return [self.run.run_folder() / slug(method) / self.benchmark / SAMPLES for method in self.methods]


class Outcome(NamedTuple):
    """failures: a line for each benchmark and method that could not be scored. notes: lines for whoever waits."""

    failures: list[str]
    notes: list[str]


class AnswerUnit:
    """Answers units in a worker; the model is loaded with the first and stays.

    device: `cuda:1`, say; that of the unit's settings if None. threads: of the processor, None for torch's own choice.
    """

    def __init__(self, device: str | None = None, threads: int | None = None) -> None:
        self.device, self.threads = device, threads
        self._bundle: Bundle | None = None

    def __call__(self, unit: Unit) -> Outcome:
        import torch
        from rich.console import Console

        from atp_eval.run import evaluate, load

        config = unit.run if self.device is None else unit.run.model_copy(update={"device": self.device})
        if self._bundle is None:
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            self._bundle = load(config)
        notes: list[str] = []
        done = evaluate(config, Console(quiet=True), bundle=self._bundle, say=notes.append)
        return Outcome(done.failures, notes)


def units(planned: Planned, parts: Path, workers: int) -> list[Unit]:
    """What is left of a plan in units, a benchmark after the other; each has about as many methods as the others, dealt
    out in turn, since neighbours cost alike."""
    folder, run = planned.run.run_folder(), planned.run
    done = finished([folder], planned.infos)
    left = {task: [method for method in run.methods if (method, task) not in done] for task in run.tasks}
    size = max(1, min(MOST, sum(map(len, left.values())) // (EACH * workers)))
    found = []
    for task, methods in left.items():
        groups = math.ceil(len(methods) / size)
        for number in range(groups):
            name, some = f"{task}-{number + 1}", methods[number::groups]
            config = run.model_copy(update={"tasks": [task], "methods": some, "output": parts / name})
            found.append(Unit(name, task, tuple(some), len(some) * questions(get_benchmark(task), run), config))
    return found
