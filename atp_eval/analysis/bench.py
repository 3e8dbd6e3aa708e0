"""What a bench says: medians over rounds, ratios within rounds, and shares of what the machine can do."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from atp_eval.analysis.significance import Interval, median_interval
from atp_eval.bench.records import REFERENCE, Bench, Cell, Measured, Stages, read_bench
from atp_eval.cost.flops import kv_bytes, paper_macs

STAGES = ("vision", "prefill", "decode")
Limit = Literal["compute", "memory"]


class Roofline(NamedTuple):
    """share: of the speed that the machine's limits allow: 1 is the roof. limit: the one that binds. flops: a second,
    achieved; bytes: a second that the weights and the cache alone take."""

    share: Interval
    limit: Limit
    flops: float
    bytes: float


@dataclass(frozen=True)
class Row:
    """A cell that ran.

    Of one question: tokens, its mean over layers and samples; low, high: of the samples; kv_bytes: of visual tokens in
    bf16, as Table 6 counts; flops; paper_macs: Eq. 15. Of the whole batch: seconds by stage, `first` (vision and
    prefill: until the first new token) and `total`; peak_bytes. ratio_*: to the unpruned model's, in the same round;
    None for itself. rooflines: by stage; none of a stage that took no time.
    """

    cell: Cell
    solved: str
    is_reference: bool
    text: int
    tokens: float
    low: float
    high: float
    kv_bytes: float
    flops: float
    paper_macs: float
    seconds: dict[str, Interval]
    ratio_first: Interval | None
    ratio_prefill: Interval | None
    ratio_total: Interval | None
    peak_bytes: int | None
    rooflines: dict[str, Roofline]
    rounds: int


class NotRun(NamedTuple):
    """A cell without figures, and why."""

    cell: Cell
    why: str


@dataclass(frozen=True)
class BenchSummary:
    """A bench's rows in its order, and the cells that did not run or are still to be measured."""

    bench: Bench
    rows: tuple[Row, ...]
    not_run: tuple[NotRun, ...]

    def reference_of(self, row: Row) -> Row | None:
        """The unpruned model under the same conditions."""
        return next((r for r in self.rows if r.is_reference and conditions(r.cell) == conditions(row.cell)), None)

    def to_json(self) -> dict[str, Any]:
        """Everything, for programs; NaN bounds are null."""
        return {
            "bench": self.bench.model_dump(mode="json"),
            "rows": json.loads(bench_frame(self).to_json(orient="records")),
            "not_run": [{**cell.model_dump(), "why": why} for cell, why in self.not_run],
        }


def summarise_bench(folder: Path) -> BenchSummary:
    """Read a folder. Raises UserError for one that holds no bench."""
    return summary_of(*read_bench(folder))


def summary_of(bench: Bench, found: Sequence[Measured]) -> BenchSummary:
    """The rows of what was measured."""
    references = {conditions(m.cell): m for m in found if m.cell.method == REFERENCE and m.survey and m.rounds}
    rows, rest = [], []
    for m in found:
        if m.survey is None or not m.rounds:
            rest.append(NotRun(m.cell, m.not_run or "not measured yet; the same command goes on"))
            continue
        rows.append(_row(bench, m, references.get(conditions(m.cell))))
    return BenchSummary(bench, tuple(rows), tuple(rest))


def conditions(cell: Cell) -> tuple[int, str, int, int]:
    """What two cells must share to be compared: all but the method."""
    return cell.batch, cell.attention, cell.side, cell.new


