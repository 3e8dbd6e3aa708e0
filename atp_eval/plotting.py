"""Figures: one style for all of them, and a Chart, which is drawn the same way on a page, in a file and in print.

Colours are named after the roles that pages give them (`reports/report.css`), so that a figure on a page can follow its
theme. Neither torch nor lmms-eval is imported here.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atp_eval.spreadsheet import csv_text

# The light theme. Told apart with red-green blindness as well; markers help beside them.
SERIES = ("#0072b2", "#d55e00", "#008f6b", "#aa4499", "#8c6d00", "#3a8fc0", "#882255", "#5f5f5f")
INK, SOFT, RULE, HAIR, PAPER = "#1d1f22", "#595f66", "#d9d6cd", "#ebe8e0", "#fdfcf9"
ROLES = {
    **{colour: f"--s{i}" for i, colour in enumerate(SERIES, 1)},
    **{INK: "--ink", SOFT: "--soft", RULE: "--rule", HAIR: "--hair", PAPER: "--paper"},
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SEQUENTIAL, DIVERGING = "viridis", "PuOr"  # colour maps: even steps of lightness, safe for colour-blind readers
DPI = 200  # twice what a page shows
COLUMN, PAGE = 4.8, 7.2  # inches: a column of a page or paper, and its full width

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text, which can be searched, read aloud and themed
    "pdf.fonttype": 42,  # TrueType, as publishers ask
    "svg.hashsalt": "atp_eval",
    "text.parse_math": False,  # labels are text, dollars included
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": RULE,
    "axes.labelcolor": SOFT,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "grid.color": HAIR,
    "grid.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Chart:
    """A figure before it is drawn.

    name: of its files and element. alt: what it shows, with its main figures, for those who do not see it. data: the
    numbers that are drawn, one row a mark. draw: puts them on an empty figure. size: inches.
    """

    name: str
    alt: str
    data: pd.DataFrame
    draw: Callable[[Figure], None]
    size: tuple[float, float] = (COLUMN, 3.3)


class Margins(NamedTuple):
    """Inches around a plot, for ticks and titles."""

    left: float = 0.62
    right: float = 0.12
    bottom: float = 0.5
    top: float = 0.1


MARGINS = Margins()


@dataclass(frozen=True)
class Panel:
    """One plot of several alike. label: whose, as the page names it; note: what else tells it from the others.

    alt, data: as of a Chart. draw: on empty axes.
    """

    label: str
    alt: str
    data: pd.DataFrame
    draw: Callable[[Axes], None]
    note: str = ""


@dataclass(frozen=True)
class Panels:
    """Plots with equal axes: a page lets them wrap beside each other, a file has them in a grid.

    size: inches of one of them, `margins` included.
    """

    name: str
    alt: str
    panels: tuple[Panel, ...]
    size: tuple[float, float]
    margins: Margins = MARGINS
    columns: int = 3

    @property
    def charts(self) -> list[Chart]:
        """Each of them as a figure of its own, in their order."""

        def alone(panel: Panel) -> Callable[[Figure], None]:
            return lambda figure: panel.draw(plot_area(figure, self.margins))

        return [
            Chart(f"{self.name}-{i}", f"{p.label}: {p.alt}", p.data, alone(p), self.size)
            for i, p in enumerate(self.panels, 1)
        ]

    @property
    def whole(self) -> Chart:
        """All of them as one figure, each under its label."""
        columns = min(self.columns, len(self.panels))
        rows, title = -(-len(self.panels) // columns), 0.34
        width, height = self.size[0], self.size[1] + title

        def draw(figure: Figure) -> None:
            for place, panel in enumerate(self.panels):
                row, column = divmod(place, columns)
                left, right, bottom, top = self.margins
                below = (rows - 1 - row) * height + bottom
                box = (column * width + left, below, width - left - right, self.size[1] - bottom - top)
                axes = plot_area(figure, box=box)
                axes.set_title("\n".join(printable(text) for text in (panel.label, panel.note) if text), fontsize=8)
                panel.draw(axes)

        data = pd.concat([p.data.assign(panel=p.label) for p in self.panels], ignore_index=True)
        return Chart(self.name, self.alt, data, draw, (columns * width, rows * height))


def plot_area(figure: Figure, margins: Margins = MARGINS, box: tuple[float, float, float, float] | None = None) -> Axes:
    """Axes at an exact place, in inches: within margins of the figure, or in a box (left, bottom, width, height).

    Labels can be placed on them before anything is drawn, and no layout has to be solved.
    """
    figure.set_layout_engine("none")
    width, height = figure.get_size_inches()
    left, right, bottom, top = margins
    x, y, w, h = box or (left, bottom, width - left - right, height - bottom - top)
    return figure.add_axes((x / width, y / height, w / width, h / height))


def printable(text: str, longest: int = 60) -> str:
    """Text that can be drawn, and cut where it is too long: whatever is no visible character becomes one that is."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def colour(series: int) -> str:
    """A series' colour: the reference (0) in ink, then eight, shifted at each round so that the ninth mark is new."""
    if series == 0:
        return INK
    turn, place = divmod(series - 1, len(SERIES))
    return SERIES[(place + 3 * turn) % len(SERIES)]


def marker(series: int) -> str:
    """A series' marker."""
    return next(islice(cycle(MARKERS), max(0, series - 1), None))


@contextmanager
def drawn(chart: Chart) -> Iterator[Figure]:
    """The chart, drawn in the one style; closed afterwards."""
    with sns.axes_style("ticks"), matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # browsers have more fonts than matplotlib
        figure = plt.figure(figsize=chart.size)
        try:
            chart.draw(figure)
            yield figure
        finally:
            plt.close(figure)


def to_svg(chart: Chart) -> str:
    """The chart as an SVG document with text as text."""
    with drawn(chart) as figure:
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def write_chart(chart: Chart, folder: Path, kinds: tuple[str, ...] = ("pdf", "png")) -> list[Path]:
    """NAME.pdf and NAME.png for papers and slides, and NAME.csv with the data; each in one step; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with drawn(chart) as figure:
        for kind in kinds:
            path = folder / f"{chart.name}.{kind}"
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            date = {"CreationDate" if kind == "pdf" else "Date": None} if kind in ("pdf", "svg") else None
            figure.savefig(temporary, format=kind, dpi=DPI, facecolor="white", metadata=date)
            os.replace(temporary, path)
            written.append(path)
    path = folder / f"{chart.name}.csv"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(csv_text(chart.data), encoding="utf-8")
    os.replace(temporary, path)
    return [*written, path]
