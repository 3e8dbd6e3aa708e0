"""What commands share: names that are separated by commas, tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Protocol

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of tables.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes that share the work, with a model each.", show_default=False)
]
Ray = Annotated[
    str | None,
    typer.Option(metavar="local|auto", help="Ray actors instead: of a cluster of this machine, or the one running."),
]


def print_json(data: Any) -> None:
    """JSON on standard output, for other programs."""
    sys.stdout.write(json.dumps(data, indent=1, default=str) + "\n")


def console() -> Any:
    """The console that tables are printed on."""
    from rich.console import Console

    return Console()


class Plan(Protocol):
    """What a command would do."""

    def to_json(self) -> dict[str, Any]:
        """For a program."""

    def to_rich(self) -> Any:
        """For a terminal."""


def print_plan(planned: Plan, as_json: bool) -> None:
    """What `--dry-run` shows."""
    if as_json:
        print_json(planned.to_json())
    else:
        console().print(planned.to_rich())


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
