"""Answer the benchmarks with every method of a sweep, and put its table and figure together."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from atp_eval.errors import TaskFailure, UserError
from atp_eval.records import read_run
from atp_eval.run import evaluate
from atp_eval.sweep.figure import draw
from atp_eval.sweep.planning import WHOLE, Shard, plan
from atp_eval.sweep.settings import Sweep
from atp_eval.sweep.table import Table, make_table
from atp_eval.sweep.words import to_markdown, to_rows
from atp_eval.writer import write_atomically


def run_sweep(
    sweep: Sweep, name: str, output: Path | None = None, *, answer: bool = True, shard: Shard = WHOLE,
    others: Sequence[Path] = (), console: Console | None = None, **options: Any,
) -> tuple[Table, Path]:  # fmt: skip
    """The sweep's table, and where it is written: a path to which `.md`, `.json`, `.csv` and, for the figure, `.png`
    and `.svg` are added.

    answer: whether to ask what is not recorded yet; without it table and figure are made of what is there. The other
    options are those of `plan`.

    Raises UserError for settings that cannot work, or where nothing is there to show, and TaskFailure where a benchmark
    failed; what was computed stays, and is in the files.
    """
    planned = plan(sweep, output, shard=shard, others=others, **options)
    run = planned.run
    failures: list[str] = []
    if answer:
        # A benchmark at a time: all of them hold thousands of files open, and every answer in memory.
        for task in planned.open_tasks:
            failures += evaluate(run.model_copy(update={"tasks": [task]}), console or Console(file=sys.stderr)).failures
    if not planned.folders:
        raise UserError(f"there are no answers in {run.output}. Run the sweep first, or name a run folder with --from")
    table = make_table(sweep, planned.trials, [read_run(path) for path in planned.folders], run.tasks)
    where = run.run_folder().parent / (name if run.limit is None else f"{name}-{run.limit}")
    write(table, where)
    if failures:
        raise TaskFailure("; ".join(failures))
    return table, where


def write(table: Table, where: Path) -> None:
    """The table and its figure as files, `where` with endings."""
    text = io.StringIO()
    rows = to_rows(table)
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files = {".md": to_markdown(table), ".json": json.dumps(table.to_json(), indent=1) + "\n", ".csv": text.getvalue()}
    for ending, content in files.items():
        write_atomically(where.with_name(where.name + ending), content)
    draw(table, where)
