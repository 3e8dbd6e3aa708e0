"""A sweep's numbers: what each family keeps of the upper bound at each budget, and how far it is from random tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from atp_eval.analysis.estimate import Estimate
from atp_eval.analysis.measure import Cell, benchmark_row, measure
from atp_eval.analysis.reading import UPPER_BOUND, Entry, distinct, protocol_differences, run_names
from atp_eval.analysis.retention import average, over_seeds, pooled_seeds
from atp_eval.analysis.significance import RESAMPLES, Interval
from atp_eval.analysis.summary import BenchmarkRow, plain
from atp_eval.analysis.tokens import combine
from atp_eval.errors import UserError
from atp_eval.records import Result, Run
from atp_eval.sweep.settings import Family, Sweep, Trial

TOLERANCE = 0.01  # of a budget; an average that is farther off is marked
UNKNOWN = Interval(math.nan)
Results = Mapping[tuple[str, str], tuple[Run, Result]]  # by method and benchmark
Cells = Mapping[str, Mapping[str, Cell]]


class Answered(NamedTuple):
    """A run folder: its name, the device, and the seconds that answering took."""

    name: str
    device: str
    seconds: float


@dataclass(frozen=True)
class Line:
    """A family at a budget.

    tokens: visual tokens that enter a layer, averaged over layers, questions, benchmarks and seeds. scores: means over
    seeds, in the benchmarks' shown units. retention: per cent of the upper bound, averaged over benchmarks and seeds;
    the interval is that of the questions. seeds: the retention of each. spread: where one seed lies, over seeds and
    questions. difference: to the random control of the same budget, paired by question; None for that itself, and
    without one. missing: why there are no figures; None where there are.
    """

    trial: Trial
    missing: str | None = None
    tokens: float = math.nan
    scores: Mapping[str, float] = field(default_factory=dict)
    retention: Interval = UNKNOWN
    seeds: tuple[float, ...] = ()
    spread: Interval = UNKNOWN
    difference: Interval | None = None

    @property
    def off(self) -> float | None:
        """The share of the budget by which the tokens miss it, where that is more than TOLERANCE."""
        miss = self.tokens / (self.trial.budget or math.nan) - 1
        return miss if abs(miss) > TOLERANCE else None

    def to_json(self) -> dict[str, Any]:
        """All figures, JSON-ready."""
        family = self.trial.family
        return {
            "family": family.label,
            "panel": family.panel,
            "role": family.role,
            "budget": self.trial.budget,
            "methods": list(self.trial.labels),
            "missing": self.missing,
            "tokens": plain(self.tokens),
            "off_budget": plain(self.off),
            "retention": plain(self.retention),
            "minus_random": plain(self.difference),
            "seeds": plain(self.seeds),
            "spread": plain(self.spread),
            "scores": plain(dict(self.scores)),
        }


@dataclass(frozen=True)
class Table:
    """A sweep on one model. tasks: the benchmarks asked for, benchmarks: those that the upper bound finished, which
    averages are over. full: the visual tokens of the upper bound, scores: its scores, which are 100 per cent."""

    sweep: Sweep
    model: str
    runs: tuple[Answered, ...]
    questions: int
    tasks: tuple[str, ...]
    benchmarks: tuple[BenchmarkRow, ...]
    full: float
    scores: Mapping[str, float]
    lines: tuple[Line, ...]

    def at(self, family: Family, budget: int) -> Line | None:
        """A family at a budget; None where the sweep does not ask for that."""
        found = (line for line in self.lines if line.trial.family == family and line.trial.budget == budget)
        return next(found, None)

    def to_json(self) -> dict[str, Any]:
        """All figures, JSON-ready."""
        return {
            "title": self.sweep.title,
            "model": self.model,
            "runs": plain(self.runs),
            "questions": self.questions,
            "benchmarks": [b.name for b in self.benchmarks],
            "upper_bound": {"tokens": plain(self.full), "scores": plain(dict(self.scores))},
            "rows": [line.to_json() for line in self.lines],
        }


def make_table(
    sweep: Sweep, trials: Sequence[Trial], runs: Sequence[Run], tasks: Sequence[str], *, resamples: int = RESAMPLES,
    seed: int = 0,
) -> Table:  # fmt: skip
    """Measure a sweep in run folders that together hold its methods and the upper bound; a method that several hold is
    taken from the first. tasks: the benchmarks to average.

    Raises UserError for runs that do not belong together, or without an upper bound.
    """
    runs = distinct(runs)
    check_alike(runs)
    labels = list(dict.fromkeys([UPPER_BOUND, *(label for trial in trials for label in trial.labels)]))
    results = results_of(runs)
    finished = [task for task in tasks if (UPPER_BOUND, task) in results]
    if not finished:
        raise UserError(f"{UPPER_BOUND} has not finished any benchmark in {_named(runs)}. Run the sweep first.")
    cells: dict[str, dict[str, Cell]] = {label: {} for label in labels}
    rows = []
    for task in finished:
        info = results[UPPER_BOUND, task][0].manifest.benchmarks[task]
        rows.append(benchmark_row(task, info))
        found = [(label, *results[label, task]) for label in labels if (label, task) in results]
        present = [Entry(label, label, run, {task: result}) for label, run, result in found]
        for label, cell in measure(rows[-1], info, present, resamples, seed).items():
            cells[label][task] = cell
    randoms = [trial for trial in trials if trial.family.role == "random" and not _missing(trial, cells, finished)]
    full = cells[UPPER_BOUND]
    tokens = combine([cell.score.tokens for cell in full.values() if cell.score.tokens])
    names = run_names(runs)
    return Table(
        sweep=sweep,
        model=Path(str(runs[0].manifest.protocol["model"])).name,
        runs=tuple(Answered(names[run.path], run.manifest.device, run.manifest.seconds) for run in runs),
        questions=sum(cell.score.samples for cell in full.values()),
        tasks=tuple(tasks),
        benchmarks=tuple(rows),
        full=tokens.averages.full if tokens else math.nan,
        scores={task: cell.score.score.value for task, cell in full.items()},
        lines=tuple(_line(trial, cells, finished, randoms) for trial in trials),
    )


def _line(trial: Trial, cells: Cells, tasks: Sequence[str], randoms: Sequence[Trial]) -> Line:
    """A family at a budget, from the cells of its seeds."""
    if missing := _missing(trial, cells, tasks):
        return Line(trial, missing)
    several = [cells[label] for label in trial.labels]
    tokens = combine([stats for one in several for task in tasks if (stats := one[task].score.tokens)])
    own, control = _kept(trial, cells), _control(trial, randoms)
    return Line(
        trial,
        tokens=tokens.averages.input if tokens else math.nan,
        scores={task: float(np.mean([one[task].score.score.value for one in several])) for task in tasks},
        retention=over_seeds(own),
        seeds=tuple(kept.interval.value for kept in own),
        spread=pooled_seeds(own),
        difference=over_seeds(own, _kept(control, cells)) if control not in (None, trial) else None,
    )


def _missing(trial: Trial, cells: Cells, tasks: Sequence[str]) -> str | None:
    """Why a family has no figures at a budget. A mean over other benchmarks than the others' is none."""
    if trial.refused:
        return trial.refused
    pairs = [(label, task) for label in trial.labels for task in tasks]
    there = sum(task in cells[label] for label, task in pairs)
    return None if there == len(pairs) else f"not finished: {there} of {len(pairs)} benchmarks and seeds are answered"


