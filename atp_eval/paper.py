"""The figures that the ATP-LLaVA paper prints (arXiv 2412.00447 and its supplement), as claims, never as measurements.

Neither torch nor lmms-eval is imported here.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

TABLES = Path(__file__).parent / "assets" / "paper.yaml"


class PrintedRow(NamedTuple):
    """A row of a printed table: the average of visual tokens where it is given, and values by column."""

    tokens: float | None
    values: dict[str, float | None]


@cache
def printed_tables() -> dict[str, Any]:
    """All of `assets/paper.yaml`."""
    found: dict[str, Any] = yaml.safe_load(TABLES.read_text(encoding="utf-8"))
    return found


def printed_row(table: str, **keys: Any) -> PrintedRow:
    """The one row of a table that has these keys. Raises KeyError for a table that is not there or where not exactly
    one row fits."""
    section = printed_tables()[table]
    found = [row for row in section["rows"] if all(row.get(key) == value for key, value in keys.items())]
    if len(found) != 1:
        raise KeyError(f"{len(found)} rows of {table} have {keys}")
    row = found[0]
    columns = section.get("benchmarks") or section["columns"]
    values = dict(zip(columns, row.get("scores") or row["values"], strict=True))
    tokens = row.get("tokens", values.pop("tokens", None))
    return PrintedRow(tokens, values)
