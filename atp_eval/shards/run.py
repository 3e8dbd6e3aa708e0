"""`atp-eval run --workers N` and `--ray`: workers answer shares of the batches, then score the methods."""

from __future__ import annotations

import math
import sys
import time

from rich.console import Console

from atp_eval.batch_size import CPU_MOST
from atp_eval.benchmarks import get_benchmark
from atp_eval.config import AUTO, RunConfig
from atp_eval.methods import get_method
from atp_eval.parts import gather, lend, take_back
from atp_eval.records import MANIFEST, read_run
from atp_eval.rounds import rounds
from atp_eval.run import Finished, check_names, start_over
from atp_eval.shards.together import Workers, crew_of, part_of, work_through
from atp_eval.shards.units import ShareUnit, WholeUnit, questions
from atp_eval.shares import Share
from atp_eval.writer import RunWriter

EACH = 4  # shares of a round for each worker, so that none waits long for the last of the others


def evaluate_together(config: RunConfig, workers: Workers, console: Console | None = None) -> Finished:
    """What `run.evaluate` does, by several processes; a worker that dies is replaced.

    Raises UserError and TaskFailure as it does, and UserError for workers that cannot be. A share of which every worker
    died is reported in `Finished.failures`, and its benchmarks are not scored.
    """
    check_names(config)
    console, began = console or Console(file=sys.stderr), time.perf_counter()
    given, folder = config, config.run_folder().resolve()
    cache = config.cache_features and config.cache_features.resolve()
    config = config.model_copy(update={"output": folder, "cache_features": cache})  # workers may run elsewhere
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
            lost = {name for unit in answered.given_up for name in unit.benchmarks}
            scores = [unit for unit in scoring(config, crew.size) if lost.isdisjoint(unit.benchmarks)]
            for score in scores:
                lend(folder, score.name, score.cells)
            scored = work_through(scores, crew, console, lambda unit: take_back(folder, unit.part))
        failures = answered.failures + scored.failures
        if (folder / MANIFEST).exists():
            seconds = before + time.perf_counter() - began
            settle(writer, given, str(workers), finished=not failures, seconds=seconds)
    return Finished(given.run_folder(), failures)


def shares(config: RunConfig, workers: int) -> list[ShareUnit]:
    """A run's batches in units: some of a round's each, a round after the other."""
    methods, found = labels(config), list[ShareUnit]()
    size = CPU_MOST if config.batch_size == AUTO else config.batch_size
    for number, names in enumerate(rounds(config), 1):
        asked = sum(questions(get_benchmark(name), config) for name in names)
        of = max(1, min(EACH * workers, math.ceil(asked / size)))
        for i in range(of):
            name = f"round-{number}-share-{i + 1}-of-{of}"
            answers, part = len(methods) * asked // of, part_of(config, name)
            found.append(ShareUnit(name, tuple(names), methods, answers, part, config, Share(i, of)))
    return found


def scoring(config: RunConfig, workers: int) -> list[WholeUnit]:
    """The scoring of a run in units, some methods on a benchmark each: lmms-eval scores a question after the other."""
    methods, found = labels(config), list[WholeUnit]()
    groups = min(workers, len(methods))
    for task in dict.fromkeys(config.tasks):
        for i in range(groups):
            name, some = f"score-{task}-{i + 1}", methods[i::groups]
            part = part_of(config, name)
            run = config.model_copy(update={"tasks": [task], "methods": list(some), "output": part})
            answers = len(some) * questions(get_benchmark(task), config)
            found.append(WholeUnit(name, (task,), some, answers, part, run))
    return found


def labels(config: RunConfig) -> tuple[str, ...]:
    """The methods' labels, each once."""
    return tuple(dict.fromkeys(get_method(spec).label for spec in config.methods))


def settle(writer: RunWriter, config: RunConfig, workers: str, *, finished: bool, seconds: float) -> None:
    """Let run.json tell of the whole run, of which workers told it one piece after the other.

    The batch size is the one that they agreed on. Methods stand in the order in which they were asked for.
    """
    manifest = read_run(writer.path).manifest
    told = config.model_dump(mode="json") | {"batch_size": manifest.config["batch_size"], "workers": workers}
    order = dict.fromkeys([*labels(config), *manifest.methods])
    methods = {name: manifest.methods[name] for name in order if name in manifest.methods}
    update = {"config": told, "methods": methods, "finished": finished, "seconds": seconds}
    writer.write_manifest(manifest.model_copy(update=update))
