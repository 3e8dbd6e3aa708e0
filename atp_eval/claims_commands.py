"""`atp-eval claims`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atp_eval.errors import UserError, unknown
from atp_eval.terminal import Json, console, print_json

if TYPE_CHECKING:
    from atp_eval.analysis.claims import Claim

CLAIMS_EPILOG = """
**Examples**

`atp-eval claims` — the printed figures of ATP-LLaVA that its own other figures contradict

`atp-eval claims runs/llava-7b` — the same, with what the run measured of the same thing on the same model

`atp-eval claims --table tab1` — every figure of Table 1, what follows by arithmetic, and what would measure it

`atp-eval claims --table suppl7 --csv > claims.csv`

A claim is measured where a run asked the whole published benchmark of the model that the claim is about, with the
paper's padding and prompt, by the same method at the same budget. The embedded model's figures never stand beside one.
"""
COLUMNS = ("table", "title", "row", "column", "printed", "unit", "status", "recomputed", "low", "high", "how")
MEASURED = ("measured", "measured_low", "measured_high", "note", "needs")


def claims(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders to measure with.", show_default=False)] = None,
    table: Annotated[
        str | None, typer.Option(help="`tab1` to `tab6`, `suppl2` to `suppl8`, or `all`.  [default: contradictions]")
    ] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV on standard output instead of a table.")] = False,
) -> None:
    """The figures that the paper prints, beside what follows by arithmetic and what runs measured."""
    from atp_eval.analysis import summarise
    from atp_eval.analysis.claims import ledger
    from atp_eval.records import read_run

    if as_json and as_csv:
        raise UserError("--json and --csv: give one of them")
    opened = [read_run(path) for path in runs or ()]
    everything = ledger(opened, summarise(opened) if opened else None)
    found = chosen(everything, table)
    if as_json:
        print_json([dict(zip((*COLUMNS, *MEASURED), cells(claim), strict=True)) for claim in found])
    elif as_csv:
        print_csv(found)
    else:
        console().print(rendered(found, everything, whole=table is not None))


def chosen(found: Sequence[Claim], table: str | None) -> list[Claim]:
    """The claims of a table, or all contradictions. Raises UserError for a table that there is not."""
    if table is None:
        return [claim for claim in found if claim.status == "contradicted"]
    names = {key(claim.table): claim.table for claim in found}
    if table != "all" and table not in names:
        raise unknown("table", table, [*names, "all"])
    return [claim for claim in found if table in ("all", key(claim.table))]


def key(name: str) -> str:
    """`Suppl. Tab. 7` as `suppl7`."""
    return ("suppl" if name.startswith("Suppl") else "tab") + name.rpartition(" ")[2]


def cells(claim: Claim) -> list[Any]:
    """A claim's values in the order of COLUMNS and MEASURED; None where there is none."""
    found, ours = claim.recomputed, claim.measured
    bounded = ours is not None and ours.bounded
    return [
        *(claim.table, claim.title, claim.row, claim.column, claim.printed.value, claim.printed.unit, claim.status),
        *((found.value, found.low, found.high, found.how) if found else (None, None, None, None)),
        *((ours.value, ours.low if bounded else None, ours.high if bounded else None) if ours else (None, None, None)),
        *(claim.note, claim.needs),
    ]


def print_csv(found: Sequence[Claim]) -> None:
    """One line a claim."""
    import pandas as pd

    from atp_eval.spreadsheet import csv_text

    sys.stdout.write(csv_text(pd.DataFrame([cells(claim) for claim in found], columns=[*COLUMNS, *MEASURED])))


def rendered(found: Sequence[Claim], everything: Sequence[Claim], whole: bool) -> Any:
    """A table for people, and how many claims there are of each kind."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    from atp_eval.reporting.claims import counts, shown

    measured = any(claim.measured for claim in found)
    heads = ["figure", "printed", "by arithmetic", *(["ours"] if measured else []), "status" if whole else "how"]
    table = Table(title="ATP-LLaVA's printed figures" + ("" if whole else ": contradictions"), title_justify="left")
    for head in heads:
        table.add_column(head, overflow="fold")
    for claim in found:
        s = shown(claim)
        ours = f"{s.measured.value:,.1f}{' *' if s.note else ''}" if s.measured else ""
        worked = f"{s.worked_out} {s.spread}".strip()
        row = [
            f"{s.where}, {s.what}",
            f"{s.printed} {s.unit}",
            worked,
            *([ours] if measured else []),
            claim.status if whole else s.how,
        ]
        table.add_row(*map(escape, row))
    said = [f"{count} {status}" for status, count in counts(everything).items()]
    notes = [f"Of {len(everything)} figures: {', '.join(said)}. Brackets: what rounding of the printed figures allows."]
    notes += ["*: another quantity of the same name; --json says how it differs."] if measured else []
    wanted = dict.fromkeys(c.needs.replace("`", "") for c in found if not c.measured)
    notes += ["What would measure them:", *(f"  {need}" for need in wanted)] if whole and wanted else []
    return Group(table, *map(escape, notes))
