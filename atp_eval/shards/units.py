"""Units of a run's work for workers, small enough to balance; and what does them in a worker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from atp_eval.benchmarks import Benchmark, whole_groups
from atp_eval.config import RunConfig
from atp_eval.records import SAMPLES, slug
from atp_eval.scenes.suite import QUESTIONS
from atp_eval.shares import Share

if TYPE_CHECKING:
    from atp_eval.models import Bundle
    from atp_eval.shards.asking import Asking


class Outcome(NamedTuple):
    """failures: a line for each benchmark and method that could not be scored. notes: lines for whoever waits."""

    failures: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Unit(ABC):
    """Some methods on some benchmarks. answers: about how many that takes. part: the folder that it fills. run: the
    settings of its run; their folder is the part where the unit scores too, else that of the whole run."""

    name: str
    benchmarks: tuple[str, ...]
    methods: tuple[str, ...]
    answers: int
    part: Path
    run: RunConfig

    @property
    @abstractmethod
    def said(self) -> str:
        """Its name for a person."""

    @abstractmethod
    def do(self, worker: UnitWorker, config: RunConfig) -> list[str]:
        """Do it in a worker; a line for each failure. config: `run` with the worker's device."""

    @property
    def cells(self) -> list[tuple[str, str]]:
        """Its methods, each with every benchmark."""
        return [(method, benchmark) for benchmark in self.benchmarks for method in self.methods]

    def files(self) -> list[Path]:
        """Where its answers go."""
        return [self.part / slug(method) / benchmark / SAMPLES for method, benchmark in self.cells]


@dataclass(frozen=True)
class WholeUnit(Unit):
    """All questions: what is missing is answered, and the benchmark is scored."""

    @property
    def said(self) -> str:
        """`gqa with fastv@144 and 7 more`."""
        more = f" and {len(self.methods) - 1} more" if len(self.methods) > 1 else ""
        return f"{' '.join(self.benchmarks)} with {self.methods[0]}{more}"

    def do(self, worker: UnitWorker, config: RunConfig) -> list[str]:
        """An own run, in the part."""
        from rich.console import Console

        from atp_eval.run import evaluate

        return evaluate(config, Console(quiet=True), bundle=worker.bundle(config), say=worker.notes.append).failures


@dataclass(frozen=True)
class ShareUnit(Unit):
    """A share of the batches, with all methods."""

    share: Share

    @property
    def said(self) -> str:
        """`gqa and pope, share 2 of 8`."""
        first, *more = self.benchmarks
        others = f" and {more[0] if len(more) == 1 else f'{len(more)} more'}" if more else ""
        return f"{first}{others}, {self.share}"

    def do(self, worker: UnitWorker, config: RunConfig) -> list[str]:
        """Answer, and score nothing."""
        worker.asking(config).answer(self.benchmarks, self.share, self.part)
        return []


class UnitWorker:
    """Does units in a worker; the model is loaded with the first and stays.

    device: `cuda:1`, say; that of the unit's settings if None. threads: of the processor, None for torch's own choice.
    processes: how many workers there are on this machine.
    """

    def __init__(self, device: str | None = None, threads: int | None = None, processes: int = 1) -> None:
        self.device, self.threads, self.processes = device, threads, processes
        self.notes: list[str] = []
        self._bundle: Bundle | None = None
        self._asking: Asking | None = None

    def __call__(self, unit: Unit) -> Outcome:
        config = unit.run if self.device is None else unit.run.model_copy(update={"device": self.device})
        self.notes.clear()
        failures = unit.do(self, config)
        return Outcome(failures, list(self.notes))

    def bundle(self, config: RunConfig) -> Bundle:
        """The model, which all units of a worker share."""
        import torch

        from atp_eval.run import load

        if self._bundle is None:
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            self._bundle = load(config)
        return self._bundle

    def asking(self, config: RunConfig) -> Asking:
        """The questions, which all shares of a worker take theirs from."""
        from atp_eval.shards.asking import Asking

        if self._asking is None or self._asking.config != config:
            self._asking = Asking(config, self.bundle(config), say=self.notes.append, processes=self.processes)
        return self._asking


def questions(benchmark: Benchmark, run: RunConfig) -> int:
    """How many documents of a benchmark a run asks about."""
    whole = QUESTIONS if run.resolved_suite == "mini" else benchmark.documents
    return min(whole, whole_groups(benchmark, run.limit) or whole)
