"""Tokens against layers, and what figures share: curves that are steps, shared lines, equal axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from atp_eval.analysis import MethodSummary, Summary
from atp_eval.analysis.tokens import TokenStats
from atp_eval.plotting import COLUMN, Chart, Margins, colour, plot_area
from atp_eval.reporting.labels import LINE, Named, name_at_right, room

DASH = 4.0  # line widths
Series = Callable[[str], int]


def layers_chart(summary: Summary, series: Series) -> Chart | None:
    """Visual tokens that enter each decoder layer: the mean, and the range over samples where they differ."""
    shown = [(m, m.tokens) for m in summary.methods if m.tokens]
    if not shown:
        return None
    frames = [
        pd.DataFrame({"method": m.label, "layer": range(len(t.mean)), "tokens": t.mean, "least": t.low, "most": t.high})
        for m, t in shown
    ]
    said = "; ".join(f"{m.label}: from {t.mean[0]:.0f} to {t.mean[-1]:.0f}" for m, t in shown)
    margins = Margins(right=room([m.label for m, _ in shown]))
    return Chart(
        name="tokens-by-layer",
        alt=f"Visual tokens that enter each decoder layer. {said}.",
        data=pd.concat(frames, ignore_index=True),
        draw=lambda figure: draw_layers(figure, shown, summary.full_tokens, series, margins),
        size=(COLUMN, max(3.3, margins.bottom + margins.top + (len(shown) + 1) * LINE / 72)),
    )


def draw_layers(
    figure: Figure, shown: Sequence[tuple[MethodSummary, TokenStats]], full: float, series: Series, margins: Margins
) -> None:
    """The chart's contents. Methods with the same curve share a line, in dashes of each one's colour."""
    axes = plot_area(figure, margins)
    by_layer(axes, max(len(t.mean) for _, t in shown))
    axes.set_ylim(0, full * 1.04)
    axes.set_yticks([*(t for t in MaxNLocator(5).tick_values(0, full) if 0 <= t < full * 0.94), full])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel("visual tokens")
    same: dict[tuple[float, ...], list[int]] = {}
    for m, tokens in shown:
        number = series(m.label)
        same.setdefault(tuple(tokens.mean.round(3)), []).append(number)
        if (tokens.low < tokens.high).any():
            band(axes, tokens.low, tokens.high, colour(number))
    for curve, members in same.items():
        for place, number in enumerate(members):
            dashes = (-DASH * place, (DASH, DASH * (len(members) - 1))) if len(members) > 1 else "solid"
            steps(axes, curve, color=colour(number), linestyle=dashes, linewidth=2, dash_capstyle="butt")
    names = [Named(len(t.mean), float(t.mean[-1]), m.label, series(m.label)) for m, t in shown]
    name_at_right(axes, names)


def by_layer(axes: Axes, layers: int) -> None:
    """A horizontal axis of layers, each as wide as 1, its number in its middle."""
    axes.set_xlim(0, layers)
    shown = [int(t) for t in MaxNLocator(7, integer=True).tick_values(0, layers - 1) if 0 <= t < layers]
    axes.set_xticks([t + 0.5 for t in shown], [str(t) for t in shown])
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("decoder layer")


def steps(axes: Axes, curve: Sequence[float], starts: Sequence[float] | None = None, **how: object) -> None:
    """A staircase: the i-th value holds from starts[i] (i) to the next, the last one start being the end."""
    edges = np.arange(len(curve) + 1) if starts is None else np.asarray(starts)
    corners = np.repeat(edges, 2)[1:-1]
    axes.plot(corners, np.repeat(curve, 2), **how)  # type: ignore[arg-type]


def band(
    axes: Axes,
    low: ArrayLike,
    high: ArrayLike,
    tint: str,
    starts: Sequence[float] | None = None,
    alpha: float = 0.16,
) -> None:
    """The room between two staircases."""
    edges = np.arange(np.size(low) + 1) if starts is None else np.asarray(starts)
    axes.fill_between(
        np.repeat(edges, 2)[1:-1], np.repeat(low, 2), np.repeat(high, 2), color=tint, alpha=alpha, linewidth=0
    )
