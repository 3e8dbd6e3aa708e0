"""A sweep's table in Markdown, for a terminal, and as rows of a CSV file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from atp_eval.analysis.significance import Interval
from atp_eval.sweep.settings import Trial
from atp_eval.sweep.table import TOLERANCE, Answered, Line, Table

OFF = "†"
Cell = Callable[[Line], tuple[str, ...]]  # what a cell says, in one line or several


def retention(line: Line) -> tuple[str, ...]:
    """The retention and its interval, marked where the tokens miss the budget."""
    return interval_words(line.retention, mark=OFF if line.off else "")


def difference(line: Line) -> tuple[str, ...]:
    """The difference to random tokens and its interval."""
    return interval_words(line.difference, "+", OFF if line.off else "") if line.difference else ()


def tokens(line: Line) -> tuple[str, ...]:
    """The average tokens that were achieved."""
    return (f"{line.tokens:.1f}{OFF if line.off else ''}",)


SHEETS: dict[str, Cell] = {
    "Retention, per cent of the upper bound": retention,
    "Retention minus that of random tokens, in points": difference,
    "Average tokens achieved": tokens,
}


def to_markdown(table: Table) -> str:
    """For a document: of each panel the retention, the differences to random tokens, and the tokens."""
    parts = [f"## {table.sweep.title}", caption(table)]
    for panel in table.sweep.panels:
        parts += [f"### {panel[0].upper()}{panel[1:]}"] if panel else []
        specs = (f"{family.name} `{family.spec}`" for family in table.sweep.families if family.panel == panel)
        parts.append(f"Specs, to which budgets and seeds are added: {', '.join(specs)}.")
        for title, cell in SHEETS.items():
            header, rows = sheet(table, panel, cell)
            parts += [f"{title}:", markdown(header, [[" ".join(one) for one in row] for row in rows])]
    if why := _why(table):
        parts += ["Without figures:", "\n".join(f"- {line}" for line in why)]
    return "\n\n".join([*parts, answering(table.runs)]) + "\n"


def to_rich(table: Table) -> Group:
    """The same for a terminal, intervals below their values."""
    parts: list[Any] = [Text(f"{table.sweep.title}, {table.model}", "bold")]
    for panel in table.sweep.panels:
        for title, cell in SHEETS.items():
            header, rows = sheet(table, panel, cell)
            shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
            for number, name in enumerate(header):
                shown.add_column(name, justify="right" if number else "left", no_wrap=number > 0, overflow="fold")
            for first, *cells in rows:
                shown.add_row(Text(*first), *(Text("\n".join(narrow(cell))) for cell in cells))
            parts += ["", Text(f"{panel}: {title[0].lower()}{title[1:]}" if panel else title, "bold"), shown]
    parts += [Text(line, "yellow") for line in _why(table)]
    return Group(*parts, Text(f"{caption(table)} {answering(table.runs)}", "dim"))


def to_rows(table: Table) -> list[dict[str, Any]]:
    """One flat row a family and budget, for CSV: its methods and seeds in one cell each, a column a benchmark."""
    rows = []
    for line in table.lines:
        data = line.to_json()
        scores, methods, seeds = data.pop("scores"), data.pop("methods"), data.pop("seeds")
        flat: dict[str, Any] = {}
        for key, value in data.items():
            if key in ("retention", "minus_random", "spread"):
                parts = value or dict.fromkeys(Interval._fields)
                flat |= {key: parts["value"], f"{key}_low": parts["low"], f"{key}_high": parts["high"]}
            else:
                flat[key] = value
        flat |= {"seeds": " ".join(f"{x:.2f}" for x in seeds), "methods": " ".join(methods)}
        rows.append(flat | {b.name: scores.get(b.name) for b in table.benchmarks})
    return rows


def sheet(table: Table, panel: str, cell: Cell) -> tuple[list[str], list[list[tuple[str, ...]]]]:
    """A panel's families by budgets, without those whose figures it leaves out."""
    rows = []
    for family in (family for family in table.sweep.points if family.panel == panel):
        found = [table.at(family, budget) for budget in table.sweep.columns]
        there = [line for line in found if line and not line.missing]
        if not there or any(cell(line) for line in there):
            rows.append([(family.label,), *(() if line is None else _absent(line) or cell(line) for line in found)])
    return ["", *map(str, table.sweep.columns)], rows


def reasons(missing: Iterable[tuple[Trial, str | None]]) -> list[str]:
    """Each reason once, with the families and budgets that it holds for; `@…` stands for a method at its budget."""
    found: dict[str, dict[str, list[str]]] = {}
    for trial, why in missing:
        if why:
            name = trial.methods[0].name
            why = why.replace(f"{name}@{trial.budget}", "@…").replace(f"{name}@", "@")
            budgets = found.setdefault(why, {}).setdefault(trial.family.title, [])
            budgets += [] if trial.budget is None else [str(trial.budget)]
    lines = []
    for why, families in found.items():
        alike: dict[str, list[str]] = {}
        for title, budgets in families.items():
            alike.setdefault(", ".join(budgets), []).append(title)
        where = (f"{', '.join(titles)}{f' at {at}' if at else ''}" for at, titles in alike.items())
        lines.append(f"{'; '.join(where)}: {why}")
    return lines


def caption(table: Table) -> str:
    """What a reader has to know of the figures."""
    several = {len(family.seeds) for family in table.sweep.families if len(family.seeds) > 1}
    absent = [task for task in table.tasks if task not in {b.name for b in table.benchmarks}]
    said = [
        f"{table.questions:,} questions of {', '.join(b.name for b in table.benchmarks)} to {table.model}, which reads "
        f"{table.full:.0f} visual tokens unpruned.",
        "Columns are budgets: visual tokens at the inputs of the decoder's layers, on average.",
        "Retention: per cent of the upper bound's score, averaged over benchmarks, with 95 % intervals clustered by "
        "picture; differences are paired by question.",
        f"Means of {' or '.join(map(str, sorted(several)))} seeds where something is drawn." if several else "",
        f"{OFF} the tokens miss the budget by more than {TOLERANCE * 100:g} %."
        if any(x.off for x in table.lines)
        else "",
        f"Not finished yet, and not in the averages: {', '.join(absent)}." if absent else "",
        table.sweep.note,
    ]
    return " ".join(" ".join(part.split()) for part in said if part)


def answering(runs: Sequence[Answered]) -> str:
    """How long it took, and on what."""
    each = (f"{run.seconds / 60:,.0f} minutes on {run.device} ({run.name})" for run in runs)
    return f"Answering took {', '.join(each)}."


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; a bar in a name is no column's edge."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def _why(table: Table) -> list[str]:
    return reasons((line.trial, line.missing) for line in table.lines)


def _absent(line: Line) -> tuple[str, ...]:
    """What stands where there are no figures."""
    if not line.missing:
        return ()
    return ("out of", "reach") if line.trial.refused else ("not", "finished")


def interval_words(interval: Interval, sign: str = "", mark: str = "") -> tuple[str, ...]:
    """A value and its interval, where it has one."""
    if not math.isfinite(interval.value):
        return ("–",)
    if not interval.bounded:
        return (f"{interval.value:{sign}.1f}{mark}",)
    return f"{interval.value:{sign}.1f}{mark}", f"[{interval.low:{sign}.1f}, {interval.high:{sign}.1f}]"


def narrow(cell: tuple[str, ...]) -> tuple[str, ...]:
    """An interval without what a terminal has no room for: `[79.7, 84.7]` as 79.7…84.7."""
    return tuple(part.strip("[]").replace(", ", "…") if part.startswith("[") else part for part in cell)
