"""What a page shows of a bench: tables after the paper's Table 6 and supplementary Table 3, and times by stage.

Times of random weights stand for themselves: nothing here is set against a score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from atp_eval.analysis.bench import STAGES, BenchSummary, Row, bench_frame, summarise_bench
from atp_eval.analysis.significance import Interval
from atp_eval.bench.records import BENCH, REFERENCE
from atp_eval.paper import LLAVA, claimed_tables
from atp_eval.plotting import INK, PAGE, SERIES, SOFT, Chart, Margins, plot_area
from atp_eval.reporting.growth import GrowthParts, growth_parts
from atp_eval.reporting.labels import LETTER, short

BENCH_FOLDERS = ("bench", "growth")  # in a run folder, found without being named
PLAIN = ("eager", "sdpa", "flash_attention_2")  # the first that was measured is what the others are compared with
STAGE_COLOURS = {"vision": SERIES[5], "prefill": SERIES[0], "decode": SERIES[1]}
BAR = 0.3  # inches, of a row of bars
UNITS = (("s", 1.0), ("ms", 1e3))


class BenchRow(NamedTuple):
    """A line of a table. number: of the method's colour and mark. seconds: in the table's unit. saved: share of the
    unpruned model's keys and values, operations and memory that is not there; None for itself."""

    row: Row
    label: str
    number: int
    seconds: dict[str, Interval]
    kv_saved: float | None
    flops_saved: float | None
    peak_saved: float | None


@dataclass(frozen=True)
class Block:
    """Cells of one batch and backend: a table."""

    title: str
    rows: tuple[BenchRow, ...]


class BackendRow(NamedTuple):
    """A method with a backend: seconds of vision and prefill, and the share of the first row's that is saved."""

    label: str
    number: int
    attention: str
    tokens: float
    first: Interval
    saved: float | None


class Claim(NamedTuple):
    """A row that the paper prints."""

    label: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class BenchParts:
    """Of a page's section. id: of its elements; heading: of a page of its own. unit, digits: of times. claims: what the
    paper prints of this model; nothing for others. growth: of a bench of growth, which has no tables. csv: all figures.
    """

    id: str
    heading: str
    title: str
    words: tuple[str, ...]
    setting: str
    random_weights: bool
    blocks: tuple[Block, ...]
    backends: tuple[BackendRow, ...]
    unit: str
    digits: int
    memory: bool
    chart: Chart | None
    growth: GrowthParts | None
    not_run: tuple[tuple[str, str], ...]
    claims: tuple[Claim, ...]
    facts: tuple[tuple[str, str], ...]
    csv: pd.DataFrame


def find_benches(runs: Sequence[Path], given: Sequence[Path]) -> list[Path]:
    """The folders that were named, and those that lie in the run folders."""
    own = (run / name for run in runs for name in BENCH_FOLDERS)
    return list(dict.fromkeys([*given, *(folder for folder in own if (folder / BENCH).exists())]))


def bench_sections(folders: Sequence[Path], known: Mapping[str, int] | None = None) -> tuple[BenchParts, ...]:
    """The parts of each. known: series of labels that the page has. Raises UserError for a folder that is none."""
    return tuple(
        bench_parts(summarise_bench(folder), f"bench-{place}", known) for place, folder in enumerate(folders, 1)
    )


def numbers(labels: Sequence[str], known: Mapping[str, int] | None) -> dict[str, int]:
    """Each label's series: the page's own where it has one, else one behind all of those."""
    found = {REFERENCE: 0, **(known or {})}
    for label in labels:
        found.setdefault(label, 1 + max(found.values()))
    return {label: found[label] for label in labels}


