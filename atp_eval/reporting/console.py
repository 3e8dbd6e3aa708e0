"""The comparison as a table in the terminal."""

from __future__ import annotations

import math

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from atp_eval.analysis import Interval, Summary
from atp_eval.analysis.label_lines import label_lines


class Label:
    """A method's label, in as many lines as its column is narrow, broken between parts."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Only a part wider than the column folds anywhere."""
        yield Text("\n".join(label_lines(self.text, options.max_width)), overflow="fold")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """From its longest part to all of it."""
        return Measurement(max(map(len, label_lines(self.text, 1))), len(self.text)).with_maximum(options.max_width)


def comparison_table(summary: Summary) -> Table:
    """Rows are methods; columns average tokens, each benchmark's score, average retention and time ratio."""
    # Narrow on purpose: seven benchmarks fit into 80 columns, long labels fold.
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, caption=caption(summary), caption_justify="left")
    table.add_column("method", overflow="fold", min_width=11)
    for name, unit in [
        ("tokens", ""),
        *((b.name, b.unit.replace("%", "").replace("of ", "/")) for b in summary.benchmarks),
    ]:
        table.add_column(escape(f"{name}\n{unit}".strip()), justify="right", no_wrap=True)
    table.add_column("retention, %", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for m in summary.methods:
        scores = [
            f"{s.score.value:.{1 if b.unit == '%' else 0}f}" if (s := m.scores.get(b.name)) else "–"
            for b in summary.benchmarks
        ]
        ratio = m.timing.ratio if m.timing else None
        time = f"{ratio.value:.2f}" if ratio else "–"
        tokens = f"{m.average_tokens:.0f}" if math.isfinite(m.average_tokens) else "–"
        table.add_row(Label(m.label), tokens, *scores, spread(m.retention, m.is_reference), time)
    return table


def spread(interval: Interval | None, is_reference: bool) -> str:
    """`97.1 [dim]96.0–98.2[/dim]`; the upper bound is 100 by definition."""
    if interval is None:
        return "–"
    if is_reference or not interval.bounded:
        return f"{interval.value:.1f}"
    return f"{interval.value:.1f} [dim]{interval.low:.1f}–{interval.high:.1f}[/dim]"


def caption(summary: Summary) -> str:
    """What the columns mean, and what a reader must know."""
    lines = [
        "tokens: visual tokens entering a decoder layer, averaged. retention: of the upper bound, paired 95 % "
        "interval. time: of the language model, per question, against the upper bound."
    ]
    if any(e.shared for e in summary.efficiency):
        lines[0] += " Questions about one picture read it once together (--no-share-pictures: each by itself)."
    lines += [f"Note: {w}" for w in summary.warnings]
    return escape("\n".join(lines))
