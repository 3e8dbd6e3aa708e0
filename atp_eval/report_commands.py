"""`atp-eval report`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from atp_eval.errors import UserError
from atp_eval.terminal import Json, console, print_json

SAMPLES, MAX_SIZE = 200, "10MB"
SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kKMG]?i?)B?")
UNITS = {"": 1, "k": 1000, "K": 1000, "M": 1000**2, "G": 1000**3, "Ki": 1024, "ki": 1024, "Mi": 1024**2, "Gi": 1024**3}

REPORT_EPILOG = """
**Examples**

`atp-eval report runs/tiny-mini-1a2b3c` — one file, report.html in the run; tables and figures beside it

`atp-eval report runs/a runs/b -o page.html` — several runs of one protocol on one page

`atp-eval report runs/a -o site` — a folder: site/index.html with images/, figures/ and tables/

`atp-eval report runs/a --bench runs/bench-7b-1a2b3c` — with time and memory as `atp-eval bench` measured them

`atp-eval report runs/a --samples 50 --max-size 3MB` — fewer samples; a page over 3 MB becomes a folder
"""


def report(
    runs: Annotated[list[Path], typer.Argument(help="One or more run folders.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file NAME.html, or a folder.  [default: report.html in the first run]"),
    ] = None,
    samples: Annotated[int, typer.Option(help="Samples in the gallery; 0 for none.")] = SAMPLES,
    max_size: Annotated[str, typer.Option(help="A file that would be larger becomes a folder.")] = MAX_SIZE,
    figures: Annotated[
        bool, typer.Option("--figures/--no-figures", help="Write every figure as PDF and PNG too, and its data as CSV.")
    ] = True,
    bench: Annotated[
        list[Path] | None,
        typer.Option(help="A folder of `atp-eval bench` to show too; RUN/bench and RUN/growth are without it."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compare runs of different protocols; the page says so.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Build the comparison page, tables and figures of finished runs."""
    if samples < 0:
        raise UserError(f"--samples {samples}: 0 or more")
    limit = parse_size(max_size)
    write_report(
        runs,
        output,
        force=force,
        as_json=as_json,
        samples=samples,
        max_size=limit,
        figures=figures,
        benches=bench or (),
    )


def write_report(
    runs: Sequence[Path],
    output: Path | None = None,
    *,
    force: bool = False,
    as_json: bool = False,
    samples: int = SAMPLES,
    max_size: int | None = None,
    figures: bool = False,
    benches: Sequence[Path] = (),
) -> None:
    """The page and the tables of some runs, and what a person wants to see of them at once."""
    from rich.console import Console
    from rich.markup import escape

    from atp_eval.analysis import summarise
    from atp_eval.records import read_run
    from atp_eval.reporting.build import build_report, refuse_mixed
    from atp_eval.reporting.console import comparison_table

    opened = [read_run(path) for path in runs]
    refuse_mixed(opened, force)  # before anything is measured
    limit = parse_size(MAX_SIZE) if max_size is None else max_size
    with Console(stderr=True).status("Measuring ...") as status:  # not on standard output: --json stays JSON

        def say(what: str) -> None:
            status.update(f"{what} ...")

        summary = summarise(opened)
        page = build_report(
            opened, output, force=force, summary=summary, samples=samples, max_size=limit, benches=benches, say=say
        )
    if as_json:
        print_json({**summary.to_json(), "report": str(page)})
        return
    console().print(comparison_table(summary))
    console().print(f"Report: [bold]{escape(str(page.resolve()))}[/bold]", soft_wrap=True, highlight=False)
    if (beside := page.with_name(f"{page.stem}_tables")).is_dir():
        console().print(f"Tables and figures: {escape(str(beside.resolve()))}", soft_wrap=True, highlight=False)


def parse_size(text: str) -> int:
    """`10MB`, `500 kB`, `2MiB` or plain bytes. Raises UserError for what is none."""
    found = SIZE.fullmatch(text.strip())
    if not found or found["unit"] not in UNITS:
        raise UserError(f"--max-size {text!r} is no size; write 10MB, 500kB or 2MiB")
    return int(float(found["number"]) * UNITS[found["unit"]])
