"""A sweep over layers as a figure: a row of plots a method, coarse and fine questions side by side, a line a ratio."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from atp_eval.plotting import INK, MARKERS, PAGE, SEQUENTIAL, SOFT, Chart
from atp_eval.sweep.layer_words import to_rows
from atp_eval.sweep.layers import LayerTable
from atp_eval.sweep.settings import Family

ROW, FRAME = 2.6, 0.9  # inches: of a row of plots, and of what is around them
RANDOM = (0, (4, 2))  # dashes


def chart(table: LayerTable, name: str) -> Chart:
    """The figure. Methods have rows; the random control is dashed in each of them, and has a row where it is alone."""
    rows = [f for f in table.sweep.families if f.role == "method"] or list(table.sweep.families)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(rows), len(table.levels), sharex=True, sharey=True, squeeze=False)
        for line, family in zip(axes, rows, strict=True):
            for ax, level in zip(line, table.levels, strict=True):
                _draw(ax, table, family, level)
                ax.set_title(f"{family.label}: {level} questions")
            line[0].set_ylabel("per cent right")
        for ax in axes[-1]:
            ax.set_xlabel("pruned before layer")
            ax.set_xticks(table.layers)
        figure.legend(handles=_legend(table), loc="outside lower center", ncols=len(table.keeps) + 2)

    return Chart(name, alt(table), pd.DataFrame(to_rows(table)), draw, (PAGE, ROW * len(rows) + FRAME))


def alt(table: LayerTable) -> str:
    """What the figure shows, with the ends of each line."""
    layers = f"{table.layers[0]} to {table.layers[-1]}" if table.layers else "none"
    said = [
        f"Per cent of coarse and of fine questions that {table.model} has right, against the layer before which tokens "
        f"are pruned ({layers}), a line for each share that stays. "
        f"Unpruned: {', '.join(f'{level} {table.scores[level].value:.1f}' for level in table.levels)}."
    ]
    for family in table.sweep.families:
        for level in table.levels:
            ends = []
            for keep in table.keeps:
                spots = [spot for layer in table.layers if (spot := table.at(family, layer, keep))]
                values = [spot.levels[level].score.value for spot in spots]
                if values:
                    ends.append(f"{values[0]:.1f} to {values[-1]:.1f} with {table.share(keep)}")
            if ends:
                said.append(f"{family.label}, {level}, first to last layer: {', '.join(ends)}.")
    return " ".join(said)


def _draw(ax: Axes, table: LayerTable, family: Family, level: str) -> None:
    unpruned = table.scores[level]
    ax.axhline(unpruned.value, color=INK, linewidth=1)
    controls = [f for f in table.sweep.families if f.role == "random" and f is not family]
    for number, keep in enumerate(table.keeps):
        for one in (family, *controls):
            spots = [spot for layer in table.layers if (spot := table.at(one, layer, keep))]
            if not spots:
                continue
            x = [float(spot.layer or 0) for spot in spots]
            found = [spot.levels[level].score for spot in spots]
            y, own = [one.value for one in found], one is family
            look: dict[str, Any] = {"linestyle": "-", "marker": MARKERS[number % len(MARKERS)]}
            ax.plot(x, y, color=_colour(table, keep), **(look if own else {"linestyle": RANDOM, "linewidth": 1}))
            if own:
                low, high = [one.low for one in found], [one.high for one in found]
                ax.fill_between(x, low, high, color=_colour(table, keep), alpha=0.15, linewidth=0)


def _colour(table: LayerTable, keep: int) -> Any:
    """Of an even scale: dark where most stays. Its light end cannot be seen on paper."""
    place = table.keeps.index(keep) / max(1, len(table.keeps) - 1)
    return mpl.colormaps[SEQUENTIAL](0.8 * place)


def _legend(table: LayerTable) -> list[Line2D]:
    lines = [Line2D([], [], color=INK, linewidth=1, label="unpruned")]
    for number, keep in enumerate(table.keeps):
        look = {"color": _colour(table, keep), "marker": MARKERS[number % len(MARKERS)]}
        lines.append(Line2D([], [], label=f"{table.share(keep)} stay", **look))
    if any(family.role == "random" for family in table.sweep.families):
        lines.append(Line2D([], [], color=SOFT, linestyle=RANDOM, linewidth=1, label="random tokens"))
    return lines
