"""How cost grows: figures with their fits, a table of the terms, and where each stops being linear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from atp_eval.analysis.bench import BenchSummary
from atp_eval.analysis.growth import ANSWER, BATCH, SHARE, TOKENS, Axis, Curve, Fit, curves, operations, points_frame
from atp_eval.analysis.significance import Interval
from atp_eval.plotting import INK, PAGE, Chart, colour, marker
from atp_eval.reporting.labels import short

LINES = ("-", (0, (4, 2)), (0, (1, 1.5)))  # of backends
PANEL = 2.5  # inches high
LEAST_SPAN = 20.0  # from the bottom of a plot to its top, as a factor: at least one power of ten is marked


@dataclass(frozen=True)
class GrowthRow:
    """A curve's terms in `unit`, each with its bounds; none of them where it has too few points."""

    curve: Curve
    number: int
    unit: str
    terms: tuple[tuple[str, str], ...]
    bend: str
    share: float | None


@dataclass(frozen=True)
class GrowthParts:
    """words: where growth stops being linear. charts: one an axis. rows: the fits."""

    words: tuple[str, ...]
    charts: tuple[Chart, ...]
    rows: tuple[GrowthRow, ...]


def growth_parts(summary: BenchSummary, series: dict[str, int], id: str) -> GrowthParts | None:
    """None where nothing was varied."""
    found = curves(summary)
    if not found:
        return None
    charts = [
        chart([c for c in found if c.axis.key == axis.key], axis, series, f"{id}-{axis.key}")
        for axis in (TOKENS, BATCH, ANSWER)
        if any(c.axis.key == axis.key for c in found)
    ]
    return GrowthParts(tuple(words(summary, found)), tuple(charts), tuple(_row(c, series) for c in found))


def words(summary: BenchSummary, found: Sequence[Curve]) -> list[str]:
    """A sentence a curve of time against image tokens, and what operations alone would do."""
    several = len({c.attention for c in found}) > 1
    said = []
    for c in found:
        if c.axis.key != TOKENS.key or c.quantity.key not in ("vision", "prefill") or c.fit is None:
            continue
        if c.quantity.key == "vision" and c.method != summary.bench.settings.methods[0]:
            continue  # the tower knows nothing of the method
        backend = f" with {c.attention}" if several else ""
        who = f"The vision tower{backend}" if c.quantity.key == "vision" else f"The prefill of {c.method}{backend}"
        said.append(f"{who} {bend_words(c.fit, c.xs, TOKENS.title)}.")
    counted = operations(summary, summary.bench.settings.methods[0])
    if counted is not None and math.isfinite(counted.bend.value):
        said.append(
            f"By operations alone, vision and answer of the unpruned model would do so at {counted.bend.value:,.0f}."
        )
    return said


def bend_words(fit: Fit, xs: Sequence[int], title: str) -> str:
    """`stops being linear at about 1,203 image tokens [1,100, 1,300]: ...`, or that it does not within the range."""
    if fit.flattens:
        return f"grows more slowly than a line up to {max(xs):,} {title}: the square term is below 0"
    if not fit.bends:
        return f"shows no departure from a line up to {max(xs):,} {title}: the square term's interval includes 0"
    if fit.bend.value > max(xs):
        return f"is linear up to {max(xs):,} {title}, the most that was measured"
    where = f"below {min(xs):,}" if fit.bend.value < min(xs) else f"at about {fit.bend.value:,.0f}"
    return (
        f"stops being linear {where} {title} {_bounds(fit.bend)}, where the square term makes {SHARE:.0%} of it; at "
        f"{max(xs):,} it makes {fit.share:.0%}"
    )


def _bounds(interval: Interval) -> str:
    high = f"{interval.high:,.0f}" if math.isfinite(interval.high) else "∞"
    return f"[{interval.low:,.0f}, {high}]"


def _row(curve: Curve, series: dict[str, int]) -> GrowthRow:
    factor, unit = (1e3, "ms") if curve.quantity.seconds else (1e-6, "MB")
    fit = curve.fit
    if fit is None:
        return GrowthRow(curve, series[curve.method], unit, (), "too few points", None)
    per = 1000.0 if curve.axis.key == TOKENS.key else 1.0  # terms a thousand tokens have digits to read
    terms = (
        fit.constant.scaled(factor),
        fit.linear.scaled(factor * per),
        fit.quadratic.scaled(factor * per * per),
    )
    if fit.flattens:
        bend = "grows more slowly"
    elif not fit.bends:
        bend = "none seen"
    elif fit.bend.value > max(curve.xs):
        bend = f"beyond {max(curve.xs):,}"
    else:
        bend = f"{fit.bend.value:,.0f} {_bounds(fit.bend)}"
    said = tuple((digits(t.value), f"[{digits(t.low)}, {digits(t.high)}]") for t in terms)
    return GrowthRow(curve, series[curve.method], unit, said, bend, fit.share)


