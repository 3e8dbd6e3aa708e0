"""An ablation's table: our rows with paired intervals, and the paper's rows apart, since they are of another model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from atp_eval.ablation.settings import Ablation
from atp_eval.analysis.estimate import Estimate
from atp_eval.analysis.measure import Cell, benchmark_row, measure
from atp_eval.analysis.reading import UPPER_BOUND, benchmarks_of, entries
from atp_eval.analysis.retention import average, over_seeds
from atp_eval.analysis.significance import RESAMPLES, Interval
from atp_eval.analysis.summary import BenchmarkRow, plain
from atp_eval.analysis.tokens import combine
from atp_eval.paper import PrintedRow
from atp_eval.records import Run

Cells = dict[str, dict[str, Cell]]  # by label and benchmark


@dataclass(frozen=True)
class Line:
    """A row: means over its seeds.

    tokens: visual tokens that enter a layer, on average. scores: in the benchmarks' shown units. retention: per cent of
    the upper bound, averaged over benchmarks; its interval is that of the questions. seeds: the retention of each;
    difference: to the reference row, paired by question; None for that row itself.
    """

    name: str
    specs: tuple[str, ...]
    tokens: float
    scores: dict[str, float]
    retention: Interval
    seeds: tuple[float, ...]
    difference: Interval | None
    printed: PrintedRow | None


@dataclass(frozen=True)
class Table:
    """An ablation on one model. full: the upper bound's scores and tokens, which are 100 per cent."""

    ablation: Ablation
    model: str
    questions: int
    benchmarks: tuple[BenchmarkRow, ...]
    full: Line
    lines: tuple[Line, ...]

    def to_json(self) -> dict[str, Any]:
        """All figures, JSON-ready."""
        return {
            "title": self.ablation.title,
            "paper_table": self.ablation.table,
            "model": self.model,
            "questions": self.questions,
            "reference": self.ablation.reference,
            "rows": plain((self.full, *self.lines)),
        }

    def to_markdown(self) -> str:
        """Ours, then the paper's, for a document."""
        parts = [f"## {self.ablation.title}", markdown(*self._ours()), self._caption()]
        if printed := self._printed():
            parts += [self._paper_title(), markdown(*printed)]
        return "\n\n".join(parts) + "\n"

    def to_rich(self) -> Group:
        """The same for a terminal, with the scores in a table of their own."""
        header, rows = self._ours()
        scores = slice(2, 2 + len(self.benchmarks))
        kept = [*header[:2], *header[scores.stop :]], [[*row[:2], *row[scores.stop :]] for row in rows]
        each = ["score", *header[scores]], [[row[0], *row[scores]] for row in rows]
        title = f"{self.ablation.title}: {self.model}"
        parts: list[Any] = [Text(title, "bold"), _rich(*kept), _rich(*each), Text(self._caption(), "dim")]
        if printed := self._printed():
            parts += ["", Text(self._paper_title(), "bold"), _rich(*printed)]
        return Group(*parts)

    def _caption(self) -> str:
        seeds = self.ablation.seeds
        said = [
            f"{self.questions:,} questions to {self.model}. Retention: per cent of the upper bound's score, averaged "
            "over benchmarks, with 95 % intervals paired by question and clustered by picture.",
            f"Trained rows: means of seeds {', '.join(map(str, seeds))}." if len(seeds) > 1 else "",
            self.ablation.note,
        ]
        return " ".join(" ".join(part.split()) for part in said if part)

    def _paper_title(self) -> str:
        return f"{self.ablation.table} as printed, LLaVA-1.5-7B: another model: compare the order of rows, not values"

    def _ours(self) -> tuple[list[str], list[list[str]]]:
        seeds = any(len(line.seeds) > 1 for line in self.lines)
        header = ["", "tokens", *(b.name for b in self.benchmarks), "retention"]
        header += ["each seed"] if seeds else []
        header.append(f"minus {self.ablation.reference}")
        rows = []
        for line in (self.full, *self.lines):
            scores = [f"{line.scores[b.name]:.{0 if b.unit != '%' else 1}f}" for b in self.benchmarks]
            each = [" ".join(f"{x:.1f}" for x in line.seeds) if len(line.seeds) > 1 else ""] if seeds else []
            retention = "100" if line is self.full else _interval(line.retention)
            difference = _interval(line.difference, "+") if line.difference else ""
            rows.append([line.name, f"{line.tokens:.1f}", *scores, retention, *each, difference])
        return header, rows

    def _printed(self) -> tuple[list[str], list[list[str]]] | None:
        found = [(line.name, line.printed) for line in self.lines if line.printed]
        if not found:
            return None
        columns = list(dict.fromkeys(c for _, row in found for c in row.values))
        tokens = any(row.tokens is not None for _, row in found)
        rows = [
            [name, *([_number(row.tokens)] if tokens else []), *(_number(row.values.get(c)) for c in columns)]
            for name, row in found
        ]
        return ["", *(["tokens"] if tokens else []), *columns], rows


