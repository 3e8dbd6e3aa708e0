"""A bench on a terminal: what its page shows, in a table or two."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from atp_eval.analysis.bench import BenchSummary, Row
from atp_eval.analysis.significance import Interval
from atp_eval.reporting.bench import BenchParts, BenchRow, bench_parts
from atp_eval.reporting.growth import growth_table


def to_rich(summary: BenchSummary) -> RenderableType:
    """Tables, sentences and what did not run."""
    parts = bench_parts(summary)
    shown: list[RenderableType] = [_block(parts, i) for i in range(len(parts.blocks))]
    words = [*parts.words]
    if parts.growth is not None:
        words += parts.growth.words
        frame = growth_table(parts.growth)
        table = Table(box=box.SIMPLE_HEAD, title="Where growth stops being linear", title_justify="left")
        for name in frame.columns:
            table.add_column(name, overflow="fold")
        for row in frame.itertuples(index=False):
            table.add_row(*(escape(str(value)) for value in row))
        shown.append(table)
    shown += [escape(line) for line in words]
    shown += not_run_lines(parts.not_run)
    return Group(*shown, f"[dim]{escape(parts.setting)}[/dim]")


def not_run_lines(cells: Iterable[tuple[str, str]]) -> list[str]:
    """A line a reason, for a terminal: the first cell and how many more. cells: each with its reason."""
    by_reason: dict[str, list[str]] = {}
    for cell, why in cells:
        by_reason.setdefault(why, []).append(cell)
    return [
        f"[yellow]not run[/yellow] {escape(first)}{f' and {len(more)} more' if more else ''}: {escape(why)}"
        for why, (first, *more) in by_reason.items()
    ]


def _block(parts: BenchParts, place: int) -> Table:
    """Within 80 columns; intervals and what the machine could do at best are on the page."""
    block = parts.blocks[place]
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{block.title}, times in {parts.unit}", title_justify="left", pad_edge=False,
        padding=0,
    )  # fmt: skip
    table.add_column("method", overflow="fold", min_width=11)
    heads = ["tokens", "KV\nMB", "vision", "prefill", "decode", "first\nratio", "in all\nratio", "TFLOP"]
    for head in heads + (["peak\nMB"] if parts.memory else []):
        table.add_column(head, justify="right", no_wrap=True)
    for line in block.rows:
        table.add_row(*_cells(parts, line))
    return table


def _cells(parts: BenchParts, line: BenchRow) -> list[str]:
    row = line.row
    return [
        f"[bold]{escape(line.label)}[/bold]",
        f"{row.tokens:.1f}",
        f"{row.kv_bytes / 1e6:.3g}",
        *(f"{line.seconds[stage].value:.{parts.digits}f}" for stage in ("vision", "prefill", "decode")),
        *(_ratio(row, found) for found in (row.ratio_first, row.ratio_total)),
        f"{row.flops / 1e12:.2g}",
        *([f"{row.peak_bytes / 1e6:.3g}" if row.peak_bytes is not None else "-"] if parts.memory else []),
    ]


def _ratio(row: Row, found: Interval | None) -> str:
    return "1" if row.is_reference else f"{found.value:.2f}" if found else "-"
