"""Figures as inline SVG: they take their colours from the page, so that they follow its light or dark theme."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

from atp_eval.analysis import Interval, MethodSummary, Summary
from atp_eval.analysis.overlays import cell_runs
from atp_eval.reporting.svg import hue, marker, number, points, short, spread_out, tag, ticks
from atp_eval.trace import KeepTrace, Stage

WIDTH, HEIGHT = 480.0, 330.0
LINE = 16.0  # height of a line of text
LETTER = 7.2  # about the width of a letter


@dataclass(frozen=True)
class Axes:
    """A plot area in a viewBox; x and y map data to it. foot: room below it, for tick labels and a title."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    right: float
    left: float = 50.0
    top: float = 12.0
    bottom: float = HEIGHT - 46.0
    foot: ClassVar[float] = 46.0

    def x(self, value: float) -> float:
        """Data to horizontal coordinate."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Data to vertical coordinate."""
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def draw(self, x_title: str, y_title: str, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> Markup:
        """Grid lines, tick labels and titles."""
        parts = []
        for value in y_ticks:
            y = number(self.y(value))
            parts.append(tag("line", class_="grid", x1=number(self.left), x2=number(self.right), y1=y, y2=y))
            name = f"{value:g}".replace("-", "\u2212")
            parts.append(tag("text", name, class_="tick end", x=number(self.left - 8), y=y, dy="0.35em"))
        for value in x_ticks:
            x = number(self.x(value))
            parts.append(tag("line", class_="axis", x1=x, x2=x, y1=number(self.bottom), y2=number(self.bottom + 5)))
            parts.append(tag("text", f"{value:g}", class_="tick middle", x=x, y=number(self.bottom + 20)))
        bottom = number(self.bottom)
        parts.append(tag("line", class_="axis", x1=number(self.left), x2=number(self.right), y1=bottom, y2=bottom))
        middle = (self.left + self.right) / 2
        y = number(self.bottom + self.foot - 6)
        parts.append(tag("text", x_title, class_="title middle", x=number(middle), y=y))
        turned = f"translate(14 {number((self.top + self.bottom) / 2)}) rotate(-90)"
        parts.append(tag("text", y_title, class_="title middle", transform=turned))
        return Markup("").join(parts)


def figure(name: str, description: str, *parts: Markup, size: tuple[float, float] = (WIDTH, HEIGHT)) -> Markup:
    """The SVG element, described for those who do not see it."""
    return tag(
        "svg",
        tag("title", description, id=f"{name}-title"),
        *parts,
        viewBox=f"0 0 {size[0]:g} {size[1]:g}",
        role="img",
        aria_labelledby=f"{name}-title",
        class_="chart",
    )


def retention_figure(summary: Summary, series: Callable[[str], int]) -> Markup | None:
    """Average retention (per cent, with intervals) against average visual tokens; None without retention."""
    shown = [m for m in summary.methods if m.retention and math.isfinite(m.average_tokens)]
    pruned = [m for m in shown if not m.is_reference]
    if not pruned:
        return None
    lows = [m.retention.low if m.retention.bounded else m.retention.value for m in shown if m.retention]
    highs = [m.retention.high if m.retention.bounded else m.retention.value for m in shown if m.retention]
    bottom = max(0.0, 10 * math.floor((min(lows) - 2) / 10))
    top = max(102.0, max(highs) + 1)
    right_edge = max(summary.full_tokens, *(m.average_tokens for m in shown))
    axes = Axes((0.0, right_edge * 1.02), (bottom, top), right=WIDTH - 14)
    x_ticks = [t for t in ticks(0, right_edge, 6) if right_edge - t > right_edge * 0.06] + [right_edge]
    parts = [axes.draw("visual tokens, average over layers", "retention, %", x_ticks, ticks(bottom, 100.0))]
    y = number(axes.y(100))
    parts.append(tag("line", class_="reference", x1=number(axes.left), x2=number(axes.right), y1=y, y2=y))
    xs = dodged([axes.x(m.average_tokens) for m in shown])
    parts += [interval_bar(axes, x, m.retention) for x, m in zip(xs, shown, strict=True) if m.retention]
    ys = [axes.y(m.retention.value) for m in shown if m.retention]
    parts.append(beside(list(zip(xs, ys, strict=True)), [short(m.label, 30) for m in shown], axes))
    for m, x, value in zip(shown, xs, ys, strict=True):
        parts.append(marker(series(m.label), x, value))
    said = "; ".join(f"{m.label}: {m.retention.value:.1f} % at {m.average_tokens:.0f}" for m in shown if m.retention)
    return figure("fig-retention", f"Retention against average visual tokens. {said}.", *parts)


def interval_bar(axes: Axes, x: float, interval: Interval) -> Markup:
    """A vertical bar from low to high."""
    if not interval.bounded:
        return Markup("")
    low, high = axes.y(interval.low), axes.y(interval.high)
    d = f"M{number(x - 3)},{number(high)}h6m-3,0V{number(low)}m-3,0h6"
    return tag("path", class_="bar", d=d)


def dodged(xs: Sequence[float], near: float = 9.0, step: float = 10.0) -> list[float]:
    """Points at almost the same place, moved apart around their middle; the order stays."""
    order = sorted(range(len(xs)), key=lambda i: xs[i])
    result = list(xs)
    start = 0
    for k in range(1, len(order) + 1):
        if k < len(order) and xs[order[k]] - xs[order[k - 1]] < near:
            continue
        cluster = order[start:k]
        middle = sum(xs[i] for i in cluster) / len(cluster)
        if len(cluster) > 1:
            for place, i in enumerate(sorted(cluster)):
                result[i] = middle + (place - (len(cluster) - 1) / 2) * step
        start = k
    return result


def beside(anchors: Sequence[tuple[float, float]], labels: Sequence[str], axes: Axes) -> Markup:
    """Labels of points: right of their cluster where there is room, else left, with a thin line to each."""
    parts = []
    columns: dict[int, list[int]] = {}
    for i, (x, _) in enumerate(anchors):
        column = next((c for c in columns if abs(anchors[c][0] - x) < 60), i)
        columns.setdefault(column, []).append(i)
    for members in columns.values():
        edge, start = max(anchors[i][0] for i in members), min(anchors[i][0] for i in members)
        longest = max(len(labels[i]) for i in members) * LETTER
        to_right = edge + 16 + longest < WIDTH
        x = edge + 16 if to_right else start - 16
        ys = spread_out([anchors[i][1] for i in members], LINE, axes.top + 6, axes.bottom - 6)
        for i, y in zip(members, ys, strict=True):
            from_x = anchors[i][0] + (7 if to_right else -7)
            to_x = x - 3 if to_right else x + 3
            parts.append(tag("path", class_="lead", d=f"M{points([(from_x, anchors[i][1]), (to_x, y)])}"))
            kind = "label" if to_right else "label end"
            parts.append(tag("text", labels[i], class_=kind, x=number(x), y=number(y), dy="0.35em"))
    return Markup("").join(parts)


def layers_figure(summary: Summary, series: Callable[[str], int]) -> Markup | None:
    """Visual tokens that enter each decoder layer: the mean, and the range over samples where they differ."""
    shown = [(m, m.tokens) for m in summary.methods if m.tokens]
    if not shown:
        return None
    count = max(len(t.mean) for _, t in shown)
    room = max(len(short(m.label)) for m, _ in shown) * LETTER + 30
    axes = Axes((0.0, float(count)), (0.0, summary.full_tokens * 1.04), right=WIDTH - room)
    layers = [t for t in ticks(0, count - 1, 8) if t == int(t)]
    y_ticks = [*[t for t in ticks(0, summary.full_tokens) if t < summary.full_tokens * 0.94], summary.full_tokens]
    parts = [shifted_axes(axes, layers, y_ticks)]
    same: dict[tuple[float, ...], list[MethodSummary]] = {}
    for m, tokens in shown:
        curve = tuple(tokens.mean.round(3))
        same.setdefault(curve, []).append(m)
        if (tokens.low < tokens.high).any():
            outline = [*steps(axes, tokens.high), *reversed(steps(axes, tokens.low))]
            parts.append(tag("polygon", class_=f"band {hue(series(m.label))}", points=points(outline)))
    for curve, members in same.items():
        parts.append(staircase(steps(axes, curve), [hue(series(m.label)) for m in members]))
    ends = [(m, axes.x(len(t.mean)), axes.y(t.mean[-1])) for m, t in shown]
    ys = spread_out([y for _, _, y in ends], LINE, axes.top + 6, axes.bottom - 6)
    for (m, x, end), y in zip(ends, ys, strict=True):
        parts.append(tag("path", class_="lead", d=f"M{points([(x, end), (x + 8, y)])}"))
        parts.append(marker(series(m.label), x + 16, y))
        parts.append(tag("text", short(m.label), class_="label", x=number(x + 26), y=number(y), dy="0.35em"))
    said = "; ".join(f"{m.label}: from {t.mean[0]:.0f} to {t.mean[-1]:.0f}" for m, t in shown)
    return figure("fig-layers", f"Visual tokens that enter each decoder layer. {said}.", *parts)


def staircase(corners: Sequence[tuple[float, float]], hues: Sequence[str]) -> Markup:
    """One line; methods that share it share it in dashes of each one's colour."""
    dash, parts = 10, []
    for k, colour in enumerate(hues):
        dashes = None if len(hues) == 1 else f"{dash} {dash * (len(hues) - 1)}"
        parts.append(
            tag(
                "polyline", class_=f"line {colour}", points=points(corners),
                stroke_dasharray=dashes, stroke_dashoffset=-dash * k if dashes else None,
            )
        )  # fmt: skip
    return Markup("").join(parts)


def shifted_axes(axes: Axes, layers: Sequence[float], y_ticks: Sequence[float]) -> Markup:
    """Axes whose horizontal ticks stand at the middle of a layer."""
    plain = axes.draw("decoder layer", "visual tokens", [], y_ticks)
    names = [
        tag("text", f"{layer:g}", class_="tick middle", x=number(axes.x(layer + 0.5)), y=number(axes.bottom + 20))
        for layer in layers
    ]
    return plain + Markup("").join(names)


def steps(axes: Axes, curve: Iterable[float]) -> list[tuple[float, float]]:
    """[layers] as a staircase: layer i spans i to i + 1."""
    return [(axes.x(i + side), axes.y(float(v))) for i, v in enumerate(curve) for side in (0, 1)]


def veil(trace: KeepTrace, stage: Stage) -> Markup:
    """The SVG path over the cells that a stage no longer has, in units of cells."""
    return Markup("".join(f"M{c},{r}h{n}v1h-{n}z" for r, c, n in cell_runs(~stage.keep, trace.grid[1])))
