"""What commands share: names that are separated by commas, tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of tables.")]


def print_json(data: Any) -> None:
    """JSON on standard output, for other programs."""
    sys.stdout.write(json.dumps(data, indent=1, default=str) + "\n")


def console() -> Any:
    """The console that tables are printed on."""
    from rich.console import Console

    return Console()


def split_names(text: str) -> list[str]:
    """`gqa,mmb` as a list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def split_methods(text: str) -> list[str]:
    """`fastv:layer=2,keep=72,random@144` as two specs: a piece that is only `key=value` belongs to the one before."""
    specs: list[str] = []
    for part in split_names(text):
        if specs and "=" in part and not {":", "@"} & set(part.split("=")[0]):
            specs[-1] += f",{part}"
        else:
            specs.append(part)
    return specs
