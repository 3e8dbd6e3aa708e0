"""Which tokens stay? The page's sentences, tables and figures about the cells that methods keep."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from atp_eval.analysis import Agreement, Compared, Fairness, Interval, Overlap, Place
from atp_eval.analysis.cells import place
from atp_eval.analysis.summary import TRUTH
from atp_eval.plotting import Chart, Panels
from atp_eval.reporting.adaptive import bracketed, listed
from atp_eval.reporting.headline import NBSP
from atp_eval.reporting.places import places_chart, recall_panels

STEPS = 10  # shades of the heat map
NAMED = 4  # methods that a sentence names
NOTICEABLE = 0.01  # of the picture's height; a mean row nearer to the middle is no bias worth a word
CONTROLS = (*TRUTH, "random")  # fill up from the same draws
Series = Callable[[str], int]
Values = Sequence[Interval] | Sequence[Compared]


class Cell(NamedTuple):
    """Of the heat map. kind: `overlap` below the diagonal, `chance` above it, `self` on it, `none` where unknown."""

    kind: str
    text: str
    shade: str
    said: str


class Row(NamedTuple):
    """A method's or a pair's values over stretches of layers."""

    labels: tuple[str, ...]
    values: tuple[Interval | Compared, ...]


class Table(NamedTuple):
    """columns: stretches of layers, `0` or `4–7`."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Part:
    """What is shown of methods that are compared with each other; what would say nothing is None or empty.

    title: what tells them from others. silent: methods without a cell of their own; merging: those with some tokens
    that stand for no cell.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    words: tuple[str, ...]
    heat: tuple[tuple[Cell, ...], ...]
    overlaps: Table
    recalls: Table
    rows: Table
    columns: Table
    panels: Panels | None
    chart: Chart
    silent: str
    merging: str


def agreement_parts(found: Agreement | None, fairness: Fairness, series: Series) -> list[Part]:
    """One for each group of methods, the largest first; none where nothing is known."""
    if found is None:
        return []
    groups = sorted(found.groups, key=len, reverse=True)
    parts: list[Part] = []
    for group in groups:
        places = [p for label in group if (p := found.place(label))]
        if places:
            parts.append(part(f"{len(parts) + 1}", group, places, found, title(group, fairness), series))
    return parts


def part(
    name: str, group: Sequence[str], places: Sequence[Place], found: Agreement, title: str, series: Series
) -> Part:
    """Of one group."""
    labels = tuple(p.label for p in places)
    overlaps = [o for i, a in enumerate(labels) for b in labels[i + 1 :] if (o := found.overlap(a, b))]
    asked = [p for p in places if p.recall]
    layers, starts = found.shape.layers, stretches(places, overlaps)
    last = layers - 1
    words = [overlap_words(overlaps, last), recall_words(asked, last), place_words(places, found, last)]
    return Part(
        name=name,
        title=title,
        labels=labels,
        words=tuple(w for w in words if w),
        heat=tuple(heat_rows(labels, found, last)) if overlaps else (),
        overlaps=table(starts, layers, [((o.first, o.second), o.starts, o.values) for o in overlaps]),
        recalls=table(starts, layers, [((p.label,), p.starts, p.recall) for p in asked]),
        rows=table(starts, layers, [((p.label,), p.starts, p.row) for p in places]),
        columns=table(starts, layers, [((p.label,), p.starts, p.column) for p in places]),
        panels=recall_panels(asked, found.shape.layers, name, series),
        chart=places_chart(places, found, name, series),
        silent=named([label for label in group if label not in labels]),
        merging=named([p.label for p in places if p.merged]),
    )


def title(group: Sequence[str], fairness: Fairness) -> str:
    """`About 144 tokens`"""
    tokens = [row.tokens.input for label in group if (row := fairness.row(label))]
    low, high = min(tokens, default=0.0), max(tokens, default=0.0)
    return f"About {low:.0f} tokens" if high <= low * 1.02 else f"{low:.0f} to {high:.0f} tokens"


# ------------------------------------------------------------------ words


def beyond(gain: Interval) -> int:
    """1 where something is clearly more than chance gives, -1 where less, 0 where the interval holds both.

    What is the same for every question has no interval; it counts as it is.
    """
    low, high = (gain.low, gain.high) if gain.bounded else (gain.value, gain.value)
    return 1 if low > 1e-9 else -1 if high < -1e-9 else 0


def among(label: str, methods: Sequence[str]) -> bool:
    """Whether a label is of one of some methods: `oracle@144:layer=0` of `oracle`."""
    return re.split("[@:]", label, maxsplit=1)[0] in methods


def overlap_words(overlaps: Sequence[Overlap], layer: int) -> str:
    """Who has most in common, and how many pairs more than chance; not of two controls, which draw alike."""
    known = [o for o in overlaps if math.isfinite(o.at(layer).value.value)]
    overlaps = [o for o in known if not (among(o.first, CONTROLS) and among(o.second, CONTROLS))]
    if not overlaps:
        return ""
    ranked = sorted(overlaps, key=lambda o: o.at(layer).gain.value, reverse=True)
    best = ranked[0]
    value = best.at(layer)
    pair = f"{best.first} and {best.second}"
    share = (
        f"of the cells that either keeps, both keep {percent(value.value)} at the last layer; chance alone would give "
        f"{percent_of(value.chance)}."
    )
    if len(overlaps) == 1:
        return f"{pair}: {share}"
    if beyond(value.gain) > 0:
        first = f"{pair} have most in common beyond chance: {share}"
    else:
        first = "No two methods have clearly more cells in common at the last layer than chance alone would give."
    signs = [beyond(o.at(layer).gain) for o in overlaps]
    left = " Pairs of controls, which draw alike, are not counted." if len(overlaps) < len(known) else ""
    return f"{first} Of {len(signs)} pairs, {tally(signs)}.{left}"


def tally(signs: Sequence[int]) -> str:
    """`3 have more in common than chance gives, 1 less; of 2 the intervals include chance`"""
    more, less, neither = (signs.count(s) for s in (1, -1, 0))
    text = f"{more} {'has' if more == 1 else 'have'} more in common than chance gives, {less} less"
    return f"{text}; of {neither} the interval{'s include' if neither > 1 else ' includes'} chance" if neither else text


def recall_words(asked: Sequence[Place], layer: int) -> str:
    """Who keeps what questions are about; what chooses by that is named apart."""
    known = {p.label: p.recall[p.span(layer)] for p in asked}
    known = {label: recall for label, recall in known.items() if math.isfinite(recall.value.value)}
    truth = [label for label in known if among(label, TRUTH)]
    at = {label: recall for label, recall in known.items() if label not in truth}
    apart = f"Chosen by these cells: {shares(truth, known)}." if truth else ""
    return " ".join(text for text in (found_words(at), apart) if text)


def found_words(at: Mapping[str, Compared]) -> str:
    """Who finds what questions are about, and who misses it."""
    if not at:
        return ""
    ranked = sorted(at, key=lambda label: at[label].gain.value, reverse=True)
    best = ranked[0]
    first = (
        f"Of the cells that a question is about, {best} keeps {percent(at[best].value)} to the last layer, where it "
        f"keeps {percent_of(at[best].chance)} of all cells"
    )
    signs = {label: beyond(value.gain) for label, value in at.items()}
    if len(at) == 1:
        ends = {1: "more than chance would", -1: "less than chance would", 0: "no more or less than chance would"}
        return f"{first}: {ends[signs[best]]}."
    more = [label for label in ranked if signs[label] > 0]
    less = [label for label in reversed(ranked) if signs[label] < 0]
    if more:
        others = len(at) - 1
        said = [f"{first}: further above chance than the other {f'{others} methods' if others > 1 else 'method'}."]
    else:
        said = ["No method clearly keeps more of the cells that a question is about than of all cells."]
    if len(more) > 1:
        said.append(f"More than chance also: {shares(more[1:], at)}.")
    if less:
        said.append(f"Less than chance: {shares(less, at)}.")
    return " ".join(said)


def shares(labels: Sequence[str], at: Mapping[str, Compared]) -> str:
    """`fastv@144 (12.9 % [9.6, 16.7] against 14.2 %)`, the first of several."""
    return named([f"{label} ({percent(at[label].value)} against {percent_of(at[label].chance)})" for label in labels])


def place_words(places: Sequence[Place], found: Agreement, layer: int) -> str:
    """Who keeps the bottom or the top of pictures."""
    rows = {p.label: p.row[p.span(layer)] for p in places}
    rows = {label: row for label, row in rows.items() if row.bounded}
    if not rows:
        return ""
    said = []
    for where, sign in (("lower", 1), ("higher", -1)):
        off = [label for label, row in rows.items() if sign * ((row.low if sign > 0 else row.high) - 0.5) > NOTICEABLE]
        off.sort(key=lambda label: sign * rows[label].value, reverse=True)
        if off:
            these = [f"{label} ({rows[label].value:.2f}{bracketed(rows[label], 2)})" for label in off[:NAMED]]
            more = [f"{len(off) - NAMED} more"] if len(off) > NAMED else []
            said.append(f"{where} than the middle of the picture under {listed(these + more, 'and')}")
    text = (
        f"At the last layer, kept cells lie {'; '.join(said)}, as mean rows from 0 at the top to 1 at the bottom."
        if said
        else "No method's kept cells lie clearly lower or higher than the middle of the picture."
    )
    asked = found.asked_row
    return text + (f" Those asked about lie at {asked.value:.2f}{bracketed(asked, 2)}." if asked else "")


def percent(share: Interval) -> str:
    """`25.3 % [24.1, 26.5]`"""
    return f"{100 * share.value:.1f}{NBSP}%{bracketed(share.scaled(100), 1)}"


def percent_of(share: float) -> str:
    """`4.2 %`"""
    return f"{100 * share:.1f}{NBSP}%"


def named(labels: Sequence[str]) -> str:
    """The first labels, and how many more."""
    more = [f"{len(labels) - NAMED} more"] if len(labels) > NAMED else []
    return listed([*labels[:NAMED], *more], "and") if labels else ""


# ------------------------------------------------------------------ tables


def heat_rows(labels: Sequence[str], found: Agreement, layer: int) -> list[tuple[Cell, ...]]:
    """Overlap below the diagonal, chance above it: where two mirrored cells look alike, there is nothing but chance."""
    rows = []
    for i, first in enumerate(labels):
        cells = []
        for j, second in enumerate(labels):
            overlap = found.overlap(first, second)
            if i == j:
                cells.append(Cell("self", "", "none", first))
            elif overlap is None or not math.isfinite(overlap.at(layer).value.value):
                cells.append(Cell("none", "–", "none", f"{first} and {second}: unknown"))
            else:
                value = overlap.at(layer)
                share = value.value.value if i > j else value.chance
                said = f"{first} and {second}: {percent(value.value)}, by chance {percent_of(value.chance)}"
                cells.append(Cell("overlap" if i > j else "chance", f"{100 * share:.0f}", shade(share), said))
        rows.append(tuple(cells))
    return rows


def shade(share: float) -> str:
    """The class of a share in [0, 1]; by its root, since most pairs share little."""
    return f"shade-{min(STEPS, max(0, round(math.sqrt(share) * STEPS)))}"


def stretches(places: Sequence[Place], overlaps: Sequence[Overlap]) -> list[int]:
    """The layers at which something changes, from the first prune point on."""
    starts = sorted(
        {start for starts in (*(p.starts for p in places), *(o.starts for o in overlaps)) for start in starts}
    )
    pruned = [s for s in starts if any(p.kept[p.span(s)] < 1 for p in places)]
    return pruned or starts


def table(starts: Sequence[int], layers: int, rows: Iterable[tuple[tuple[str, ...], Sequence[int], Values]]) -> Table:
    """rows: labels, the layers at which their values change, and the values."""
    ends = [*starts[1:], layers]
    columns = tuple(f"{a}" if a == b - 1 else f"{a}–{b - 1}" for a, b in zip(starts, ends, strict=True))
    found = [Row(labels, tuple(values[i] for i in place(own, starts))) for labels, own, values in rows]
    return Table(columns, tuple(found))
