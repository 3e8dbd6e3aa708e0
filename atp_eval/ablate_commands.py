"""`atp-eval ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from atp_eval.terminal import Json, console, print_json, print_plan, split_names

ABLATE_EPILOG = """
**Examples**

`atp-eval ablate tab4` — spatial augmented pruning on the embedded model: trains what is missing, evaluates, prints

`atp-eval ablate tab5 --dry-run` — what would be trained and answered

`atp-eval ablate tab2 --limit 40` — a quick look at the first 40 questions of each benchmark

`atp-eval ablate configs/ablations/tab6.yaml --output runs/ablations` — a file of your own works the same way

The same command again goes on where it stopped. `atp-eval list ablations` shows those that ship.
"""


def ablate(
    ablation: Annotated[str, typer.Argument(help="A name such as tab4, or a YAML file.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of adapters, answers and tables; ablations share it.")
    ] = Path("runs/ablations"),
    tasks: Annotated[str | None, typer.Option(help="Benchmarks, comma-separated.  [default: all seven]")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N documents of each benchmark.")] = None,
    device: Annotated[str | None, typer.Option(help="For answering: `auto`, `cpu`, `cuda`, ...")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done; do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Train and compare the rows of one of the paper's ablations, and print our table beside the paper's."""
    from rich.markup import escape

    from atp_eval.ablation import ablate as run_ablation
    from atp_eval.ablation import load_ablation, plan

    found = load_ablation(ablation)
    options: dict[str, Any] = {"tasks": split_names(tasks) if tasks else None, "limit": limit, "device": device}
    if dry_run:
        print_plan(plan(found, output, **options), as_json)
        return
    name = Path(ablation).stem
    table = run_ablation(found, name, output, **options)
    if as_json:
        print_json(table.to_json())
    else:
        console().print(table.to_rich())
        written = escape(str((output / f"{name}.md").resolve()))
        console().print(f"Table: [bold]{written}[/bold]", soft_wrap=True, highlight=False)
