"""Time, speed and memory: what the page's section on efficiency shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atp_eval.analysis import Interval, Summary
from atp_eval.analysis.stages import Efficiency
from atp_eval.reporting.headline import NBSP


@dataclass(frozen=True)
class TimeRow:
    """A method's times in the table's unit, its ratios and speeds; None where the run does not say."""

    label: str
    is_reference: bool
    llm: Interval
    llm_ratio: Interval | None
    prefill: Interval | None
    prefill_ratio: Interval | None
    decode: Interval | None
    vision: Interval
    questions: Interval
    tokens: Interval | None
    peak: float | None
    saved: Interval | None


@dataclass(frozen=True)
class EfficiencyParts:
    """unit: `ms` or `s`, of all times. digits: after their point. stages, memory: whether any row has them. setting:
    where and how the times were taken."""

    rows: tuple[TimeRow, ...]
    unit: str
    digits: int
    stages: bool
    memory: bool
    setting: str
    words: str
    shared: bool


def efficiency_parts(summary: Summary) -> EfficiencyParts | None:
    """None where nothing was answered in a warm batch."""
    found = summary.efficiency
    if not found:
        return None
    slowest = max(e.llm.seconds.value for e in found)
    unit, factor = ("s", 1.0) if slowest >= 1 else ("ms", 1000.0)
    rows = tuple(_row(e, factor) for e in found)
    return EfficiencyParts(
        rows=rows,
        unit=unit,
        digits=2 if slowest * factor < 10 else 1 if slowest * factor < 1000 else 0,
        stages=any(row.prefill for row in rows),
        memory=any(row.peak for row in rows),
        setting=_setting(found),
        words=_words(found),
        shared=any(e.shared for e in found),
    )


def _row(found: Efficiency, factor: float) -> TimeRow:
    prefill = found.prefill
    return TimeRow(
        label=found.label,
        is_reference=found.is_reference,
        llm=found.llm.seconds.scaled(factor),
        llm_ratio=found.llm.ratio,
        prefill=prefill.seconds.scaled(factor) if prefill else None,
        prefill_ratio=prefill.ratio if prefill else None,
        decode=found.decode_seconds.scaled(factor) if found.decode_seconds else None,
        vision=found.vision.scaled(factor),
        questions=found.questions_per_second,
        tokens=found.tokens_per_second,
        peak=found.peak_bytes,
        saved=found.peak_saved,
    )


def _setting(found: Sequence[Efficiency]) -> str:
    """`batches of 16 on cpu (x86_64, 2 threads)`"""
    said = dict.fromkeys(f"batches of {e.batch_size} on {e.device}" for e in found)
    return " and ".join(said)


def _words(found: Sequence[Efficiency]) -> str:
    """How much faster the pruned methods are, from the least to the most; nothing without an upper bound."""
    ratios = [(e.llm.ratio.value, e.label) for e in found if e.llm.ratio is not None]
    if not ratios:
        return ""
    (fast, first), (slow, last) = min(ratios), max(ratios)
    if len(ratios) == 1:
        return f"{first} takes {fast:.2f} of the unpruned model's time in the LLM, prefill and decoding together."
    return (
        f"Of the unpruned model's time in the LLM, prefill and decoding together, pruned methods take {fast:.2f} "
        f"({first}) to {slow:.2f} ({last}),{NBSP}choosing included."
    )