def _control(trial: Trial, randoms: Sequence[Trial]) -> Trial | None:
    """The random control of a trial's budget: of its own panel; of a panel without one, the first there is."""
    same = [other for other in randoms if other.family.panel == trial.family.panel]
    return next((other for other in same or randoms if other.budget == trial.budget), None)


def _kept(trial: Trial | None, cells: Cells) -> list[Estimate]:
    """The average retention of each seed."""
    labels = trial.labels if trial else ()
    found = [average([cell.retained for cell in cells[label].values()]) for label in labels]
    return [kept for kept in found if kept is not None]


def results_of(runs: Sequence[Run]) -> Results:
    """What is finished, from the first run that holds it."""
    found: dict[tuple[str, str], tuple[Run, Result]] = {}
    for run in runs:
        for result in run.results():
            found.setdefault((result.method, result.benchmark), (run, result))
    return found


def check_alike(runs: Sequence[Run]) -> None:
    """Raise UserError for runs of different protocols, questions, or methods of one name."""
    if differ := protocol_differences(runs):
        raise UserError(f"{_named(runs)} are of different protocols: {', '.join(differ)} differ. Leave one out.")
    for what in ("benchmarks", "methods"):
        known: dict[str, tuple[Run, Any]] = {}
        for run in runs:
            for name, info in getattr(run.manifest, what).items():
                first, other = known.setdefault(name, (run, info))
                if other != info:
                    raise UserError(f"{name} is not the same in {first.path} and {run.path}. Leave one out.")


def _named(runs: Sequence[Run]) -> str:
    return ", ".join(str(run.path) for run in runs)
