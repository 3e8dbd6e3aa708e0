"""Answer the benchmarks with every method of a sweep, and put its table and figure together."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from atp_eval.config import RunConfig
from atp_eval.errors import TaskFailure, UserError
from atp_eval.parts import gather
from atp_eval.plotting import write_chart
from atp_eval.records import MANIFEST, Manifest, Run, read_run
from atp_eval.run import evaluate
from atp_eval.shards.together import Workers
from atp_eval.sweep.kinds import KINDS, Kind, Shown
from atp_eval.sweep.planning import WHOLE, Planned, Shard, plan
from atp_eval.sweep.settings import Sweep
from atp_eval.sweep.together import answer_together
from atp_eval.writer import RunWriter, write_atomically

ENDINGS = ("png", "svg", "pdf")


def run_sweep(
    sweep: Sweep, name: str, output: Path | None = None, *, answer: bool = True, workers: Workers | None = None,
    shard: Shard = WHOLE, others: Sequence[Path] = (), console: Console | None = None, **options: Any,
) -> tuple[Shown, Path]:  # fmt: skip
    """The sweep's table, and where it is written: a path to which `.md`, `.json`, `.csv` and, for the figure, ENDINGS
    are added.

    answer: whether to ask what is not recorded yet; without it table and figure are made of what is there. workers:
    that answer side by side; without them this process does. The other options are those of `plan`.

    Raises UserError for settings that cannot work, or where nothing is there to show, and TaskFailure where a benchmark
    failed; what was computed stays, and is in the files.
    """
    planned = plan(sweep, output, shard=shard, others=others, **options)
    run, failures = planned.run, list[str]()
    if answer and run.methods:
        failures = _answer(planned, workers, console or Console(file=sys.stderr))
    kind = KINDS[sweep.figure]
    try:
        table = kind.make(sweep, planned.trials, _opened(planned), run.tasks)
    except UserError:
        if failures:  # which is why there is nothing to show
            raise TaskFailure("; ".join(failures)) from None
        raise
    where = run.run_folder().parent / (name if run.limit is None else f"{name}-{run.limit}")
    write(kind, table, where)
    if failures:
        raise TaskFailure("; ".join(failures))
    return table, where


def _opened(planned: Planned) -> list[Run]:
    """The run folders that hold answers. Raises UserError where none does."""
    if not planned.folders:
        where = planned.run.output
        raise UserError(f"there are no answers in {where}. Run the sweep first, or name a run folder with --from")
    return [read_run(path) for path in planned.folders]


def _answer(planned: Planned, workers: Workers | None, console: Console) -> list[str]:
    """Fill the plan's run folder, after what workers that were stopped have left there is put in its place; a line for
    each failure."""
    folder, began, failures = planned.run.run_folder(), time.perf_counter(), ["interrupted"]
    with RunWriter(folder):
        gather(folder)
    before = read_run(folder).manifest if (folder / MANIFEST).exists() else None
    try:
        if workers is not None:
            with RunWriter(folder):
                failures = answer_together(planned, workers, console)
        else:
            # A benchmark at a time: all of them hold thousands of files open, and every answer in memory.
            alone = [planned.run.model_copy(update={"tasks": [task]}) for task in planned.open_tasks]
            failures = [line for config in alone for line in evaluate(config, console).failures]
    finally:
        if (folder / MANIFEST).exists():
            seconds = None if workers is None else time.perf_counter() - began
            _settle(folder, planned.run, before, workers, seconds, finished=not failures)
    return failures


def _settle(
    folder: Path, run: RunConfig, before: Manifest | None, workers: Workers | None, seconds: float | None, *,
    finished: bool,
) -> None:  # fmt: skip
    """Let run.json tell of the whole run, of which it was told one piece after the other, in any order.

    seconds: by the clock, where the pieces' own lie side by side. `workers` in its settings says that methods were not
    timed side by side; it stays there.
    """
    with RunWriter(folder) as writer:
        manifest = read_run(folder).manifest
        config, old = run.model_dump(mode="json"), before.config if before else {}
        if workers is not None or "workers" in old:
            config["workers"] = str(workers or old["workers"])
        order = [*(before.methods if before else ()), *run.methods, *manifest.methods]
        methods = {name: manifest.methods[name] for name in order if name in manifest.methods}
        total = manifest.seconds if seconds is None else (before.seconds if before else 0.0) + seconds
        told = {"config": config, "methods": methods, "finished": finished, "seconds": total}
        writer.write_manifest(manifest.model_copy(update=told))


def write(kind: Kind, table: Any, where: Path) -> None:
    """The table and its figure as files, `where` with endings; the CSV is of the figure's marks, which are all rows."""
    write_atomically(where.with_name(f"{where.name}.md"), kind.to_markdown(table))
    write_atomically(where.with_name(f"{where.name}.json"), json.dumps(table.to_json(), indent=1) + "\n")
    write_chart(kind.chart(table, where.name), where.parent, ENDINGS)
