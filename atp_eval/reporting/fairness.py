"""Equal budgets? How the page writes what methods' tokens came to."""

from __future__ import annotations

import math

from atp_eval.analysis import Fairness
from atp_eval.reporting.headline import NBSP

PREFIXES = ("", "k", "M", "G", "T", "P")


def verdict(found: Fairness) -> str:
    """One sentence about the pruned methods, where there is nothing to warn of."""
    pruned = [row for row in found.rows if not row.is_reference]
    if len(pruned) < 2 or found.warnings:
        return ""
    least, most = (f(row.tokens.input for row in pruned) for f in (min, max))
    off = 100 * (most / least - 1)
    return (
        f"The {len(pruned)} pruned methods have {least:.1f} to {most:.1f} visual tokens at layer inputs: they differ "
        f"by {off:.1f}{NBSP}% at most, and may be compared."
    )


def quantity(value: float | None, unit: str) -> str:
    """Three digits with a prefix of a thousand: `75.5 MB`, `3.43 GFLOPs`."""
    if value is None or not math.isfinite(value):
        return "–"
    factor, prefix = scale_of(value)
    value, power = value / factor, PREFIXES.index(prefix)
    digits = 0 if power == 0 or abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f}{NBSP}{prefix}{unit}"


def scale_of(value: float) -> tuple[float, str]:
    """The factor of a thousand that a value is written with, and its prefix."""
    power = 0
    while abs(value) / 1000.0**power >= 999.5 and power < len(PREFIXES) - 1:
        power += 1
    return 1000.0**power, PREFIXES[power]
