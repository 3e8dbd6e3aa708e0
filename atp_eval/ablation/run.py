"""Train what an ablation lacks, answer the benchmarks with every row, and put the table together."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from atp_eval.ablation.settings import Ablation, specs, trainings
from atp_eval.ablation.table import Table, make_table
from atp_eval.analysis.reading import UPPER_BOUND
from atp_eval.config import RunConfig, make_config
from atp_eval.errors import TaskFailure, UserError
from atp_eval.methods import get_method
from atp_eval.methods.atp.adapter import CONFIG
from atp_eval.records import read_run
from atp_eval.run import check_names, evaluate
from atp_eval.scenes.instructions import FILE, write_instructions
from atp_eval.training.config import TrainConfig, load_train_config
from atp_eval.training.recipe import train
from atp_eval.writer import write_atomically


class Planned(NamedTuple):
    """What an ablation needs: the labels of each row's methods, all trainings by folder, and the run that answers."""

    rows: dict[str, tuple[str, ...]]
    trainings: dict[Path, TrainConfig]
    run: RunConfig

    @property
    def missing(self) -> dict[Path, TrainConfig]:
        """The trainings that are not finished."""
        return {path: config for path, config in self.trainings.items() if not (config.adapter / CONFIG).is_file()}

    def to_rich(self) -> RichTable:
        """The plan for a terminal."""
        title = f"{len(self.missing)} of {len(self.trainings)} to train; answers in {self.run.output}"
        table = RichTable("row", title=title, title_justify="left")
        table.add_column("method", overflow="fold")
        table.add_column("to train", overflow="fold")
        todo = [f"atp:adapter={config.adapter}" for config in self.missing.values()]
        for row, labels in self.rows.items():
            missing = sum(label.startswith(tuple(todo)) for label in labels)
            table.add_row(*(Text(cell) for cell in (row, "\n".join(labels), f"{missing} of {len(labels)}")))
        return table

    def to_json(self) -> dict[str, Any]:
        """The plan for a program."""
        return {
            "rows": self.rows,
            "trained": [str(path) for path in self.trainings if path not in self.missing],
            "to_train": {str(path): {"steps": c.max_steps, "seed": c.seed} for path, c in self.missing.items()},
            "run": str(self.run.run_folder()),
            "tasks": self.run.tasks,
        }


def plan(ablation: Ablation, output: Path, **options: Any) -> Planned:
    """What `ablate` would do. Adapters and answers below `output` are shared by all ablations there; answers to the
    first `limit` questions only lie apart.

    options: settings of the run that answers (`RunConfig`: tasks, limit, device, ...).
    """
    configs = trainings(ablation, output / "adapters")
    rows = {
        row.name: tuple(get_method(spec).label for spec in specs(row, configs.get(row.name, ())))
        for row in ablation.rows
    }
    needed = {config.output: config for several in configs.values() for config in several}
    shared = load_train_config(ablation.training)
    if other := {config.model for config in needed.values()} - {shared.model}:
        raise UserError(f"an ablation compares rows on one model; {other.pop()} is not {shared.model}")
    given = {"keep_images": 0, **ablation.run, **{key: value for key, value in options.items() if value is not None}}
    decided = {
        "model": shared.model,
        "image": shared.image,
        "prompt": shared.prompt,
        "methods": list(dict.fromkeys([UPPER_BOUND, *(label for labels in rows.values() for label in labels)])),
        "output": output / (f"run-{given['limit']}" if "limit" in given else "run"),
    }
    if taken := sorted(decided.keys() & given.keys()):
        raise UserError(f"run.{taken[0]}: the rows, their training and --output decide that; leave it out")
    run = make_config(**decided, **given)
    check_names(run)
    return Planned(rows, needed, run)


def ablate(ablation: Ablation, name: str, output: Path, console: Console | None = None, **options: Any) -> Table:
    """The ablation's table, also written to `output/name.md` and `.json`; options as for `plan`. What is trained or
    answered already is not done again.

    Raises UserError for settings that cannot work, or a folder that another process holds, and TaskFailure where a
    training or a benchmark failed; what was computed stays.
    """
    console = console or Console(file=sys.stderr)
    planned = plan(ablation, output, **options)
    with alone_in(output):
        _train(planned.missing, console)
        finished = evaluate(planned.run, console)
    if finished.failures:
        raise TaskFailure("; ".join(finished.failures))
    table = make_table(ablation, planned.rows, read_run(finished.folder), planned.run.tasks)
    write_atomically(output / f"{name}.md", table.to_markdown())
    write_atomically(output / f"{name}.json", json.dumps(table.to_json(), indent=1) + "\n")
    return table


@contextmanager
def alone_in(output: Path) -> Iterator[None]:
    """Holds the folder, made if it is not there. Raises UserError where another process has it or it cannot be written;
    errors inside the block are not touched."""
    lock = FileLock(output / ".lock", timeout=0)
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(f"{output} is in use by another process. Wait for it, or choose another --output") from None
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror}. Choose another --output") from None
    try:
        yield
    finally:
        lock.release()


def _train(missing: dict[Path, TrainConfig], console: Console) -> None:
    """Train one after the other; one that was interrupted goes on. Scenes that are not drawn yet are."""
    for number, (path, config) in enumerate(missing.items(), 1):
        if config.data.name == FILE and not config.data.exists():
            write_instructions(config.data.parent, workers=2)
        console.print(f"[bold]Training {number} of {len(missing)}[/bold]: {escape(str(path))}", highlight=False)
        train(config, resume=True, console=console)
