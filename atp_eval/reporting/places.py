"""Figures of kept cells: how many of those that questions are about, and where in the picture they lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

from atp_eval.analysis import Agreement, Compared, Interval, Place
from atp_eval.reporting.adaptive import Panel
from atp_eval.reporting.figures import WIDTH, Axes, figure
from atp_eval.reporting.svg import hue, marker, number, points, short, tag, ticks

SMALL = (224.0, 168.0)  # a panel; two stand side by side on a phone
LINE = 25.0  # height of a method's line
NAMES = 186.0  # room for methods' names


class Stretch(NamedTuple):
    """Layers start .. end - 1, over which nothing changes."""

    start: int
    end: int
    recall: Compared


def stretches(place: Place, layers: int) -> Iterator[Stretch]:
    """Of a method, from its first prune point on, while it has cells of its own."""
    ends = (*place.starts[1:], layers)
    for start, end, kept, recall in zip(place.starts, ends, place.kept, place.recall, strict=True):
        if kept < 1 and math.isfinite(recall.value.value):
            yield Stretch(start, end, recall)


def recall_panels(asked: Sequence[Place], layers: int, name: str, series: Callable[[str], int]) -> list[Panel]:
    """A panel a method, on equal axes: the share of the cells asked about that is kept, in per cent, from its first
    prune point on; the share of all cells, which chance would give, is dashed."""
    curves = {p.label: list(stretches(p, layers)) for p in asked}
    shown = [s.recall for curve in curves.values() for s in curve]
    highest = max([max(r.chance, r.value.high if r.value.bounded else r.value.value) for r in shown], default=1.0)
    axes = Axes(
        (0.0, float(layers)), (0.0, min(100.0, 105 * highest)),
        right=SMALL[0] - 6, left=46.0, top=8.0, bottom=SMALL[1] - Axes.foot,
    )  # fmt: skip
    return [
        Panel(p.label, panel(f"fig-asked-{name}-{i}", p.label, curves[p.label], layers, axes, series(p.label)))
        for i, p in enumerate(asked, 1)
    ]


def panel(name: str, label: str, curve: Sequence[Stretch], layers: int, axes: Axes, mark: int) -> Markup:
    """One method's staircase with its interval, over that of chance."""
    parts = [axes.draw("decoder layer", "kept, %", [], ticks(*axes.y_range, 4))]
    for layer in (t for t in ticks(0, layers - 1, 6) if t == int(t)):
        x = number(axes.x(layer + 0.5))
        parts.append(tag("text", f"{layer:g}", class_="tick middle", x=x, y=number(axes.bottom + 20)))
    ends = [(s, s.recall.value if s.recall.value.bounded else Interval(*[s.recall.value.value] * 3)) for s in curve]
    outline = [
        *staircase(axes, [(s, i.high) for s, i in ends]),
        *reversed(staircase(axes, [(s, i.low) for s, i in ends])),
    ]
    parts.append(tag("polygon", class_=f"band {hue(mark)}", points=points(outline)))
    chance = points(staircase(axes, [(s, s.recall.chance) for s in curve]))
    parts.append(tag("polyline", class_="line chance", points=chance))
    own = points(staircase(axes, [(s, s.recall.value.value) for s in curve]))
    parts.append(tag("polyline", class_=f"line {hue(mark)}", points=own))
    said = "; ".join(
        f"from layer {s.start}: {100 * s.recall.value.value:.1f} %, by chance {100 * s.recall.chance:.1f} %"
        for s in curve
    )
    return figure(name, f"{label}: kept of the cells asked about. {said}.", *parts, size=SMALL)


def staircase(axes: Axes, values: Sequence[tuple[Stretch, float]]) -> list[tuple[float, float]]:
    """Shares in [0, 1] as corners."""
    return [(axes.x(layer), axes.y(100 * value)) for s, value in values for layer in (s.start, s.end)]


def num(place: float) -> str:
    """`0.51`, or a dash where there is none."""
    return f"{place:.2f}" if math.isfinite(place) else "–"


def places_figure(places: Sequence[Place], found: Agreement, name: str, series: Callable[[str], int]) -> Markup:
    """A line a method: the mean row of the cells that enter the last layer, with its interval; 0 is the top."""
    last = found.shape.layers - 1
    top, bottom = 26.0, 26.0 + LINE * len(places)
    axes = Axes((0.0, 1.0), (0.0, 1.0), right=WIDTH - 16, left=NAMES, top=top, bottom=bottom)
    parts = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = number(axes.x(value))
        kind = "axis" if value == 0.5 else "grid"
        parts.append(tag("line", class_=kind, x1=x, x2=x, y1=number(top), y2=number(bottom)))
        parts.append(tag("text", f"{value:g}", class_="tick middle", x=x, y=number(bottom + 18)))
    for value, text in ((0.0, "top"), (0.5, "middle"), (1.0, "bottom")):
        kind = "tick middle" if value < 1 else "tick end"
        parts.append(
            tag("text", text, class_=kind, x=number(axes.x(value) + (8 if value == 1 else 0)), y=number(top - 8))
        )
    if found.asked_row:
        x = number(axes.x(found.asked_row.value))
        parts.append(tag("line", class_="wanted", x1=x, x2=x, y1=number(top), y2=number(bottom)))
    for i, p in enumerate(places):
        y, row = top + LINE * (i + 0.5), p.row[p.span(last)]
        parts.append(tag("text", short(p.label, 24), class_="label", x=2, y=number(y), dy="0.35em"))
        if row.bounded:
            low, high = number(axes.x(row.low)), number(axes.x(row.high) - axes.x(row.low))
            parts.append(tag("path", class_="bar", d=f"M{low},{number(y - 3)}v6m0,-3h{high}m0,-3v6"))
        if math.isfinite(row.value):
            parts.append(marker(series(p.label), axes.x(row.value), y))
    middle = number((axes.left + axes.right) / 2)
    parts.append(tag("text", "mean row of kept cells", class_="title middle", x=middle, y=number(bottom + 38)))
    said = "; ".join(f"{p.label}: {num(p.row[p.span(last)].value)}" for p in places)
    text = f"Mean row of the cells that enter the last layer, 0 at the top, 1 at the bottom. {said}."
    return figure(f"fig-places-{name}", text, *parts, size=(WIDTH, bottom + 46))
