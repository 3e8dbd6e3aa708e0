"""A sweep over layers in Markdown, for a terminal, and as rows of a CSV file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from atp_eval.analysis.significance import Interval
from atp_eval.sweep.layers import AtLevel, LayerTable
from atp_eval.sweep.settings import Family
from atp_eval.sweep.words import answering, interval_words, markdown, narrow, reasons

SHEETS: dict[str, Callable[[AtLevel], Interval | None]] = {
    "score, per cent right": lambda found: found.score,
    "retention, per cent of the unpruned score": lambda found: found.retention,
    "retention minus that of random tokens, in points": lambda found: found.difference,
}


def to_markdown(table: LayerTable) -> str:
    """For a document: of each family and level the scores, retentions and differences to random tokens."""
    parts = [f"## {table.sweep.title}", caption(table)]
    for family in table.sweep.families:
        parts.append(f"### {family.title}, `{family.spec}`")
        for level in table.levels:
            for title, read in SHEETS.items():
                header, rows = sheet(table, family, level, read)
                if rows:
                    joined = [[" ".join(cell) for cell in row] for row in rows]
                    parts += [f"{level.capitalize()} questions, {title}:", markdown(header, joined)]
    if why := reasons((spot.trial, spot.missing) for spot in table.spots):
        parts += ["Without figures:", "\n".join(f"- {line}" for line in why)]
    return "\n\n".join([*parts, answering(table.runs)]) + "\n"


def to_rich(table: LayerTable) -> Group:
    """The retentions for a terminal; the files have more."""
    parts: list[Any] = [Text(f"{table.sweep.title}, {table.model}", "bold")]
    title, read = list(SHEETS.items())[1]
    for family in table.sweep.families:
        for level in table.levels:
            header, rows = sheet(table, family, level, read)
            shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
            for number, name in enumerate(header):
                shown.add_column(name, justify="right" if number else "left")
            for first, *cells in rows:
                shown.add_row(Text(*first), *(Text("\n".join(narrow(cell))) for cell in cells))
            parts += ["", Text(f"{family.title}, {level} questions: {title}", "bold"), shown]
    parts += [Text(line, "yellow") for line in reasons((spot.trial, spot.missing) for spot in table.spots)]
    return Group(*parts, Text(f"{caption(table)} {answering(table.runs)}", "dim"))


def to_rows(table: LayerTable) -> list[dict[str, Any]]:
    """One flat row a family, layer, count and level, for CSV."""
    rows = []
    for spot in table.spots:
        same = spot.to_json()
        same.pop("levels")
        same["methods"] = " ".join(same["methods"])
        share = None if spot.keep is None else spot.keep / table.cells
        for level in table.levels:
            row = same | {"share": share, "level": level}
            found = spot.levels.get(level)
            for name in AtLevel._fields:
                interval = getattr(found, name) if found else None
                parts = interval or Interval(float("nan"))
                row |= {name: parts.value, f"{name}_low": parts.low, f"{name}_high": parts.high}
            rows.append(row)
    return rows


def sheet(
    table: LayerTable, family: Family, level: str, read: Callable[[AtLevel], Interval | None]
) -> tuple[list[str], list[list[tuple[str, ...]]]]:
    """A family's figures at a level: layers by the share that stays; no rows where it has none of them."""
    rows: list[list[tuple[str, ...]]] = []
    for layer in table.layers:
        found = [table.at(family, layer, keep) for keep in table.keeps]
        shown = [read(spot.levels[level]) if spot else None for spot in found]
        if any(shown):
            rows.append([(str(layer),), *(interval_words(one) if one else () for one in shown)])
    return ["before layer", *(f"{table.share(keep)} ({keep}) stay" for keep in table.keeps)], rows


def caption(table: LayerTable) -> str:
    """What a reader has to know of the figures."""
    several = {len(family.seeds) for family in table.sweep.families if len(family.seeds) > 1}
    unpruned = (
        f"{level}: {' '.join(interval_words(table.scores[level]))} of {table.questions[level]:,} questions"
        for level in table.levels
    )
    said = [
        f"Questions of {', '.join(table.tasks)} to {table.model}, each of which counts alike. Per cent right of the "
        f"unpruned model, {'; '.join(unpruned)}.",
        f"Of {table.cells} visual tokens so many stay from a layer on; layers before it see all. With 95 % intervals "
        "over pictures; differences are paired by question.",
        f"Means of {' or '.join(map(str, sorted(several)))} seeds where something is drawn." if several else "",
        table.sweep.note,
    ]
    return " ".join(" ".join(part.split()) for part in said if part)
