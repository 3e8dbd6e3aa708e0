"""Budgets that are no average of tokens: `kv=75.6MB`, `flops=30%`, `time=250ms`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from typing import Literal

from atp_eval.cost.calibration import find_calibration
from atp_eval.cost.flops import engine_prefill, kv_bytes
from atp_eval.cost.geometry import Geometry, ModelGeometry
from atp_eval.errors import UserError, unknown

Kind = Literal["kv", "flops", "time"]
Meter = Callable[[Sequence[int], bool], float]  # of visual tokens that enter each layer, and `Method.early`

TEXT_TOKENS = 64  # beside the image in the prompt that FLOPs and time are counted for
SHARE = "%"
UNITS: dict[Kind, dict[str, float]] = {
    "kv": {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "flops": {"M": 1e6, "G": 1e9, "T": 1e12},
    "time": {"ms": 1e-3, "s": 1},
}
EXAMPLES: dict[Kind, str] = {"kv": "kv=75.6MB", "flops": "flops=30%", "time": "time=30%"}


@dataclass(frozen=True)
class Target:
    """What a prompt with one image may cost.

    kind: `kv`, bytes of the visual tokens' keys and values in bf16; `flops`, exact FLOPs of the engine's prefill, with
        TEXT_TOKENS tokens of text; `time`, measured seconds of the same. number: of units. unit: a key of UNITS, or "%"
        of what the unpruned prompt costs.
    """

    kind: Kind
    number: Decimal
    unit: str

    def __str__(self) -> str:
        return f"{self.kind}={self.number.normalize():f}{self.unit}"

    def limit(self, full: float) -> Fraction:
        """The most that a prompt may cost, in bytes, FLOPs or seconds; `full` is the cost of the unpruned prompt."""
        return Fraction(self.number) * (Fraction(full) / 100 if self.unit == SHARE else self._unit)

    def allowing(self, cost: float, full: float) -> Target:
        """The same kind of budget, in this unit, that just allows `cost`: four digits, rounded up."""
        exact = Fraction(cost) / (Fraction(full) / 100 if self.unit == SHARE else self._unit)
        context = Context(prec=4, rounding=ROUND_CEILING)
        number = context.divide(Decimal(exact.numerator), Decimal(exact.denominator))
        return Target(self.kind, number, self.unit)

    def meter(self, geometry: Geometry) -> Meter:
        """What a prompt costs, as a function of the visual tokens that enter each layer and of `Method.early`.

        Raises UserError where the model's sizes are not known, or its time was not measured.
        """
        if not isinstance(geometry, ModelGeometry):
            raise UserError(f"{self} needs a whole ModelGeometry; {geometry} has layers and cells only")
        return _METERS[self.kind](geometry)

    @property
    def _unit(self) -> Fraction:
        return Fraction(UNITS[self.kind][self.unit])


def parse_target(text: str) -> Target:
    """Read `kv=75.6MB`. Raises UserError that names the wrong part."""
    kind, _, rest = (part.strip() for part in text.partition("="))
    if kind not in UNITS:
        raise unknown("budget", kind, UNITS)
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*([A-Za-z%]+)", rest)
    if found is None:
        raise UserError(f"the budget {text!r} must be a number with a unit, such as {EXAMPLES[kind]}")
    number, unit = Decimal(found[1]), found[2]
    if unit != SHARE and unit not in UNITS[kind]:
        raise unknown(f"unit of {kind}", unit, [*UNITS[kind], SHARE])
    if not number or (unit == SHARE and number > 100):
        raise UserError(f"the budget {text!r} must be above 0{' and at most 100%' if unit == SHARE else ''}")
    return Target(kind, number, unit)


def _kv_meter(geometry: ModelGeometry) -> Meter:
    return lambda tokens, early: kv_bytes(geometry, tokens)


def _flops_meter(geometry: ModelGeometry) -> Meter:
    full = geometry.cells + TEXT_TOKENS
    return lambda tokens, early: engine_prefill(geometry, [n + TEXT_TOKENS for n in tokens], full, early).total


def _time_meter(geometry: ModelGeometry) -> Meter:
    seconds = find_calibration(geometry).seconds
    return lambda tokens, early: seconds(tokens)


_METERS: dict[Kind, Callable[[ModelGeometry], Meter]] = {"kv": _kv_meter, "flops": _flops_meter, "time": _time_meter}
