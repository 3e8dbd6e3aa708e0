"""`atp-eval sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from atp_eval.terminal import Json, Ray, Workers, console, print_json, print_plan, split_names

SWEEP_EPILOG = """
**Examples**

`atp-eval sweep baselines` — every method at six budgets on the embedded model: answers what is missing, table, figure

`atp-eval sweep baselines --dry-run` — its methods, the budgets that are out of reach, and how many answers it takes

`atp-eval sweep baselines --limit 40` — a quick look at the first 40 questions of each benchmark

`atp-eval sweep baselines --workers 2` — two processes that share the work; where there are GPUs one each

`atp-eval sweep baselines --ray local` — the same with Ray, a worker for each GPU or core; `--ray auto` joins a cluster

`atp-eval sweep figure2 --workers 2` — Figure 2 of the paper: score against pruning layer and ratio

`atp-eval sweep baselines --shard 1/2`, and elsewhere `--shard 2/2` — two jobs of a batch system, each with half of the
methods

`atp-eval sweep baselines --table-only` — table and figure of what is there, of all shards

`atp-eval sweep my.yaml --output runs/mine` — a file of your own works the same way

The same command again goes on where it stopped, with as many workers as you like. `atp-eval list sweeps` shows those
that ship, docs/sweeps.md how to write one.
"""


def sweep(
    config: Annotated[str, typer.Argument(help="A name such as baselines, or a YAML file.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of answers, table and figure.  [default: the file's]")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Benchmarks, comma-separated.  [default: the file's]")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N documents of each benchmark.")] = None,
    device: Annotated[str | None, typer.Option(help="`auto`, `cpu`, `cuda`, ...")] = None,
    workers: Workers = None,
    ray: Ray = None,
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
    """Compare many methods at many budgets, layers and seeds, against random tokens: a table and a figure."""
    from atp_eval.sweep.planning import WHOLE, Shard, plan
    from atp_eval.sweep.settings import load_sweep

    found = load_sweep(config)
    options: dict[str, Any] = {"tasks": split_names(tasks) if tasks else None, "limit": limit, "device": device}
    options |= {"shard": Shard.parse(shard) if shard else WHOLE, "others": others or ()}
    if dry_run:
        print_plan(plan(found, output, **options), as_json)
        return
    from atp_eval.shards.together import Workers
    from atp_eval.sweep.kinds import KINDS
    from atp_eval.sweep.run import ENDINGS, run_sweep

    options["workers"] = Workers.of(workers, ray)
    table, where = run_sweep(found, Path(config).stem, output, answer=not table_only, **options)
    if as_json:
        print_json(table.to_json() | {"files": str(where.resolve())})
        return
    console().print(KINDS[found.figure].to_rich(table))
    from rich.markup import escape

    files = f"{escape(str(where.resolve()))}.{{{','.join(('md', 'csv', 'json', *ENDINGS))}}}"
    console().print(f"Table and figure: [bold]{files}[/bold]", soft_wrap=True, highlight=False)
