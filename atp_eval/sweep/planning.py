"""What a sweep asks for, before anything is loaded: methods, benchmarks, folders, and what is answered already."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from atp_eval.analysis.reading import UPPER_BOUND
from atp_eval.benchmarks import get_benchmark
from atp_eval.config import RunConfig, make_config
from atp_eval.cost import Geometry
from atp_eval.engine import model_geometry
from atp_eval.errors import UserError
from atp_eval.manifest import method_info
from atp_eval.methods import get_method
from atp_eval.models import model_config
from atp_eval.parts import PARTS
from atp_eval.records import MANIFEST, RESULT, SAMPLES, read_run, slug
from atp_eval.run import check_names
from atp_eval.shards.units import questions
from atp_eval.sweep.settings import Sweep, Trial, methods, trials
from atp_eval.sweep.words import reasons

Infos = Mapping[str, Mapping[str, Any]]  # a method's parameters and weights by its label, as manifests hold them


class Shard(NamedTuple):
    """Share `number` (from 1) of `of`: processes side by side each take one, in a run folder of its own."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`1/2`. Raises UserError for anything else."""
        found = re.fullmatch(r"(\d{1,3})/(\d{1,3})", text.strip(), re.ASCII)
        shard = cls(*map(int, found.groups())) if found else cls(0)
        if not 1 <= shard.number <= shard.of:
            raise UserError(f"--shard = {text!r}: write the number of a share and how many there are, such as 1/2")
        return shard


WHOLE = Shard()


class Planned(NamedTuple):
    """A sweep on a model.

    infos: every method that the model can do, the upper bound first. run: the run that answers, with its share of them
    less those that the run folders `elsewhere` hold; it may have none left.
    """

    sweep: Sweep
    trials: tuple[Trial, ...]
    infos: Infos
    run: RunConfig
    elsewhere: tuple[Path, ...]

    @property
    def folders(self) -> tuple[Path, ...]:
        """The run folders that are there, its own first."""
        return tuple(path for path in (self.run.run_folder(), *self.elsewhere) if (path / MANIFEST).exists())

    @property
    def open_tasks(self) -> list[str]:
        """The benchmarks that some method of the run has not finished."""
        done = finished([self.run.run_folder()], self.infos)
        return [task for task in self.run.tasks if any((m, task) not in done for m in self.run.methods)]

    @property
    def answers(self) -> int:
        """Answers of the run's methods to its benchmarks, whether they are there already or not."""
        return len(self.run.methods) * sum(questions(get_benchmark(task), self.run) for task in self.run.tasks)

    @property
    def recorded(self) -> int:
        """How many of them its folder holds, or parts of it that workers were writing when they were stopped."""
        own, run = self.run.run_folder(), self.run
        folders = [own, *(own / PARTS).glob("*")]
        cells = [(slug(method), task) for method in run.methods for task in run.tasks]
        return sum(_lines(folder / method / task / SAMPLES) for folder in folders for method, task in cells)

    def to_rich(self) -> Group:
        """The plan for a terminal: a row a family, and below why some of it is out of reach."""
        run = self.run
        title = (
            f"{len(self.infos)} methods; {len(run.methods)} of them to answer in {run.output}: "
            f"{self.answers:,} answers, {self.recorded:,} of them there"
        )
        table = RichTable(title=Text(title), title_justify="left")
        for name in ("family", "spec", "grid", "seeds", "budgets" if self.sweep.budgets else "points"):
            table.add_column(name, overflow="fold")
        for family in self.sweep.families:
            points = family.points()
            reached = [t for t in self.trials if t.family in points and t.refused is None]
            budgets = dict.fromkeys(str(t.budget) for t in reached if t.budget)
            where = ", ".join(budgets) or f"{len(reached)} of {len(points)}"
            grid = "\n".join(f"{key}: {', '.join(map(str, values))}" for key, values in family.grid.items())
            cells = (family.title, family.spec, grid, " ".join(map(str, family.seeds)), where)
            table.add_row(*map(Text, cells))
        refused = reasons((trial, trial.refused) for trial in self.trials)
        return Group(table, *(Text(f"out of reach: {line}", "yellow") for line in refused))

    def to_json(self) -> dict[str, Any]:
        """The plan for a program."""
        refused = [
            {"family": t.family.label, "panel": t.family.panel, "budget": t.budget, "reason": t.refused}
            for t in self.trials
            if t.refused
        ]
        return {
            "methods": list(self.infos),
            "to_answer": self.run.methods,
            "out_of_reach": refused,
            "tasks": self.run.tasks,
            "answers": self.answers,
            "recorded": self.recorded,
            "run": str(self.run.run_folder()),
            "elsewhere": [str(path) for path in self.elsewhere],
        }


