"""A sweep as a figure: retention against average tokens, a line a family, controls as guides, a plot a panel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atp_eval.plotting import INK, PAPER, SOFT, Chart, colour, marker
from atp_eval.sweep.settings import Family
from atp_eval.sweep.table import Line, Table
from atp_eval.sweep.words import to_rows

WIDTH, HEIGHT = 4.5, 5.2  # inches, of a panel; two are 900 pixels wide
BAND = "0.88"
DASHES = {"random": (0, (5, 2)), "oracle": (0, (1, 1.2)), "background": (0, (6, 2, 1, 2))}
NAME_SIZE = 8.5  # points
LEADER = {"arrowstyle": "-", "linewidth": 0.5, "alpha": 0.6, "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5)}


class Curve(NamedTuple):
    """A family's lines with figures, budgets falling, and its colour and marker (none for a guide)."""

    family: Family
    lines: tuple[Line, ...]
    colour: str
    marker: str

    @property
    def tokens(self) -> list[float]:
        """Where its points lie: the averages that were achieved."""
        return [line.tokens for line in self.lines]

    def values(self, read: Callable[[Line], float]) -> list[float]:
        """A number of every line."""
        return [read(line) for line in self.lines]


def chart(table: Table, name: str) -> Chart:
    """The figure: a plot for each panel that has figures, side by side."""
    shown = {panel: found for panel, found in curves(table).items() if found} or {"": []}

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)
        for ax, (panel, found) in zip(axes[0], shown.items(), strict=True):
            ax.set_title(panel)
            _draw_panel(ax, found, table.sweep.columns)
        axes[0, 0].set_ylabel("retention, % of the upper bound")
        figure.supxlabel(
            f"{table.questions:,} questions to {table.model}. Bars: 95 % intervals over questions; "
            "grey band: the same over questions and draws of random tokens.",
            fontsize=NAME_SIZE, color=SOFT, x=0.01, ha="left",
        )  # fmt: skip
        for ax, found in zip(axes[0], shown.values(), strict=True):
            _name(ax, found)

    return Chart(name, alt(table), pd.DataFrame(to_rows(table)), draw, (WIDTH * max(len(shown), 1.5), HEIGHT))


def alt(table: Table) -> str:
    """What the figure shows, with the ends of each line."""
    said = [f"Retention of {table.model}'s unpruned score against average visual tokens a layer, a line a method."]
    for panel, found in curves(table).items():
        ends = (
            f"{curve.family.label} {curve.lines[0].retention.value:.1f} % at {curve.tokens[0]:.0f} tokens"
            + (f", {curve.lines[-1].retention.value:.1f} % at {curve.tokens[-1]:.0f}" if len(curve.lines) > 1 else "")
            for curve in found
        )
        said.append(f"{panel[:1].upper()}{panel[1:]}{': ' if panel else ''}{'; '.join(ends)}.")
    return " ".join(said)


def curves(table: Table) -> dict[str, list[Curve]]:
    """The families with figures, by panel. Those of one name look alike in all panels."""
    looks: dict[str, int] = {}
    found: dict[str, list[Curve]] = {}
    for panel in table.sweep.panels:
        families = [family for family in table.sweep.points if family.panel == panel]
        used = {looks[family.label] for family in families if family.label in looks}
        free = (series for series in count(1) if series not in used)
        for family in families:
            lines = [line for budget in table.sweep.columns if (line := table.at(family, budget)) and drawable(line)]
            if family.role == "method" and family.label not in looks:
                looks[family.label] = next(free)
            if lines:
                series = looks[family.label] if family.role == "method" else None
                look = (SOFT, "") if series is None else (colour(series), marker(series))
                found.setdefault(panel, []).append(Curve(family, tuple(lines), *look))
    return found


def drawable(line: Line) -> bool:
    """Whether it has a place in the figure."""
    return line.missing is None and math.isfinite(line.tokens) and math.isfinite(line.retention.value)


def _draw_panel(ax: Axes, found: Sequence[Curve], budgets: Sequence[int]) -> None:
    """Everything but the names. Tokens fall to the right: there lines part, which leaves room for their names."""
    ax.axhline(100, color=INK, linewidth=1)
    for place, curve in enumerate(found):
        x, y = curve.tokens, curve.values(lambda line: line.retention.value)
        if curve.family.role == "random":
            low, high = curve.values(lambda line: line.spread.low), curve.values(lambda line: line.spread.high)
            ax.fill_between(x, low, high, color=BAND, linewidth=0, zorder=1)
        if curve.family.role != "method":
            ax.plot(x, y, color=SOFT, linestyle=DASHES[curve.family.role], linewidth=1.6, zorder=2)
            continue
        low, high = curve.values(lambda line: line.retention.low), curve.values(lambda line: line.retention.high)
        bars = np.nan_to_num([np.subtract(y, low), np.subtract(high, y)])
        beside = np.array(x) + 0.5 * (place - len(found) / 2)  # side by side, lest bars hide each other
        ax.errorbar(
            beside, y, yerr=bars.clip(0), color=curve.colour, marker=curve.marker, markersize=5, linewidth=1.3,
            elinewidth=0.7, markeredgecolor=PAPER, markeredgewidth=0.5, zorder=3,
        )  # fmt: skip
    reached = [line.tokens for curve in found for line in curve.lines] or list(budgets)
    margin = 0.04 * (max(reached) - min(reached)) + 1
    left, right = max(reached) + margin, min(reached) - margin
    ax.set_xlim(left, right)
    ax.set_xticks([budget for budget in budgets if right <= budget <= left])
    ax.set_xlabel("average visual tokens a layer")
    ax.spines["left"].set_visible(False)
    ax.tick_params(left=False)


def _name(ax: Axes, found: Sequence[Curve]) -> None:
    """Every line's name right of the plot, as near to the line's end as the other names allow."""
    ends = [("upper bound", INK, ax.get_xlim()[1], 100.0)]
    ends += [(c.family.label, c.colour, c.lines[-1].tokens, c.lines[-1].retention.value) for c in found]
    ends.sort(key=lambda end: end[3])
    bottom, top = ax.get_ylim()
    line = NAME_SIZE * 1.25 / 72 / (HEIGHT * 0.82) * (top - bottom)  # height of a name, in per cent of retention
    places = spread([end[3] for end in ends], line, bottom)
    for (name, ink, x, y), place in zip(ends, places, strict=True):
        ax.annotate(
            name, (x, y), (1.03, place), textcoords=("axes fraction", "data"), va="center", color=ink,
            fontsize=NAME_SIZE, annotation_clip=False,
            arrowprops={**LEADER, "color": ink},
        )  # fmt: skip


def spread(values: Sequence[float], gap: float, lowest: float) -> list[float]:
    """Rising values moved apart to at least `gap`, together as little as possible, none below `lowest`.

    Values that crowd become a block about their middle; blocks that then meet are put together.
    """
    blocks: list[list[float]] = []

    def start(block: list[float]) -> float:
        return max(lowest, sum(block) / len(block) - gap * (len(block) - 1) / 2)

    for value in values:
        blocks.append([value])
        while len(blocks) > 1 and start(blocks[-1]) < start(blocks[-2]) + gap * len(blocks[-2]):
            last = blocks.pop()
            blocks[-1] += last
    return [start(block) + gap * place for block in blocks for place in range(len(block))]
