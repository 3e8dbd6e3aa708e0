"""What changed between two runs, for a terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from atp_eval.analysis.compare import Average, Comparison
from atp_eval.analysis.significance import Interval
from atp_eval.reporting.compare import signed, verdict_lines

BEYOND = "*"


def comparison_view(comparison: Comparison) -> Group:
    """The verdict, a row a method, the differences by benchmark, and what a reader has to know."""
    a, b = comparison.names
    parts: list[Text | Table] = []
    if comparison.protocol:
        parts.append(Text("THESE RUNS FOLLOW DIFFERENT PROTOCOLS (--force). What differs:", "bold red"))
        parts += [Text(f"  {key}: {one} and {two}", "red") for key, (one, two) in comparison.protocol.items()]
        parts.append(Text())
    parts += [Text(line) for line in verdict_lines(comparison)]
    parts += [Text(f"Note: {note}", "yellow") for note in comparison.notes]
    parts += [_methods(comparison), _benchmarks(comparison)]
    parts.append(
        Text(
            f"A: {a}; B: {b}. B of A: mean over benchmarks of B's score in per cent of A's, 95 % interval. {BEYOND}: "
            "beyond chance (Holm-adjusted p ≤ 0.05). tokens: entering a layer, averaged. other tokens: questions of "
            "which others were kept. time: B over A, not taken side by side.",
            "dim",
        )
    )
    return Group(*parts)


def _methods(comparison: Comparison) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", overflow="fold")
    for name in ("B of A, %", "answers\nchanged", "gained\nlost", "other\ntokens", "tokens\nA, B", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for average in comparison.averages:
        table.add_row(*map(Text, _row(average)))
    return table


def _row(average: Average) -> tuple[str, ...]:
    mark = BEYOND if average.test.significant else ""
    bounds = f"\n{average.ratio.low:.1f}…{average.ratio.high:.1f}" if average.ratio.bounded else ""
    tokens = average.tokens
    same = tokens is not None and f"{tokens.a:.1f}" == f"{tokens.b:.1f}"
    return (
        average.method,
        f"{average.ratio.value:.1f}{mark}{bounds}",
        f"{average.changed:,}\nof {average.common:,}",
        f"+{average.gained}\n−{average.lost}",
        "–" if average.kept is None else f"{100 * average.kept.value:.1f} %",
        "–" if tokens is None else f"{tokens.a:.1f}" if same else f"{tokens.a:.1f}\n{tokens.b:.1f}",
        _times(average.time),
    )


def _times(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.value:.2f}"


def _benchmarks(comparison: Comparison) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="B less A", title_justify="left", title_style="bold")
    table.add_column("method", overflow="fold", min_width=11)
    for row in comparison.benchmarks:
        unit = row.unit.replace("of ", "/")
        table.add_column(Text(f"{row.name}\n{unit}"), justify="right", no_wrap=True)
    for method in comparison.methods:
        cells = []
        for row in comparison.benchmarks:
            found = comparison.at(method, row.name)
            digits = 1 if row.unit == "%" else 0
            mark = BEYOND if found and found.test.significant else ""
            cells.append("–" if found is None else f"{signed(found.difference.value, digits)}{mark}")
        table.add_row(Text(method), *cells)
    return table