def bench_parts(summary: BenchSummary, id: str = "bench-1", known: Mapping[str, int] | None = None) -> BenchParts:
    """Everything that the templates need."""
    bench, settings = summary.bench, summary.bench.settings
    series = numbers(settings.methods, known)
    slowest = max((row.seconds["total"].value for row in summary.rows), default=0.0)
    unit, factor = UNITS[0] if slowest >= 1 else UNITS[1]
    grows, name = settings.kind == "growth", Path(settings.model).name
    layers, full = bench.geometry["num_layers"], bench.full_layers
    short_of = f", {layers} of {full} layers" if layers < full else ""
    weights = "random weights" if settings.random_weights else "its own weights"
    rounds = "one round" if settings.rounds == 1 else f"medians of {settings.rounds} interleaved rounds"
    return BenchParts(
        id=id,
        heading=f"How the cost of {name} grows" if grows else f"What pruning saves on {name}",
        title="Growth of cost" if grows else "Speed and memory by stage",
        words=tuple(words(summary)),
        setting=(
            f"{name} with {weights}{short_of}, {settings.dtype}, on {bench.machine.device}; {rounds}, {bench.clock}"
        ),
        random_weights=settings.random_weights,
        blocks=() if grows else tuple(blocks(summary, series, factor)),
        backends=() if grows else tuple(backends(summary, series, factor)),
        unit=unit,
        digits=2 if slowest * factor < 100 else 1 if slowest * factor < 1000 else 0,
        memory=any(row.peak_bytes is not None for row in summary.rows),
        chart=None if grows or not summary.rows else stage_chart(summary, f"{id}-stages", unit, factor),
        growth=growth_parts(summary, series, id) if grows and summary.rows else None,
        not_run=tuple((str(cell), why) for cell, why in summary.not_run),
        claims=claims() if settings.model == LLAVA and not grows else (),
        facts=facts(summary),
        csv=bench_frame(summary),
    )


def words(summary: BenchSummary) -> list[str]:
    """Of each batch and backend the method that has the first token soonest."""
    if summary.bench.settings.kind == "growth":
        return []
    said = []
    for batch, attention in dict.fromkeys((r.cell.batch, r.cell.attention) for r in summary.rows):
        pruned = [
            (r.ratio_first.value, r.ratio_total.value, r.cell.method)
            for r in summary.rows
            if (r.cell.batch, r.cell.attention) == (batch, attention) and r.ratio_first and r.ratio_total
        ]
        if pruned:
            first, total, label = min(pruned, key=lambda row: math.inf if math.isnan(row[0]) else row[0])
            said.append(
                f"At batch {batch} with {attention}, {label} has the first token after {first:.2f} of the unpruned "
                f"model's time and the whole answer after {total:.2f}."
            )
    return said


def blocks(summary: BenchSummary, series: dict[str, int], factor: float) -> list[Block]:
    """A table for each batch and backend."""
    found = []
    several = len({row.cell.attention for row in summary.rows}) > 1
    for batch, attention in dict.fromkeys((r.cell.batch, r.cell.attention) for r in summary.rows):
        rows = [r for r in summary.rows if (r.cell.batch, r.cell.attention) == (batch, attention)]
        title = f"Batch {batch}" + (f", {attention}" if several else "")
        found.append(Block(title, tuple(_line(row, summary.reference_of(row), series, factor) for row in rows)))
    return found


def _line(row: Row, reference: Row | None, series: dict[str, int], factor: float) -> BenchRow:
    other = None if row.is_reference else reference
    both = other is not None and row.peak_bytes and other.peak_bytes
    return BenchRow(
        row=row,
        label=row.cell.method,
        number=series[row.cell.method],
        seconds={name: value.scaled(factor) for name, value in row.seconds.items()},
        kv_saved=1 - row.kv_bytes / other.kv_bytes if other else None,
        flops_saved=1 - row.flops / other.flops if other else None,
        peak_saved=1 - (row.peak_bytes or 0) / (other.peak_bytes or 1) if both and other else None,
    )


