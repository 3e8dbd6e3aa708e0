"""`atp-eval flops`."""

from __future__ import annotations

from typing import Annotated

import typer

from atp_eval.errors import UserError
from atp_eval.terminal import Json, console, print_json, split_methods

FLOPS_EPILOG = """
**Examples**

`atp-eval flops --model llava-hf/llava-1.5-7b-hf --schedule 4:126,14:88,24:20` — ATP-LLaVA's average tokens (its Tab. 2)
by every count, beside the unpruned model; sizes are built in, no weights and no network needed

`atp-eval flops --model llava-hf/llava-1.5-7b-hf --method fastv@144 --method sparsevlm@144 --new-tokens 8`

`atp-eval flops --model ./my-llava --method divprune@64` — sizes from the folder's config.json

`atp-eval flops --model llava-hf/llava-1.5-7b-hf --fvcore` — what fvcore counts, and what it passes over

`atp-eval flops --table6` — the paper's Table 6 against arithmetic

**Counts.** *paper*: Eq. 15-16 as printed, multiply-accumulates of the visual tokens. *exact*: two operations for each
multiply-accumulate of every matrix product, text included; equal to torch's FlopCounterMode. *scorer*: what the method
does to choose.

**The paper's Table 6.** KV: 576, 144 and 88 tokens are 302.0, 75.5 and 46.1 MB by their bytes; printed are 302.4, 75.6
and 46.2, which is MiB x 1.05. FLOPs: printed are 9.6, 2.0, 2.1 and 1.5 T; Eq. 15 gives 2.99, 0.73, 0.74 and 0.45 T, the
exact count with 64 text tokens 8.50, 2.72, 2.73 and 1.98 T. No single factor leads from any of these to the printed
figures: for Eq. 15 it is 3.2, 2.7, 2.8 and 3.4.
"""


def flops(
    model: Annotated[
        str, typer.Option(help="`tiny`, a folder with a config.json, or a hub id; LLaVA-1.5's sizes are built in.")
    ] = "tiny",
    schedule: Annotated[
        list[str] | None,
        typer.Option(help="LAYER:COUNT,...: tokens that stay from each layer on. May be given more than once."),
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="A method's spec. May be given more than once.")] = None,
    scorer: Annotated[
        str, typer.Option(help="What schedules choose by: `atp`, `redundant`, `self`, `cross`, `last_row`, `none`.")
    ] = "atp",
    text_tokens: Annotated[int, typer.Option(help="Tokens beside the image's in the prompt.")] = 64,
    before: Annotated[int, typer.Option(help="Of these, before the image; 35 in LLaVA-1.5's own prompt.")] = 5,
    new_tokens: Annotated[int, typer.Option(help="Tokens that are written; the first comes out of the prefill.")] = 1,
    fvcore: Annotated[bool, typer.Option("--fvcore", help="Also what fvcore counts of the unpruned prefill.")] = False,
    table6: Annotated[bool, typer.Option("--table6", help="Only the paper's Table 6 against arithmetic.")] = False,
    as_json: Json = False,
) -> None:
    """Count what answers cost, by the paper's formula and exactly, part by part; nothing is run."""
    if table6:
        show_table_6(as_json)
        return
    if not 0 <= before < text_tokens:
        raise UserError(
            f"--before {before} of --text-tokens {text_tokens}: at least 0, and one text token must follow the image"
        )
    if new_tokens < 1:
        raise UserError(f"--new-tokens {new_tokens}: at least 1")
    from atp_eval.calibrate import find_config
    from atp_eval.engine import model_geometry
    from atp_eval.flops import Asked, flops_table, parse_schedule
    from atp_eval.methods import get_method

    asked = [parse_schedule(text, scorer) for text in schedule or ()]
    asked += [Asked(m.label, m) for m in map(get_method, split_methods(",".join(method or ())))]
    config = find_config(model)
    geometry = model_geometry(config)
    table = flops_table(asked, model, geometry, before, text_tokens - before, new_tokens)
    if fvcore:
        from atp_eval.fvcore_count import trace

        table.traced.extend(trace(config, geometry.cells + text_tokens, kind) for kind in ("sdpa", "eager"))
    if as_json:
        print_json(table.to_json())
    else:
        console().print(table.to_rich())


def show_table_6(as_json: bool) -> None:
    """The paper's Table 6 as printed, and what every way to count gives."""
    from atp_eval.analysis.table6 import KV_UNIT, table_6

    found = table_6()
    if as_json:
        print_json(
            {
                "rows": found.rows,
                "kv": {
                    "printed_mb": [f.value for f in found.kv],
                    "bytes_1e6": found.kv_mb,
                    "mib": found.kv_mib,
                },
                "printed_tflops": [f.value for f in found.tflops],
                "countings": [
                    {**c._asdict(), "factors": c.factors(found.tflops), "explains": c.explains(found.tflops)}
                    for c in found.countings
                ],
            }
        )
        return
    from rich.table import Table

    table = Table(title="Table 6 of ATP-LLaVA by arithmetic (LLaVA-1.5-7B)", title_justify="left")
    table.add_column("")
    for row in found.rows:
        table.add_column(row, justify="right")
    table.add_row("KV, printed MB", *(f"{f.value:.1f}" for f in found.kv))
    table.add_row("KV, bytes / 10^6", *(f"{mb:.1f}" for mb in found.kv_mb))
    table.add_row(f"KV, MiB x {KV_UNIT}", *(f"{KV_UNIT * mib:.1f}" for mib in found.kv_mib))
    table.add_section()
    table.add_row("TFLOPs, printed", *(f"{f.value:.1f}" for f in found.tflops))
    for counting in found.countings:
        factors = counting.factors(found.tflops)
        table.add_row(counting.name, *(f"{v:.2f}\nx {f:.2f}" for v, f in zip(counting.values, factors, strict=True)))
    printer = console()
    printer.print(table)
    if not any(counting.explains(found.tflops) for counting in found.countings):
        printer.print("x: what the printed figure is times ours. No way to count has one factor for all four rows.")
