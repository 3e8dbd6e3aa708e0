"""`atp-eval compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atp_eval.terminal import Json, console, print_json, split_methods

COMPARE_EPILOG = """
**Examples**

`atp-eval compare runs/before runs/after` — what changed: scores, answers, kept tokens, times; a table and a page

`atp-eval compare runs/before runs/after --methods upper_bound,atp@144 -o changes.html`

`atp-eval compare runs/seed-0 runs/seed-1 --force` — runs of different protocols, which is said on the page

`atp-eval compare runs/before runs/after --json | jq '.averages[].ratio'`
"""


def compare(
    first: Annotated[
        Path, typer.Argument(metavar="RUN_A", help="The run folder that stands first.", show_default=False)
    ],
    second: Annotated[Path, typer.Argument(metavar="RUN_B", help="The one held against it.", show_default=False)],
    methods: Annotated[
        str | None,
        typer.Option("--methods", "--method", help="Only these, comma-separated.  [default: all that both runs have]"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page.  [default: compare.html in the second run]")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compare runs of different protocols; the page says so.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what changed between two runs, with significance, and examples of questions that flipped."""
    from rich.markup import escape

    from atp_eval.analysis.compare import compare as measure
    from atp_eval.records import read_run
    from atp_eval.reporting.compare import write_comparison

    chosen = split_methods(methods) if methods is not None else []
    found = measure(read_run(first), read_run(second), chosen, force=force)
    page, table = write_comparison(found, output or second / "compare.html")
    if as_json:
        print_json(found.to_json() | {"page": str(page.resolve()), "csv": str(table.resolve())})
        return
    from atp_eval.reporting.compare_console import comparison_view

    console().print(comparison_view(found))
    console().print(f"Page: [bold]{escape(str(page.resolve()))}[/bold]", soft_wrap=True, highlight=False)
    console().print(f"Table: [bold]{escape(str(table.resolve()))}[/bold]", soft_wrap=True, highlight=False)
