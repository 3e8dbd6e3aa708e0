"""`atp-eval run --workers N` and `--ray`: workers answer shares of the batches, then score benchmark by benchmark."""

from __future__ import annotations

import math
import sys
import time

from rich.console import Console

from atp_eval.benchmarks import get_benchmark
from atp_eval.config import RunConfig
from atp_eval.methods import get_method
from atp_eval.parts import gather, lend, take_back
from atp_eval.records import MANIFEST, read_run
from atp_eval.run import Finished, check_names, start_over
from atp_eval.shards.together import Workers, crew_of, part_of, work_through
from atp_eval.shards.units import ShareUnit, Unit, WholeUnit, questions
from atp_eval.shares import Share
from atp_eval.writer import RunWriter

EACH = 4  # shares of a benchmark for each worker, so that none waits long for the last of the others


def evaluate_together(config: RunConfig, workers: Workers, console: Console | None = None) -> Finished:
    """What `run.evaluate` does, by several processes; a worker that dies is replaced.

    Raises UserError and TaskFailure as it does, and UserError for workers that cannot be. A share of which every worker
    died is reported in `Finished.failures`, and its benchmark is not scored.
    """
    check_names(config)
    console, began = console or Console(file=sys.stderr), time.perf_counter()
    given, folder = config, config.run_folder().resolve()
    config = config.model_copy(update={"output": folder})  # workers may run elsewhere
    with RunWriter(folder) as writer:
        gather(folder)
        before = read_run(folder).manifest.seconds if (folder / MANIFEST).exists() else 0.0
        if not config.resume:
            start_over(writer, config)
            config = config.model_copy(update={"resume": True})
        with crew_of(workers, config) as crew:
            work = shares(config, crew.size)
            for unit in work:
                lend(folder, unit.name, ())
            answered = work_through(work, crew, console)
            gather(folder)
            lost = {unit.benchmark for unit in answered.given_up}
            scoring = [unit for unit in benchmarks(config) if unit.benchmark not in lost]
            for unit in scoring:
                lend(folder, unit.name, unit.cells)
            scored = work_through(scoring, crew, console, lambda unit: take_back(folder, unit.part))
        failures = answered.failures + scored.failures
        if (folder / MANIFEST).exists():
            seconds = before + time.perf_counter() - began
            settle(writer, given, str(workers), finished=not failures, seconds=seconds)
    return Finished(given.run_folder(), failures)


def shares(config: RunConfig, workers: int) -> list[Unit]:
    """A run's batches in units: some of a benchmark's each, a benchmark after the other."""
    methods = labels(config)
    found: list[Unit] = []
    for task in config.tasks:
        asked = questions(get_benchmark(task), config)
        of = max(1, min(EACH * workers, math.ceil(asked / int(config.batch_size))))
        for number in range(of):
            name = f"{task}-share-{number + 1}-of-{of}"
            answers = len(methods) * asked // of
            found.append(ShareUnit(name, task, methods, answers, part_of(config, name), config, Share(number, of)))
    return found


def benchmarks(config: RunConfig) -> list[Unit]:
    """A run's benchmarks, which are scored whole."""
    methods, found = labels(config), list[Unit]()
    for task in config.tasks:
        part = part_of(config, task)
        run = config.model_copy(update={"tasks": [task], "output": part})
        found.append(WholeUnit(task, task, methods, len(methods) * questions(get_benchmark(task), config), part, run))
    return found


def labels(config: RunConfig) -> tuple[str, ...]:
    """The methods' labels, each once."""
    return tuple(dict.fromkeys(get_method(spec).label for spec in config.methods))


def settle(writer: RunWriter, config: RunConfig, workers: str, *, finished: bool, seconds: float) -> None:
    """Let run.json tell of the whole run, of which workers told it one piece after the other."""
    manifest = read_run(writer.path).manifest
    told = {"config": config.model_dump(mode="json") | {"workers": workers}, "finished": finished, "seconds": seconds}
    order = [*labels(config), *manifest.methods]
    methods = {name: manifest.methods[name] for name in dict.fromkeys(order) if name in manifest.methods}
    writer.write_manifest(manifest.model_copy(update=told | {"methods": methods}))