def plan(
    sweep: Sweep, output: Path | None = None, *, shard: Shard = WHOLE, others: Sequence[Path] = (), **options: Any
) -> Planned:
    """What `run_sweep` would do. Answers to the first `limit` questions only lie apart, and so do those of each shard.

    others: run folders elsewhere; what is finished there is not asked again. options: settings of the run that answers
    (`RunConfig`: tasks, limit, device, ...); they win over the file's.

    Raises UserError for a name, a parameter or a setting that cannot be, before anything is loaded, and for a sweep of
    which the model can do nothing.
    """
    asked = [method.label for trial in methods(sweep) for method in trial.methods]
    output = output or sweep.output or Path("runs/sweep")
    shared = {"tasks": list(sweep.tasks), "limit": sweep.limit, "keep_images": 0, **sweep.run}
    given = {**shared, **{key: value for key, value in options.items() if value is not None}}
    if taken := sorted({"model", "methods", "output"} & given.keys()):
        raise UserError(f"run.{taken[0]}: the file's families, its model and --output decide that; leave it out")
    run = make_config(**given, model=sweep.model, methods=[UPPER_BOUND, *asked])
    check_names(run)
    name = "run" if run.limit is None else f"run-{run.limit}"
    own = output / (name if shard == WHOLE else f"{name}-{shard.number}of{shard.of}")
    shards = (path for path in sorted(output.glob(f"{name}-*")) if re.fullmatch(rf"{name}-\d+of\d+", path.name))
    elsewhere = _elsewhere(own, [output / name, *shards], others)

    geometry = _geometry(run, (own, *elsewhere))
    every = trials(sweep, geometry)
    if all(trial.refused for trial in every):
        raise UserError(f"{sweep.model} can do nothing of this sweep: {every[0].refused}")
    solved = {m.label: m for m in (get_method(UPPER_BOUND).solve(geometry), *_dealt(every, WHOLE))}
    infos = {label: method_info(method) for label, method in solved.items()}
    done = finished(elsewhere, infos)
    left = [m.label for m in _dealt(every, shard) if any((m.label, task) not in done for task in run.tasks)]
    if left or any((UPPER_BOUND, task) not in done for task in run.tasks):
        left = list(dict.fromkeys([UPPER_BOUND, *left]))  # each run has its own, so that times can be paired
    return Planned(sweep, every, infos, run.model_copy(update={"methods": left, "output": own}), elsewhere)


def finished(folders: Iterable[Path], infos: Infos) -> set[tuple[str, str]]:
    """(method, benchmark) pairs that run folders have scored, with the parameters and weights of `infos`."""
    return {
        (label, task)
        for folder in folders
        if (folder / MANIFEST).exists()
        for manifest in [read_run(folder).manifest]
        for label, info in infos.items()
        if manifest.methods.get(label) == info
        for task in manifest.benchmarks
        if (folder / slug(label) / task / RESULT).exists()
    }


def _dealt(every: Sequence[Trial], shard: Shard) -> list[Any]:
    """A shard's methods, dealt out budget by budget, so that shares take equally long; not the upper bound."""
    by_budget = sorted((trial for trial in every if trial.refused is None), key=lambda trial: -(trial.budget or 0))
    found = {method.label: method for trial in by_budget for method in trial.methods if method.label != UPPER_BOUND}
    return list(found.values())[shard.number - 1 :: shard.of]


def _elsewhere(own: Path, siblings: Sequence[Path], others: Sequence[Path]) -> tuple[Path, ...]:
    """Run folders besides the own one, each once. Raises UserError for one of `others` that is none."""
    for path in others:
        read_run(path)
    found = {path.resolve(): path for path in (*siblings, *others) if (path / MANIFEST).exists()}
    return tuple(path for key, path in found.items() if key != own.resolve())


def _geometry(run: RunConfig, folders: Iterable[Path]) -> Geometry:
    """The model's, as a run folder remembers it, else from its configuration; weights are not loaded."""
    for path in folders:
        if (path / MANIFEST).exists():
            known = read_run(path).manifest.model["geometry"]
            return Geometry(known["num_layers"], tuple(known["grid"]), has_cls=known.get("has_cls", True))
    return model_geometry(model_config(run.model))


def _lines(path: Path) -> int:
    """Whole lines of a file that may not be there."""
    return path.read_bytes().count(b"\n") if path.exists() else 0