def digits(value: float) -> str:
    """Three digits, however large: `0.0123`, `1,230`; what is rounding alone is 0."""
    text = "0" if abs(value) < 1e-9 else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "\u2212")


def chart(found: Sequence[Curve], axis: Axis, series: dict[str, int], name: str) -> Chart:
    """A plot a quantity: points with intervals, fits as lines, both axes logarithmic."""
    quantities = list(dict.fromkeys(c.quantity.key for c in found))
    columns = min(2, len(quantities))
    rows = -(-len(quantities) // columns)
    kinds = list(dict.fromkeys(c.attention for c in found))

    def draw(figure: Figure) -> None:
        plots = figure.subplots(rows, columns, squeeze=False).ravel()
        for place, key in enumerate(quantities):
            these = [c for c in found if c.quantity.key == key]
            panel(plots[place], these, axis, series, kinds)
        for empty in plots[len(quantities) :]:
            empty.set_axis_off()
        handles, labels = plots[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2)

    said = "; ".join(
        f"{c.quantity.title}, {c.method}, {c.attention}: {shown(c.ys[0].value, c)} at {c.xs[0]:,}, "
        f"{shown(c.ys[-1].value, c)} at {c.xs[-1]:,}"
        for c in found
    )
    size = (PAGE if columns == 2 else 0.62 * PAGE, PANEL * rows + 0.35 + 0.1 * len(series))
    return Chart(name, f"Cost against {axis.title}. {said}.", points_frame(found), draw, size)


def shown(value: float, curve: Curve) -> str:
    """`3.2 ms`, `12.4 s`, `410 MB`."""
    if not curve.quantity.seconds:
        return f"{value / 1e6:.3g} MB"
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def panel(axes: Axes, found: Sequence[Curve], axis: Axis, series: dict[str, int], kinds: Sequence[str]) -> None:
    """One plot's contents."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    first = found[0]
    factor = 1e3 if first.quantity.seconds else 1e-6
    for curve in found:
        number, line = series[curve.method], LINES[kinds.index(curve.attention) % len(LINES)]
        label = short(curve.method) + (f", {curve.attention}" if len(kinds) > 1 else "")
        y = np.array([p.value for p in curve.ys]) * factor
        low = np.array([p.low if p.bounded else p.value for p in curve.ys]) * factor
        high = np.array([p.high if p.bounded else p.value for p in curve.ys]) * factor
        axes.errorbar(
            curve.xs, y, yerr=[np.maximum(y - low, 0), np.maximum(high - y, 0)], fmt=marker(number), elinewidth=0.8,
            color=colour(number), markersize=4.5, label=label, zorder=3,
        )  # fmt: skip
        if curve.fit is not None:
            x = np.geomspace(min(curve.xs), max(curve.xs), 60)
            fitted = curve.fit.at(x) * factor
            good = fitted > 0
            axes.plot(x[good], fitted[good], color=colour(number), linewidth=1.1, linestyle=line, zorder=2)
    axes.set_title(first.quantity.title)
    axes.set_ylabel("ms" if first.quantity.seconds else "MB")
    axes.set_xlabel(axis.title)
    ticks = sorted({x for curve in found for x in curve.xs})
    axes.set_xticks(ticks, [f"{x:,}" for x in ticks], rotation=45 if max(ticks) > 999 else 0)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    bottom, top = axes.get_ylim()
    if top / bottom < LEAST_SPAN:  # or noise would fill the plot
        middle = (bottom * top) ** 0.5
        axes.set_ylim(middle / LEAST_SPAN**0.5, middle * LEAST_SPAN**0.5)
    axes.tick_params(axis="x", labelcolor=INK)


def growth_table(parts: GrowthParts) -> pd.DataFrame:
    """The fits as text, for a terminal."""
    return pd.DataFrame(
        [
            {
                "against": r.curve.axis.title,
                "of": r.curve.quantity.title,
                "method": r.curve.method,
                "attention": r.curve.attention,
                "stops being linear": r.bend,
            }
            for r in parts.rows
        ]
    )
