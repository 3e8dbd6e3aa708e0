"""The command line: `atp-eval run | report | gallery | show | list | tasks | doctor | budget | train | sweep | ...`.

Commands parse, call one function of the package and print; whatever is heavy is imported inside them, so that --help
answers at once. Exit codes: 0 done, 1 a task failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

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
from atp_eval.report_commands import REPORT_EPILOG, report, write_report
from atp_eval.sweep_commands import SWEEP_EPILOG, sweep
from atp_eval.terminal import Json, console, print_json, split_methods, split_names
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

RUN_EPILOG = """
**Examples**

`atp-eval run` — the embedded model, all seven mini-benchmarks, the default methods

`atp-eval run --tasks gqa,mmb --methods upper_bound,fastv@144,random@144:seed=1`

`atp-eval run --tasks pope --limit 50 --dry-run` — say what would be done

`atp-eval run --model llava-hf/llava-1.5-7b-hf --device cuda --dtype bfloat16 --prompt vicuna_v1`

`atp-eval run --config run.yaml --output runs/mine` — options given here win over the file

`atp-eval run --batch-size auto --cache-features ~/.cache/features` — as many questions a batch as fit; no picture is
encoded twice

`atp-eval run --workers 2` — two processes that share the questions; where there are GPUs one each

`atp-eval run --ray auto` — the same over the machines of a Ray cluster, which share the output folder

`torchrun --nproc_per_node 8 -m atp_eval run --model ... --device cuda` — the same as eight ranks

The same command again goes on where it stopped, with as many processes as you like. docs/scale.md says more.
"""


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


@app.command(epilog=RUN_EPILOG)
def run(
    context: typer.Context,
    tasks: Annotated[
        str | None, typer.Option(help="Benchmarks, comma-separated. `atp-eval list benchmarks` shows them.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Method specs, comma-separated. `atp-eval list methods` shows them.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="`tiny` (embedded), a folder, or a hub id.")] = None,
    suite: Annotated[str | None, typer.Option(help="`mini`, `real`, or `auto`: mini for tiny, else real.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N documents of each benchmark.")] = None,
    batch_size: Annotated[
        str | None, typer.Option(metavar="N|auto", help="Questions a batch; `auto`: as fit in memory.  [default: 16]")
    ] = None,
    decode: Annotated[
        str | None,
        typer.Option(
            help="`plain`; for greedy answers on a GPU also `graph` (CUDA graphs) or `compiled` (torch.compile)."
        ),
    ] = None,
    share_pictures: Annotated[
        bool | None,
        typer.Option(
            "--share-pictures/--no-share-pictures",
            help="Questions about one picture share the reading of it, or each reads it by itself: other times, same "
            "answers.  [default: share]",
        ),
    ] = None,
    loaders: Annotated[
        int | None, typer.Option(help="Threads that load the next pictures meanwhile; 0: none.  [default: 2]")
    ] = None,
    cache_features: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep encoded pictures there, for runs to come and beside.")
    ] = None,
    no_cache_features: Annotated[
        bool, typer.Option("--no-cache-features", help="Not even where the settings file says so.")
    ] = False,
    cache_features_gb: Annotated[
        float | None, typer.Option(help="Room for them; the least recently used leave.  [default: 20]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder.  [default: one a model and protocol in runs/]")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file with any of these settings.")] = None,
    device: Annotated[str | None, typer.Option(help="`auto`, `cpu`, `cuda`, `cuda:1`, ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="`auto`, `float32`, `bfloat16`, `float16`.")] = None,
    attention: Annotated[str | None, typer.Option(help="`sdpa`, `eager`, `flash_attention_2`.")] = None,
    image: Annotated[
        str | None, typer.Option(help="`pad` to a square (the paper's protocol) or `crop` (the checkpoint's).")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="`hf` (the checkpoint's template) or `vicuna_v1` (with system prompt).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    keep_images: Annotated[
        int | None, typer.Option(help="Pictures kept a benchmark, for the report.  [default: 24]")
    ] = None,
    resume: Annotated[
        bool | None, typer.Option("--resume/--no-resume", help="Go on in the run folder, or start over in it.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that share the questions, with a model each.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="local|auto", help="Ray actors instead: of a cluster of this machine, or the one running."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, run nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Evaluate pruning methods side by side and write the comparison page."""
    from atp_eval.config import RunConfig, load_config, make_config

    given = {k: v for k, v in context.params.items() if k in RunConfig.model_fields and v is not None}
    given |= {k: split(given[k]) for k, split in (("tasks", split_names), ("methods", split_methods)) if k in given}
    settings = make_config(**{**(load_config(config) if config else {}), **given})
    if no_cache_features:
        settings.cache_features = None

    from atp_eval.shards.start import start

    if dry_run:
        from atp_eval.run import plan

        print_plan(plan(settings), as_json)
        return
    from atp_eval.records import read_run

    finished = start(settings, workers=workers, ray=ray)
    if finished is None:  # this process is one rank of several, and another one tells the end
        return
    if not finished.failures or read_run(finished.folder).results():
        write_report([finished.folder], as_json=as_json)
    if finished.failures:
        raise TaskFailure("; ".join(finished.failures))


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


def print_plan(found: dict[str, Any], as_json: bool) -> None:
    """What `--dry-run` found out."""
    if as_json:
        print_json(found)
        return
    from atp_eval.listing import plan_table

    console().print(plan_table(found))


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
