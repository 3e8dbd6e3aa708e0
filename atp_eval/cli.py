"""The command line: `atp-eval run | report | gallery | show | list | tasks | doctor | budget | train | sweep | ...`.

Commands parse, call one function of the package and print; whatever is heavy is imported inside them, so that --help
answers at once. Exit codes: 0 done, 1 a task failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from atp_eval import __version__
from atp_eval.ablate_commands import ABLATE_EPILOG, ablate
from atp_eval.annotate_commands import ANNOTATE_EPILOG, annotate
from atp_eval.bench_commands import BENCH_EPILOG, bench
from atp_eval.budget_commands import BUDGET_EPILOG, budget
from atp_eval.claims_commands import CLAIMS_EPILOG, claims
from atp_eval.compare_commands import COMPARE_EPILOG, compare
from atp_eval.errors import TaskFailure, UserError, unknown
from atp_eval.flops_commands import FLOPS_EPILOG, flops
from atp_eval.gallery_commands import GALLERY_EPILOG, gallery
from atp_eval.report_commands import REPORT_EPILOG, report
from atp_eval.run_commands import RUN_EPILOG, run
from atp_eval.sweep_commands import SWEEP_EPILOG, sweep
from atp_eval.terminal import Json, console, print_json
from atp_eval.train_commands import TRAIN_EPILOG, adapter_app, train

INTERRUPTED = 130  # exit code

app = typer.Typer(
    name="atp-eval",
    help="Run visual-token pruning methods of vision-language models through lmms-eval, side by side.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


RunFolder = Annotated[
    Path, typer.Argument(help="A run folder, as `atp-eval list runs` shows them.", show_default=False)
]


def version(show: bool) -> None:
    """Print the version and leave."""
    if show:
        print(f"atp-eval {__version__}")
        raise typer.Exit


@app.callback()
def common(
    show_version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that stand before the command."""


app.command(epilog=RUN_EPILOG)(run)


@app.command(epilog="**Examples**\n\n`atp-eval show runs/tiny-mini-1a2b3c --benchmark gqa --doc 12`")
def show(
    run: RunFolder,
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", "-b", help="Benchmark.  [default: the run's first]")
    ] = None,
    doc: Annotated[int, typer.Option("--doc", "-d", help="Document number.")] = 0,
    as_json: Json = False,
) -> None:
    """Show one sample: the question, every method's answer and the tokens that each method kept."""
    from atp_eval.reporting.show import render_sample, sample_rows

    rows = sample_rows(run, benchmark, doc)
    if as_json:
        print_json(rows)
    else:
        console().print(render_sample(rows))


@app.command(
    "list",
    epilog="**Examples**\n\n`atp-eval list methods`\n\n`atp-eval list benchmarks --json`\n\n`atp-eval list adapters`",
)
def list_things(
    what: Annotated[
        str,
        typer.Argument(help="methods, benchmarks, models, adapters, ablations, sweeps or runs.", show_default=False),
    ],
    folder: Annotated[Path, typer.Option(help="Where `list runs` looks.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List the methods, benchmarks, models, adapters, ablations, sweeps or runs there are."""
    from atp_eval import listing

    if what not in listing.LISTS:
        raise unknown("list", what, listing.LISTS)
    rows = listing.LISTS[what](folder)
    if as_json:
        print_json(rows)
    else:
        console().print(listing.table(what, rows))


@app.command(
    epilog="**Example**\n\n`lmms-eval --model atp_eval --model_args pretrained=tiny,method=fastv@144 "
    "--tasks gqa_mini --include_path $(atp-eval tasks)`"
)
def tasks(
    suite: Annotated[str, typer.Argument(help="mini or real.")] = "mini",
    as_json: Json = False,
) -> None:
    """Print the folder of a suite's tasks, for lmms-eval's own --include_path."""
    from atp_eval.task_files import task_folder

    if suite not in ("mini", "real"):
        raise unknown("suite", suite, ("mini", "real"))
    folder = task_folder("mini" if suite == "mini" else "real")
    if as_json:
        print_json({"suite": suite, "folder": str(folder)})
    else:
        print(folder)


@app.command(epilog="**Examples**\n\n`atp-eval doctor`\n\n`atp-eval doctor --json`")
def doctor(as_json: Json = False) -> None:
    """Check versions, devices, the embedded model, the plugin and the disk; say how to get what is missing."""
    from atp_eval.doctor import checks, table

    found = checks()
    if as_json:
        print_json([c._asdict() for c in found])
    else:
        console().print(table(found))
    if any(not c.ok for c in found):
        raise typer.Exit(1)


app.command(epilog=REPORT_EPILOG)(report)
app.command(epilog=COMPARE_EPILOG)(compare)
app.command(epilog=GALLERY_EPILOG)(gallery)
app.command(epilog=ANNOTATE_EPILOG)(annotate)
app.command(epilog=BENCH_EPILOG)(bench)
app.command(epilog=BUDGET_EPILOG)(budget)
app.command(epilog=CLAIMS_EPILOG)(claims)
app.command(epilog=FLOPS_EPILOG)(flops)
app.command(epilog=TRAIN_EPILOG)(train)
app.command(epilog=ABLATE_EPILOG)(ablate)
app.command(epilog=SWEEP_EPILOG)(sweep)
app.add_typer(adapter_app, name="adapter")


def main() -> None:
    """The console script: errors that a user can fix are one line on standard error."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # libraries' bars; read when tqdm is imported. Ours is rich's
    try:
        app()
    except UserError as error:
        fail(str(error), 2)
    except TaskFailure as error:
        fail(str(error), 1)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # typer catches Ctrl-C and leaves without a word
            fail("interrupted; the same command goes on where it stopped (train: with --resume)", INTERRUPTED)
        raise


def fail(message: str, code: int) -> None:
    """One line on standard error, and the exit code."""
    sys.stderr.write(f"atp-eval: {' '.join(message.split())}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
