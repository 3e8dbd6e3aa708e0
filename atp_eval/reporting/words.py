"""How pages write numbers, times and rates."""

from __future__ import annotations

import math
from datetime import datetime, timezone

from atp_eval.analysis import Interval
from atp_eval.analysis.reading import flatten
from atp_eval.reporting.adaptive import signed
from atp_eval.reporting.fairness import quantity


def num(value: float | None, digits: int = 1) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def bounds(interval: Interval | None, digits: int = 1) -> str:
    """`[96.0, 98.2]`, or nothing where there is no interval."""
    if interval is None or not interval.bounded:
        return ""
    return f"[{interval.low:,.{digits}f}, {interval.high:,.{digits}f}]".replace("-", "\u2212")


def rate(interval: Interval) -> str:
    """A rate in [0, 1] as `1.2 % [0.4, 3.1]`."""
    if not math.isfinite(interval.value):
        return "–"
    return f"{100 * interval.value:.1f}\u00a0% {bounds(interval.scaled(100))}"


def seconds(value: float | None) -> str:
    """A time a person can read."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value * 1000:,.1f}\u00a0ms" if value < 1 else f"{value:,.2f}\u00a0s"


def moment(stamp: str) -> str:
    """An ISO time as `2026-11-21 09:00 UTC`; whatever else stays as it is."""
    try:
        return datetime.fromisoformat(stamp).astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return stamp


def plain(value: object) -> str:
    """A setting as text: `x86_64 AVX512, 2 threads · float32 · sdpa`, `2, 6, 15`, `none`, `yes`."""
    match value:
        case None | [] | ():
            return "none"
        case bool():
            return "yes" if value else "no"
        case [*parts] if all(isinstance(part, int | float) for part in parts):
            return ", ".join(map(str, parts))
        case [*parts]:
            return " · ".join(map(plain, parts))
    return str(value)


def heat(retention: float) -> str:
    """The class of a heat-map cell: how much is lost (steps of 2.5 points, 12 at most) or gained."""
    if not math.isfinite(retention):
        return "none"
    if retention > 101.0:
        return f"gain-{min(3, math.ceil((retention - 101.0) / 2.0))}"
    return f"loss-{min(12, max(0, round((100.0 - retention) / 2.5)))}"


FILTERS = {
    "num": num,
    "bounds": bounds,
    "signed": lambda interval, digits=1: signed(Interval(interval.value), digits),
    "rate": rate,
    "quantity": quantity,
    "heat": heat,
    "flat": flatten,
    "plain": plain,
    "seconds": seconds,
    "moment": moment,
}
