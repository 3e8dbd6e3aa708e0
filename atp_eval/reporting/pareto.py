"""What a score costs: average retention against tokens, FLOPs and time, with the methods that none is better than."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from atp_eval.analysis import Interval, Summary
from atp_eval.analysis.fairness import differ
from atp_eval.analysis.standing import difference
from atp_eval.plotting import COLUMN, RULE, SOFT, Chart, Margins, plot_area
from atp_eval.reporting.adaptive import listed
from atp_eval.reporting.agreement import named
from atp_eval.reporting.fairness import scale_of
from atp_eval.reporting.labels import LINE, Named, Room, mark, name_at_right, room, size_in_points, swarm

APART, BARS_APART = 6.0, 2.0  # points between marks, and between intervals, that would hide each other
REACH = APART  # points that a mark may be moved; further, and it would show another cost
Series = Callable[[str], int]


class Point(NamedTuple):
    """A method: what it costs (with an interval, of time) and its average retention in per cent.

    competes: whether it may be on the front; the upper bound and controls that know the truth may not.
    """

    label: str
    is_reference: bool
    cost: Interval
    retention: Interval
    competes: bool = True


@dataclass(frozen=True)
class Tradeoff:
    """A cost that methods are held against. key: of files; title: of the axis; cost: in a sentence.

    front: labels from cheap to dear; no method has at least as much retention for less, or more for as little, and nor
    has the unpruned model. Empty where that beats them all, as it may in time.
    """

    key: str
    title: str
    cost: str
    points: tuple[Point, ...]
    front: tuple[str, ...]


def tradeoffs(summary: Summary) -> list[Tradeoff]:
    """Retention against average tokens, FLOPs of the prefill and time, as far as they are known of pruning methods."""
    kept = {m.label: m.retention for m in summary.methods if m.retention is not None}
    methods = {m.label: m for m in summary.methods}
    tokens = {m.label: Interval(m.average_tokens) for m in summary.methods}
    flops = {row.label: row.flops for row in summary.fairness.rows if row.flops}
    factor, prefix = scale_of(max(flops.values(), default=0.0))
    times = {m.label: m.timing.ratio.scaled(100) for m in summary.methods if m.timing and m.timing.ratio}
    scaled = {label: Interval(value / factor) for label, value in flops.items()}
    axes = {
        "tokens": ("visual tokens, average over layers", "tokens", tokens),
        "flops": (f"{prefix}FLOPs of the LLM's prefill, a question", "FLOPs", scaled),
        "time": ("time of the LLM, % of the unpruned model's", "time", times),
    }
    found = []
    for key, (title, cost, known) in axes.items():
        points = [
            Point(label, m.is_reference, known[label], retention, not (m.is_reference or m.knows_truth))
            for label, retention in kept.items()
            for m in [methods[label]]
            if label in known and math.isfinite(known[label].value) and math.isfinite(retention.value)
        ]
        if any(point.competes for point in points):
            found.append(Tradeoff(key, title, cost, tuple(points), front(points)))
    return found


def front(points: Sequence[Point]) -> tuple[str, ...]:
    """The pruning methods that neither another nor the unpruned model dominates, from cheap to dear; no control that
    knows the truth."""
    pruned = [p for p in points if p.competes]
    rivals = [p for p in points if p.competes or p.is_reference]
    best = [p for p in pruned if not any(dominates(other, p) for other in rivals)]
    return tuple(p.label for p in sorted(best, key=lambda p: (p.cost.value, p.label)))


def dominates(first: Point, second: Point) -> bool:
    """Whether first costs no more, keeps no less, and one of the two is better; costs within a percent are equal."""
    keeps = first.retention.value - second.retention.value
    cheaper, dearer = differ(first.cost.value, second.cost.value), differ(second.cost.value, first.cost.value)
    return not dearer and keeps >= 0 and (cheaper or keeps > 0)


def front_words(summary: Summary, found: Tradeoff) -> str:
    """Who is on the front, who of them keeps more than the next cheaper one, and whom only chance may keep off it."""
    labels = found.front
    if not labels:
        beaten = "no pruning method is on the front: the unpruned model costs no more and keeps as much"
        return f"Against {found.cost}, {beaten}."
    points = {p.label: p for p in found.points}
    text = f"Against {found.cost}, {listed(labels, 'and')} {'is' if len(labels) == 1 else 'are'} on the front"
    steps = list(pairwise(labels))
    clear = [b for a, b in steps if is_more(summary, b, a)]
    if steps and len(clear) == len(steps):
        text += ", each keeping more than the one before beyond chance"
    elif steps:
        unclear = [b for _, b in steps if b not in clear]
        verb = "keeps" if len(unclear) == 1 else "keep"
        text += f"; what {listed(unclear, 'and')} {verb} over the next cheaper may be chance"
    better = (*labels, *(p.label for p in found.points if p.is_reference))
    near = [
        p.label
        for p in found.points
        if p.label not in labels
        and p.competes
        and not any(dominates(points[a], p) and is_more(summary, a, p.label) for a in better)
    ]
    return f"{text}. Not clearly below it: {named(near)}." if near else f"{text}."


def is_more(summary: Summary, first: str, second: str) -> bool:
    """Whether first keeps more than second: by the test where there is one, else by the paired interval."""
    found = difference(summary, first, second)
    if found is None:
        return False
    points, test = found
    return points.value > 0 and (test.significant if test and test.p_holm is not None else points.low > 0)


@dataclass(frozen=True)
class TradeoffParts:
    """Of the page's section. words: a sentence a cost; charts, costs: one each, with the cost's name."""

    words: tuple[str, ...]
    charts: tuple[Chart, ...]
    costs: tuple[str, ...]


def tradeoff_parts(summary: Summary, series: Series) -> TradeoffParts | None:
    """None where no pruning method has a retention and a cost."""
    found = tradeoffs(summary)
    if not found:
        return None
    return TradeoffParts(
        words=tuple(front_words(summary, t) for t in found if len(t.points) > 2),
        charts=tuple(chart(t, series) for t in found),
        costs=tuple(t.title for t in found),
    )


def chart(found: Tradeoff, series: Series) -> Chart:
    """Retention (with its paired interval) against a cost, the front drawn as a staircase, every method named."""
    labels = [p.label for p in found.points]
    margins = Margins(left=0.58, right=room(labels), top=0.12)
    height = max(3.3, margins.bottom + margins.top + (len(labels) + 1) * LINE / 72)
    on = set(found.front)
    rows = [
        {
            **{"method": p.label, found.key: p.cost.value, "retention": p.retention.value},
            **{"retention_low": p.retention.low, "retention_high": p.retention.high, "on_front": p.label in on},
        }
        for p in found.points
    ]
    said = "; ".join(f"{p.label}: {p.retention.value:.1f} % at {p.cost.value:.4g}" for p in found.points)
    return Chart(
        name=f"retention-{found.key}",
        alt=f"Retention against {found.title}. {said}. On the front: {', '.join(found.front) or 'none'}.",
        data=pd.DataFrame(rows),
        draw=lambda figure: draw(figure, found, series, margins),
        size=(COLUMN, height),
    )


def draw(figure: Figure, found: Tradeoff, series: Series, margins: Margins) -> None:
    """The chart's contents."""
    axes = plot_area(figure, margins)
    dearest = max(p.cost.value for p in found.points)
    axes.set_xlim(0.0, dearest * 1.04)
    bounds = [b for p in found.points for b in extent(p.retention)]
    low = 10 * math.floor((min(bounds) - 2) / 10)
    axes.set_ylim(max(0.0, low), max(102.0, max(bounds) + 1))
    axes.set_xlabel(found.title)
    axes.set_ylabel("average retention, %")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.axhline(100, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    where = places(axes, found.points)
    if found.front:
        best = sorted((where[p.label], p.retention.value) for p in found.points if p.label in found.front)
        stairs(axes, best, dearest)
    names = []
    for p in found.points:
        x, y = where[p.label], p.retention.value
        if p.retention.bounded:
            axes.plot([x, x], [p.retention.low, p.retention.high], color=SOFT, linewidth=1.1, zorder=3)
        if p.cost.bounded:
            axes.plot([p.cost.low, p.cost.high], [y, y], color=SOFT, linewidth=1.1, zorder=3)
        on = p.label in found.front
        mark(axes, x, y, series(p.label), 7.0 if on else 5.5)
        names.append(Named(x, y, p.label, series(p.label), on))
    name_at_right(axes, names)


def places(axes: Axes, points: Sequence[Point]) -> dict[str, float]:
    """Where marks stand: a little aside where another would be hidden, never by more than `REACH`, so that costs stay
    readable. Costs that have an interval stay where they are."""
    if any(p.cost.bounded for p in points):
        return {p.label: p.cost.value for p in points}
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    width, height = size_in_points(axes)
    scale, half = (right - left) / width, APART / 2 * (top - bottom) / height
    marks = [(p.retention.value - half, p.retention.value + half) for p in points]
    bars = [
        (min(*extent(p.retention), low), max(*extent(p.retention), high))
        for p, (low, high) in zip(points, marks, strict=True)
    ]
    found = swarm([p.cost.value / scale for p in points], [Room(marks, APART), Room(bars, BARS_APART)], REACH)
    return {p.label: x * scale for p, x in zip(points, found, strict=True)}


def stairs(axes: Axes, best: Sequence[tuple[float, float]], until: float) -> None:
    """The most that can be had for each cost, from the cheapest method on: (cost, retention)."""
    xs, ys = zip(*best, (until, best[-1][1]), strict=True)
    axes.plot(xs, ys, color=RULE, linewidth=2.4, drawstyle="steps-post", zorder=2, solid_joinstyle="round")


def extent(interval: Interval) -> Iterator[float]:
    """The bounds, or the value where there are none."""
    yield from (interval.low, interval.high) if interval.bounded else (interval.value,)