def backends(summary: BenchSummary, series: dict[str, int], factor: float) -> list[BackendRow]:
    """Supplementary Table 3: each method with each backend at the first batch, against the unpruned model with the
    plainest one that it ran with. Nothing where one backend was measured at that batch."""
    batch = summary.rows[0].cell.batch if summary.rows else None
    rows = [row for row in summary.rows if row.cell.batch == batch]
    if len({row.cell.attention for row in rows}) < 2:
        return []
    unpruned = {row.cell.attention: row.seconds["first"].value for row in rows if row.is_reference}
    plain = next((kind for kind in PLAIN if kind in unpruned), "")
    base = unpruned.get(plain)
    rows.sort(key=lambda r: (summary.bench.settings.methods.index(r.cell.method), PLAIN.index(r.cell.attention)))
    return [
        BackendRow(
            label=row.cell.method,
            number=series[row.cell.method],
            attention=row.cell.attention,
            tokens=row.tokens,
            first=row.seconds["first"].scaled(factor),
            saved=None if base is None or (row.is_reference and row.cell.attention == plain) else
            1 - row.seconds["first"].value / base,
        )
        for row in rows
    ]  # fmt: skip


def claims() -> tuple[Claim, ...]:
    """Table 6 and supplementary Table 3 as printed."""
    tables = {table.key: table for table in claimed_tables()}
    rows = [
        (f"{tables[key].name}: {row.label}", row)
        for key in ("efficiency", "flash_attention")
        for row in tables[key].rows
    ]
    found = []
    for label, row in rows:
        shown = (row.figures.get(name) for name in ("kv_mb", "cuda_ms", "reduction_pct", "tflops"))
        found.append(Claim(label, tuple("" if f is None else f"{f.value:.{f.digits}f}" for f in shown)))
    return tuple(found)


def facts(summary: BenchSummary) -> tuple[tuple[str, str], ...]:
    """The machine and the versions."""
    bench, machine = summary.bench, summary.bench.machine
    return (
        ("device", machine.device),
        ("memory", f"{machine.memory / 1e9:.1f} GB"),
        ("matrix product, measured", f"{machine.flops / 1e12:.3g} TFLOP/s in {bench.settings.dtype}"),
        ("reading, measured", f"{machine.bandwidth / 1e9:.3g} GB/s"),
        ("load at the start", "unknown" if machine.load is None else f"{machine.load:.2f}"),
        ("weights", f"{(bench.vision_bytes + bench.language_bytes) / 1e9:.3g} GB read a pass"),
        ("measured", bench.created),
        ("atp-eval", bench.atp_eval),
        *machine.versions.items(),
    )


def stage_chart(summary: BenchSummary, name: str, unit: str, factor: float) -> Chart:
    """A bar a cell: vision, prefill and decoding, one after the other."""
    rows = summary.rows
    several = len({r.cell.attention for r in rows}) > 1
    names = [f"{short(r.cell.method)}, {r.cell.batch}" + (f", {r.cell.attention[:5]}" if several else "") for r in rows]
    margins = Margins(left=0.25 + LETTER * max(map(len, names)) / 72, bottom=0.5, top=0.32)
    data = [
        {"method": r.cell.method, "batch": r.cell.batch, "attention": r.cell.attention, "stage": stage,
         "seconds": r.seconds[stage].value}
        for r in rows for stage in STAGES
    ]  # fmt: skip
    said = "; ".join(f"{n}: {r.seconds['total'].value * factor:.4g} {unit}" for n, r in zip(names, rows, strict=True))

    def draw(figure: Figure) -> None:
        axes = plot_area(figure, margins)
        left = [0.0] * len(rows)
        for stage in STAGES:
            widths = [r.seconds[stage].value * factor for r in rows]
            axes.barh(range(len(rows)), widths, left=left, height=0.62, color=STAGE_COLOURS[stage], label=stage)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for y, (row, end) in enumerate(zip(rows, left, strict=True)):
            if row.ratio_total is not None:
                axes.text(end, y, f" {row.ratio_total.value:.2f}", va="center", fontsize=8, color=SOFT)
        axes.set_yticks(range(len(rows)), names, color=INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 1.12 * max(left))
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{unit} a batch; beside it the ratio to the unpruned model")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderpad=0, handlelength=1)

    height = margins.bottom + margins.top + BAR * len(rows) + 0.1
    alt = f"Time of vision, prefill and decoding of each method and batch, total: {said}."
    return Chart(name, alt, pd.DataFrame(data), draw, (PAGE, max(1.6, height)))
