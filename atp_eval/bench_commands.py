"""`atp-eval bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atp_eval.errors import UserError, unknown
from atp_eval.terminal import Json, console, print_json, print_plan, split_methods, split_names

if TYPE_CHECKING:
    from atp_eval.bench.plan import Plan

ROUNDS = {"methods": 7, "growth": 6}

BENCH_EPILOG = """
**Examples**

`atp-eval bench` — the embedded model with its own weights, the methods of the paper's Table 6; under a minute

`atp-eval bench --model llava-hf/llava-1.5-7b-hf --random-weights --methods upper_bound,fastv@144,atp@144,atp@88
--batch 1,8 --attention sdpa,eager,flash` — Table 6 and supplementary Table 3 at true geometry, without weights

`atp-eval bench --model 7b --random-weights --layers 8 --dtype bfloat16` — where memory or time allow a part of the
layers only; budgets are solved for that depth

`atp-eval bench --model 13b --random-weights --dry-run` — the cells, their operations, and the memory that they need

`atp-eval bench growth` — time and memory against image tokens (144 to 9216), batch and answer length, with fits

`atp-eval bench growth --model 7b --device cuda --attention sdpa,eager --methods upper_bound,atp@kv=25%`

`atp-eval report runs/tiny-mini-1a2b3c --bench runs/bench-tiny-4d5e6f` — the same tables on a run's page

The same command again goes on where it stopped. What cannot run here (flash attention without its package, a batch that
does not fit) is left out, and said so.
"""


def bench(
    what: Annotated[
        str, typer.Argument(help="`methods`: what pruning saves; `growth`: how cost grows.", metavar="[methods|growth]")
    ] = "methods",
    model: Annotated[str, typer.Option(help="`tiny`, `7b`, `13b` (LLaVA-1.5), a folder, or a hub id.")] = "tiny",
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="The model's sizes without its weights; always so for growth.")
    ] = False,
    layers: Annotated[int | None, typer.Option(help="Decoder layers, fewer than the model's own.")] = None,
    methods: Annotated[
        str | None, typer.Option(help="Method specs, comma-separated.  [default: Table 6's; growth: fastv@kv=25%]")
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="Batch sizes, comma-separated.  [default: 1; growth: 1,2,4,8,16]")
    ] = None,
    attention: Annotated[str, typer.Option(help="Of `sdpa`, `eager`, `flash`; comma-separated.")] = "sdpa",
    tokens: Annotated[
        str | None, typer.Option(help="Growth: image tokens, square numbers.  [default: 144,289,576,...,9216]")
    ] = None,
    new_tokens: Annotated[
        str | None, typer.Option(help="Tokens to write; growth: several.  [default: 16; growth: 16,32,64,128,256]")
    ] = None,
    text_tokens: Annotated[int, typer.Option(help="Tokens beside the image's, with random weights.")] = 64,
    rounds: Annotated[
        int | None, typer.Option(help="Measured rounds; intervals need 6.  [default: 7; growth: 6]", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda`, ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="`auto`, `float32`, `bfloat16`, `float16`.")] = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder.  [default: one a set of settings in runs/]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on in the folder, or start over in it.")
    ] = True,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Write figures as PDF and PNG too.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print plan, memory and operations; measure nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure time, memory and operations of pruned models side by side, at true geometry and without weights if need
    be."""
    if what not in ROUNDS:
        raise unknown("bench", what, ROUNDS)
    from atp_eval.bench.plan import Wanted
    from atp_eval.bench.planning import make_plan

    plan = make_plan(
        Wanted(
            kind="growth" if what == "growth" else "methods",
            model=model,
            random_weights=random_weights,
            layers=layers,
            methods=None if methods is None else split_methods(methods),
            batches=whole_numbers("--batch", batch),
            attentions=split_names(attention),
            tokens=whole_numbers("--tokens", tokens),
            news=whole_numbers("--new-tokens", new_tokens),
            text=text_tokens,
            rounds=ROUNDS[what] if rounds is None else rounds,
            device=device,
            dtype=dtype,
        )
    )
    if dry_run:
        print_plan(plan, as_json)
        return
    measure(plan, output or plan.output(), resume, figures, as_json)


def measure(plan: Plan, output: Path, resume: bool, figures: bool, as_json: bool) -> None:
    """Run it under a bar, write its files and print what a person or a program wants of it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from atp_eval.analysis.bench import summarise_bench
    from atp_eval.bench.run import run_bench
    from atp_eval.reporting.bench_console import not_run_lines, to_rich
    from atp_eval.reporting.bench_page import write_bench

    errors = Console(stderr=True)  # not on standard output: --json stays JSON
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("runs"), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    for line in not_run_lines((str(plan.settings.cells[place]), why) for place, why in plan.refused.items()):
        errors.print(line, soft_wrap=True)
    with Progress(*columns, console=errors) as bar:
        task = bar.add_task("Starting", total=None)
        run_bench(
            plan,
            output,
            resume=resume,
            say=lambda said: bar.update(task, description=escape(said)),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        bar.update(task, description="Drawing")
        summary = summarise_bench(output)
        page = write_bench(summary, output, figures)
    if as_json:
        print_json({**summary.to_json(), "page": str(page)})
        return
    console().print(to_rich(summary))
    console().print(f"Bench: [bold]{escape(str(page.resolve()))}[/bold]", soft_wrap=True, highlight=False)


def whole_numbers(option: str, text: str | None) -> list[int] | None:
    """`1,8` as numbers. Raises UserError for what is none."""
    if text is None:
        return None
    try:
        return [int(part) for part in split_names(text)]
    except ValueError:
        raise UserError(f"{option} {text!r}: write whole numbers separated by commas, such as 1,8") from None