def _row(bench: Bench, m: Measured, reference: Measured | None) -> Row:
    survey, geometry, batch = m.survey, bench.model_geometry(), m.cell.batch
    assert survey is not None
    is_reference = m.cell.method == REFERENCE
    other = None if is_reference else reference
    taken: dict[str, Callable[[Stages], float]] = {
        "vision": lambda s: s.vision,
        "prefill": lambda s: s.prefill,
        "decode": lambda s: s.decode,
        "first": lambda s: s.vision + s.prefill,
        "total": lambda s: s.total,
    }
    seconds = {name: median_interval(np.array([of(s) for s in m.rounds.values()])) for name, of in taken.items()}
    whole = [round(count) for count in survey.tokens]
    operations = {
        "vision": survey.vision_flops,
        "prefill": survey.prefill_flops,
        "decode": survey.decode_flops,
    }
    steps = m.cell.new - 1
    number = _number_bytes(bench)
    cache = batch * kv_bytes(geometry, [count + survey.text for count in whole], number)
    moved = {
        "vision": bench.vision_bytes,
        "prefill": bench.language_bytes + cache,
        "decode": steps * (bench.language_bytes + cache),
    }
    rooflines = {
        stage: _roofline(bench, [taken[stage](s) for s in m.rounds.values()], operations[stage], moved[stage])
        for stage in STAGES
        if seconds[stage].value > 0 and (stage != "decode" or steps)
    }
    return Row(
        cell=m.cell,
        solved=survey.solved,
        is_reference=is_reference,
        text=survey.text,
        tokens=float(np.mean(survey.averages)),
        low=min(survey.averages),
        high=max(survey.averages),
        kv_bytes=float(np.sum(survey.tokens)) * kv_bytes(geometry, [1]),
        flops=sum(operations.values()) / batch,
        paper_macs=float(paper_macs(geometry, whole)),
        seconds=seconds,
        ratio_first=_ratio(m, other, taken["first"]),
        ratio_prefill=_ratio(m, other, taken["prefill"]),
        ratio_total=_ratio(m, other, taken["total"]),
        peak_bytes=survey.peak_bytes,
        rooflines=rooflines,
        rounds=len(m.rounds),
    )


def _number_bytes(bench: Bench) -> int:
    return {"float64": 8, "float32": 4}.get(bench.settings.dtype, 2)


def _ratio(m: Measured, other: Measured | None, of: Callable[[Stages], float]) -> Interval | None:
    """Median over rounds of this cell's time over the other's in the same round."""
    if other is None:
        return None
    both = sorted(m.rounds.keys() & other.rounds.keys())
    return median_interval(np.array([of(m.rounds[n]) / of(other.rounds[n]) for n in both])) if both else None


def _roofline(bench: Bench, seconds: Iterable[float], flops: float, moved: float) -> Roofline:
    """Williams, Waterman, Patterson 2009: no faster than the operations at the machine's peak, nor than what must be
    read at least once at its bandwidth."""
    times = np.array(list(seconds))
    compute, memory = flops / bench.machine.flops, moved / bench.machine.bandwidth
    middle = float(np.median(times))
    share = median_interval(max(compute, memory) / times)
    return Roofline(share, "compute" if compute >= memory else "memory", flops / middle, moved / middle)


def bench_frame(summary: BenchSummary) -> pd.DataFrame:
    """One flat row a cell, for CSV and Parquet."""
    rows = []
    for row in summary.rows:
        found: dict[str, Any] = {
            **row.cell.model_dump(),
            "image_tokens": row.cell.tokens,
            "text_tokens": row.text,
            "solved": row.solved,
            "average_tokens": row.tokens,
            "average_tokens_least": row.low,
            "average_tokens_most": row.high,
            "kv_bytes": row.kv_bytes,
            "flops": row.flops,
            "paper_macs": row.paper_macs,
        }
        for stage, interval in row.seconds.items():
            found |= flat(f"{stage}_seconds", interval)
        for name in ("first", "prefill", "total"):
            found |= flat(f"{name}_ratio", getattr(row, f"ratio_{name}"))
        for stage in STAGES:
            roof = row.rooflines.get(stage)
            found |= flat(f"{stage}_roofline", roof.share if roof else None)
            found |= {f"{stage}_limit": roof.limit if roof else None}
        rows.append(found | {"peak_bytes": row.peak_bytes, "rounds": row.rounds})
    return pd.DataFrame(rows)


def flat(name: str, interval: Interval | None) -> dict[str, float]:
    """An interval in three columns."""
    value, low, high = interval or Interval(math.nan)
    return {name: value, f"{name}_low": low, f"{name}_high": high}
