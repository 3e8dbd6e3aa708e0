"""Overlaps, places and costs, made by hand."""

from __future__ import annotations

from atp_eval.analysis import (
    Agreement,
    Compared,
    Cost,
    Fairness,
    Interval,
    Overlap,
    Place,
    compare_budgets,
)
from atp_eval.analysis.cells import Shape
from atp_eval.analysis.tokens import TokenAverages
from atp_eval.reporting.agreement import Part, agreement_parts

NBSP = "\u00a0"
WHOLE = Compared(Interval(1.0), 1.0, Interval(0.0))


def compared(value: float, chance: float, half: float = 0.02) -> Compared:
    gain = value - chance
    return Compared(Interval(value, value - half, value + half), chance, Interval(gain, gain - half, gain + half))


def overlap(first: str, second: str, value: float, chance: float) -> Overlap:
    return Overlap(first, second, 48, (0, 2), (WHOLE, compared(value, chance)))


def placed(label: str, row: float, recall: float | None, chance: float = 0.14, half: float = 0.02) -> Place:
    found = () if recall is None else (WHOLE, compared(recall, chance))
    rows = (Interval(0.5), Interval(row, row - half, row + half))
    return Place(label, 48, 40, (0, 2), (1.0, chance), rows, (Interval(0.5), Interval(0.5)), found, False)


OVERLAPS = (overlap("a@9", "b@9", 0.4, 0.1), overlap("a@9", "c@9", 0.05, 0.1), overlap("b@9", "c@9", 0.11, 0.1))
PLACES = (placed("a@9", 0.7, 0.25), placed("b@9", 0.3, 0.05), placed("c@9", 0.5, 0.15))
FOUND = Agreement(
    Shape(4, 6, 6), 30, (("a@9", "b@9", "c@9", "pool@9"),), OVERLAPS, PLACES, Interval(0.52, 0.5, 0.54), Interval(0.5)
)


NUMBERS = {label: i for i, label in enumerate(["upper_bound", "a@9", "b@9", "c@9", "pool@9"])}.__getitem__


def costs(**tokens: float) -> Fairness:
    rows = [
        Cost(k.replace("_", "@"), k == "upper", TokenAverages(v, v, v, 36.0), v, v, None, None, None)
        for k, v in tokens.items()
    ]
    return compare_budgets(rows)


def part(found: Agreement = FOUND) -> Part:
    (only,) = agreement_parts(found, costs(a_9=9.0, b_9=9.0), NUMBERS)
    return only


def said(text: str) -> str:
    return text.replace(NBSP, " ")
