"""`atp-eval sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from atp_eval.terminal import Json, console, print_json, split_names

SWEEP_EPILOG = """
**Examples**

`atp-eval sweep baselines` — every method at six budgets on the embedded model: answers what is missing, table, figure

`atp-eval sweep baselines --dry-run` — its methods, the budgets that are out of reach, and how many answers it takes

`atp-eval sweep baselines --limit 40` — a quick look at the first 40 questions of each benchmark

`atp-eval sweep baselines --shard 1/2`, and beside it `--shard 2/2` — two processes, each with half of the methods; set
OMP_NUM_THREADS=1 where they share a processor

`atp-eval sweep baselines --table-only` — table and figure of what is there, of all shards

`atp-eval sweep my.yaml --output runs/mine` — a file of your own works the same way

The same command again goes on where it stopped. `atp-eval list sweeps` shows those that ship.
"""


def sweep(
    config: Annotated[str, typer.Argument(help="A name such as baselines, or a YAML file.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of answers, table and figure.  [default: the file's]")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Benchmarks, comma-separated.  [default: the file's]")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N documents of each benchmark.")] = None,
    device: Annotated[str | None, typer.Option(help="`auto`, `cpu`, `cuda`, ...")] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Answer the I-th of N shares of the methods, in an own run folder."),
    ] = None,
    others: Annotated[
        list[Path] | None,
        typer.Option("--from", help="A run folder elsewhere with some of the answers; may be given several times."),
    ] = None,
    table_only: Annotated[
        bool, typer.Option("--table-only", "--no-run", help="Ask nothing; table and figure of what is there.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Compare many methods at many budgets, against random tokens of the same budget: a table and a figure."""
    from atp_eval.sweep.planning import WHOLE, Shard, plan
    from atp_eval.sweep.settings import load_sweep

    found = load_sweep(config)
    options: dict[str, Any] = {"tasks": split_names(tasks) if tasks else None, "limit": limit, "device": device}
    options |= {"shard": Shard.parse(shard) if shard else WHOLE, "others": others or ()}
    if dry_run:
        planned = plan(found, output, **options)
        if as_json:
            print_json(planned.to_json())
        else:
            console().print(planned.to_rich())
        return
    from atp_eval.sweep.run import run_sweep
    from atp_eval.sweep.words import to_rich

    table, where = run_sweep(found, Path(config).stem, output, answer=not table_only, **options)
    if as_json:
        print_json(table.to_json() | {"files": str(where.resolve())})
        return
    console().print(to_rich(table))
    from rich.markup import escape

    files = f"{escape(str(where.resolve()))}.{{md,csv,json,png,svg}}"
    console().print(f"Table and figure: [bold]{files}[/bold]", soft_wrap=True, highlight=False)
