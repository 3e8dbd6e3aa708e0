"""`atp-eval budget`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from atp_eval.errors import UserError
from atp_eval.terminal import Json, console, print_json, split_methods

if TYPE_CHECKING:
    from transformers import LlavaConfig

    from atp_eval.cost import ModelGeometry

BUDGET_EPILOG = """
**Examples**

`atp-eval budget fastv@144 grid@144 pool@144 --model llava-hf/llava-1.5-7b-hf` — sizes are built in, no weights needed

`atp-eval budget fastv@kv=75.6MB fastv@flops=30%` — the largest average that costs no more: of visual tokens' keys and
values in bf16, of the LLM's prefill

`atp-eval budget schedule:layers=3-7-16,keep=309-204-113 --model llava-hf/llava-1.5-7b-hf` — SparseVLM's "192" in
other conventions

`atp-eval budget --measure --model llava-hf/llava-1.5-7b-hf --device cuda` — time prefills here, keep the times

`atp-eval budget fastv@time=40% --model llava-hf/llava-1.5-7b-hf --device cuda` — then budgets of time can be met

docs/budgets.md says how papers count.
"""


def budget(
    methods: Annotated[
        list[str] | None,
        typer.Argument(help="Method specs.  [default: those of `atp-eval run`]", show_default=False),
    ] = None,
    model: Annotated[str, typer.Option(help="`tiny`, a folder, or a hub id; LLaVA-1.5's sizes are built in.")] = "tiny",
    text_tokens: Annotated[int, typer.Option(help="Tokens beside the image's in the prompt.")] = 64,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time prefills on this machine first, for budgets and columns of time.")
    ] = False,
    rounds: Annotated[int, typer.Option(help="With --measure: rounds to take medians of.")] = 7,
    device: Annotated[str, typer.Option(help="Where times are for: `auto`, `cpu`, `cuda`, ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="`auto`, `float32`, `bfloat16`, `float16`.")] = "auto",
    attention: Annotated[str, typer.Option(help="`sdpa`, `eager`, `flash_attention_2`.")] = "sdpa",
    as_json: Json = False,
) -> None:
    """Solve methods for their budgets and show what they keep and cost, in every convention; nothing is run."""
    from atp_eval.budgets import budget_table
    from atp_eval.calibrate import find_config, find_place
    from atp_eval.config import make_config
    from atp_eval.cost.calibration import calibration_path, find_calibration
    from atp_eval.engine import model_geometry

    if text_tokens < 1:
        raise UserError(f"--text-tokens {text_tokens}: a prompt has at least 1 token beside the image")
    if rounds < 1:
        raise UserError(f"--rounds {rounds}: at least 1")
    specs = split_methods(",".join(methods)) if methods else make_config(model=model).methods
    config = find_config(model)
    geometry = model_geometry(config, find_place(config, device, dtype, attention))
    if measure:
        measure_times(config, geometry, device, rounds)
    times = find_calibration(geometry) if calibration_path(geometry).exists() else None
    table = budget_table(specs, model, geometry, text_tokens, times)
    if as_json:
        print_json(table.to_json())
    else:
        console().print(table.to_rich())


def measure_times(config: LlavaConfig, geometry: ModelGeometry, device: str, rounds: int) -> None:
    """Time prefills and keep the times; bars go to standard error, so that --json stays JSON."""
    from rich.console import Console

    from atp_eval.calibrate import measure
    from atp_eval.cost.calibration import save_calibration
    from atp_eval.models import find_device

    assert geometry.place is not None, "it is about to be measured there"
    with Console(stderr=True).status(f"Making {geometry.num_layers} layers of random weights ...") as status:

        def progress(done: int, total: int) -> None:
            status.update(f"Timing prefills, round {done} of {total} done ...")

        found = measure(config, find_device(device), geometry.place, rounds, progress)
    save_calibration(geometry, found)
