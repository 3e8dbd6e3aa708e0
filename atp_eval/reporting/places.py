"""Figures of kept cells: how many of those that questions are about, and where in the picture they lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from atp_eval.analysis import Agreement, Compared, Place
from atp_eval.plotting import COLUMN, RULE, SERIES, SOFT, Chart, Margins, Panel, Panels, colour, plot_area
from atp_eval.reporting.figures import band, by_layer, steps
from atp_eval.reporting.labels import LETTER, SIZE, mark, short

SMALL = (2.33, 1.75)  # inches of a panel; two stand side by side on a phone
ROW = 0.26  # inches of a method's line
Series = Callable[[str], int]


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


def recall_panels(asked: Sequence[Place], layers: int, name: str, series: Series) -> Panels | None:
    """A panel a method, on equal axes: the share of the cells asked about that is kept, in per cent, from its first
    prune point on; the share of all cells, which chance would give, is dashed. None without any."""
    curves = {p.label: list(stretches(p, layers)) for p in asked}
    shown = [s.recall for curve in curves.values() for s in curve]
    highest = max([max(r.chance, r.value.high if r.value.bounded else r.value.value) for r in shown], default=1.0)
    top = min(100.0, 105 * highest)

    def drawing(label: str, curve: Sequence[Stretch]) -> Callable[[Axes], None]:
        return lambda axes: draw_recall(axes, curve, layers, top, series(label))

    panels = tuple(
        Panel(
            label,
            f"kept of the cells asked about. {said(curve)}.",
            pd.DataFrame([row(label, s) for s in curve]),
            drawing(label, curve),
        )
        for label, curve in curves.items()
    )
    alt = "Kept of the cells asked about, by layer and method, and of all cells."
    return Panels(f"asked-{name}", alt, panels, SMALL, Margins(0.48, 0.06, 0.46, 0.06)) if panels else None


def said(curve: Sequence[Stretch]) -> str:
    """A method's figures in words."""
    return "; ".join(
        f"from layer {s.start}: {100 * s.recall.value.value:.1f} %, by chance {100 * s.recall.chance:.1f} %"
        for s in curve
    )


def row(label: str, s: Stretch) -> dict[str, Any]:
    """Of the data."""
    value = s.recall.value
    return {
        **{"method": label, "first_layer": s.start, "last_layer": s.end - 1, "kept": value.value},
        **{"kept_low": value.low, "kept_high": value.high, "chance": s.recall.chance},
    }


def draw_recall(axes: Axes, curve: Sequence[Stretch], layers: int, top: float, number: int) -> None:
    """One method's staircase with its interval, over that of chance."""
    by_layer(axes, layers)
    axes.set_ylim(0, top)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylabel("kept, %")
    if not curve:
        return
    starts = [s.start for s in curve] + [curve[-1].end]
    bounds = [(i.low, i.high) if (i := s.recall.value).bounded else (i.value, i.value) for s in curve]
    low, high = ([100 * b for b in side] for side in zip(*bounds, strict=True))
    band(axes, low, high, colour(number), starts)
    steps(axes, [100 * s.recall.chance for s in curve], starts, color=SOFT, linewidth=1.2, linestyle=(0, (4, 3)))
    steps(axes, [100 * s.recall.value.value for s in curve], starts, color=colour(number), linewidth=2)


def places_chart(places: Sequence[Place], found: Agreement, name: str, series: Series) -> Chart:
    """A line a method: the mean row of the cells that enter the last layer, with its interval; 0 is the top."""
    last = found.shape.layers - 1
    rows = {p.label: p.row[p.span(last)] for p in places}
    told = "; ".join(f"{label}: {num(value.value)}" for label, value in rows.items())
    margins = Margins(left=0.2 + LETTER * max(len(short(label)) for label in rows) / 72, top=0.3, bottom=0.46)
    frame = pd.DataFrame(
        {"method": label, "mean_row": row.value, "mean_row_low": row.low, "mean_row_high": row.high}
        for label, row in rows.items()
    )
    if found.asked_row:
        frame["asked_row"] = found.asked_row.value

    def draw(figure: Figure) -> None:
        axes = plot_area(figure, margins)
        axes.set_xlim(0, 1)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        axes.set_yticks(range(len(rows)), [short(label) for label in rows], fontsize=SIZE, color="#1d1f22")
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("mean row of kept cells")
        axes.axvline(0.5, color=RULE, linewidth=1.2, zorder=1)
        for x, text, where in ((0, "top", "left"), (0.5, "middle", "center"), (1, "bottom", "right")):
            axes.text(x, -0.75, text, ha=where, va="bottom", color=SOFT, fontsize=SIZE)
        if found.asked_row:
            axes.axvline(found.asked_row.value, color=SERIES[0], linewidth=1.4, linestyle=(0, (1, 2)), zorder=2)
        for y, (label, value) in enumerate(rows.items()):
            if value.bounded:
                axes.plot([value.low, value.high], [y, y], color=SOFT, linewidth=1.2, zorder=3)
            if math.isfinite(value.value):
                mark(axes, value.value, y, series(label))

    height = ROW * len(rows) + margins.top + margins.bottom
    text = f"Mean row of the cells that enter the last layer, 0 at the top, 1 at the bottom. {told}."
    return Chart(f"places-{name}", text, frame, draw, (COLUMN, height))


def num(place: float) -> str:
    """`0.51`, or a dash where there is none."""
    return f"{place:.2f}" if math.isfinite(place) else "–"