def make_table(
    ablation: Ablation, specs: dict[str, tuple[str, ...]], run: Run, tasks: Sequence[str], *,
    resamples: int = RESAMPLES, seed: int = 0,
) -> Table:  # fmt: skip
    """Measure the rows of an ablation in a run that holds them all and the upper bound. specs: the methods of each row;
    tasks: the benchmarks to average."""
    wanted = {UPPER_BOUND, *(spec for several in specs.values() for spec in several)}
    present = [e for e in entries([run]) if e.method in wanted]
    cells: Cells = {e.label: {} for e in present}
    benchmarks = []
    for name in (b for b in benchmarks_of(present) if b in tasks):
        info = run.manifest.benchmarks[name]
        row = benchmark_row(name, info)
        benchmarks.append(row)
        for label, cell in measure(row, info, present, resamples, seed).items():
            cells[label][name] = cell
    kept = {row.name: _kept(cells, specs[row.name]) for row in ablation.rows}
    lines = [
        _line(row.name, specs[row.name], cells, kept[row.name], kept[ablation.reference], ablation.printed(row))
        for row in ablation.rows
    ]
    full = _line(UPPER_BOUND, (UPPER_BOUND,), cells, _kept(cells, (UPPER_BOUND,)), None, None)
    questions = sum(cell.score.samples for cell in cells[UPPER_BOUND].values())
    model = Path(str(run.manifest.protocol["model"])).name
    return Table(ablation, model, questions, tuple(benchmarks), full, tuple(lines))


def _kept(cells: Cells, specs: Sequence[str]) -> list[Estimate]:
    """The average retention of each seed."""
    found = [average([cell.retained for cell in cells[spec].values()]) for spec in specs]
    return [kept for kept in found if kept is not None]


def _line(
    name: str, specs: tuple[str, ...], cells: Cells, own: list[Estimate], reference: list[Estimate] | None,
    printed: PrintedRow | None,
) -> Line:  # fmt: skip
    """A row from the cells of its seeds."""
    benchmarks = cells[specs[0]]
    tokens = combine([c.score.tokens for spec in specs for c in cells[spec].values() if c.score.tokens])
    return Line(
        name=name,
        specs=specs,
        tokens=tokens.averages.input if tokens else float("nan"),
        scores={b: float(np.mean([cells[spec][b].score.score.value for spec in specs])) for b in benchmarks},
        retention=over_seeds(own),
        seeds=tuple(kept.interval.value for kept in own),
        difference=over_seeds(own, reference) if reference and reference is not own else None,
        printed=printed,
    )


def _interval(interval: Interval, sign: str = "") -> str:
    if not interval.bounded:
        return "–"
    return f"{interval.value:{sign}.1f} [{interval.low:{sign}.1f}, {interval.high:{sign}.1f}]"


def _number(value: float | None) -> str:
    return "–" if value is None else str(value)


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    header = list(header)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rich(header: Iterable[str], rows: Iterable[Iterable[str]]) -> RichTable:
    """A table for a terminal; names wrap where it is narrow, figures do not."""
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left", no_wrap=number > 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
