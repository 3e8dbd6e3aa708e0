"""`atp-eval train` and `atp-eval adapter info`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from atp_eval.errors import UserError
from atp_eval.terminal import Json, console, print_json

adapter_app = typer.Typer(help="Look at trained adapters.", no_args_is_help=True)

TRAIN_EPILOG = """
**Examples**

`atp-eval train configs/tiny/atp_144.yaml` — thresholds for the embedded model, on a CPU

`atp-eval train configs/tiny/atp_144.yaml --resume` — go on from the last checkpoint

`atp-eval train configs/atp_llava15_7b_144.yaml --dry-run --processes 4` — parameters, memory a GPU, steps, the data

`accelerate launch --config_file configs/accelerate_zero3.yaml -m atp_eval train configs/atp_llava15_7b_144.yaml`

`torchrun --nproc_per_node 2 -m atp_eval train configs/tiny/atp_144.yaml` — two processes on a CPU

The adapter is used with `atp-eval run --methods upper_bound,atp:adapter=OUTPUT/adapter`.
"""


def train(
    config: Annotated[Path, typer.Argument(help="A YAML file of settings, as in configs/.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of checkpoints and adapter, instead of the file's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, instead of the file's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the output.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it would take; train nothing.")] = False,
    processes: Annotated[int | None, typer.Option(help="GPUs that --dry-run plans for.  [default: 1]")] = None,
    as_json: Json = False,
) -> None:
    """Train the threshold modules of ATP-LLaVA, alone or with the language model."""
    from atp_eval.training.config import load_train_config, with_changes

    if processes is not None and not dry_run:
        raise UserError(
            f"--processes {processes} is for --dry-run; to train in several: torchrun --nproc_per_node {processes} -m "
            f"atp_eval train {config}"
        )
    settings = with_changes(load_train_config(config), output=output, seed=seed)
    if dry_run:
        from atp_eval.training.plan import plan, plan_table

        found = plan(settings, 1 if processes is None else processes)
        if as_json:
            print_json(found)
        else:
            console().print(plan_table(found))
        return
    from atp_eval.training.recipe import train as run_training

    done = run_training(settings, resume=resume)
    if os.environ.get("RANK", "0") != "0":  # one of several processes speaks
        return
    if as_json:
        print_json(done._asdict())
    else:
        average = "" if done.average is None else f", {done.average:.1f} tokens on average on held-back samples"
        console().print(f"{done.steps} steps{average}")
        console().print(f"Adapter: [bold]{done.adapter.resolve()}[/bold]", soft_wrap=True, highlight=False)


@adapter_app.command(
    "info",
    epilog="**Examples**\n\n`atp-eval adapter info runs/train/atp_144/adapter`\n\n`atp-eval adapter info tiny-144`",
)
def adapter_info(
    adapter: Annotated[str, typer.Argument(help="A folder, or the name of one that ships.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Say what an adapter was trained on, with which options, and how many tokens it keeps."""
    from atp_eval.methods.atp.adapter import load_adapter, shipped

    found = load_adapter(shipped().get(adapter, Path(adapter)))
    told: dict[str, Any] = {
        **found.config.model_dump(mode="json"),
        "theta_means": [[round(x, 4) for x in row] for row in found.theta.tolist()],
        "count_means": [round(x, 1) for x in found.counts.double().mean(0).tolist()] if len(found.counts) else None,
        "parameters": sum(p.numel() for p in found.modules.parameters()),
    }
    if as_json:
        print_json(told)
        return
    from rich.table import Table

    table = Table("setting", "value", show_header=False, box=None, padding=(0, 2))
    for name, value in told.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        for key, one in inner:
            table.add_row(f"{name}.{key}" if key else name, str(one))
    console().print(table)
