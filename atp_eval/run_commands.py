"""`atp-eval run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from atp_eval.errors import TaskFailure
from atp_eval.report_commands import write_report
from atp_eval.terminal import Json, Ray, Workers, console, print_json, split_methods, split_names

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
    workers: Workers = None,
    ray: Ray = None,
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
    from atp_eval.records import MANIFEST, read_run

    finished = start(settings, workers=workers, ray=ray)
    if finished is None:  # this process is one rank of several, and another one tells the end
        return
    # There is no run.json where no worker got as far as to write one.
    if not finished.failures or ((finished.folder / MANIFEST).exists() and read_run(finished.folder).results()):
        write_report([finished.folder], as_json=as_json)
    if finished.failures:
        raise TaskFailure("; ".join(finished.failures))


def print_plan(found: dict[str, Any], as_json: bool) -> None:
    """What `--dry-run` found out."""
    if as_json:
        print_json(found)
        return
    from atp_eval.listing import plan_table

    console().print(plan_table(found))
