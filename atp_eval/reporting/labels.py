"""Names of methods in figures: right of the plot, in a column, each with its mark and a thin line to what it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from atp_eval.plotting import INK, PAPER, SOFT, colour, marker
from atp_eval.reporting.svg import clean

SIZE, LINE, LETTER = 8.5, 11.5, 5.8  # points: of a name, between two, and about a letter's width
GAP = 14.0  # points between the plot and the marks
LONGEST = 24  # characters
OPTICAL = {"*": 1.5, "P": 1.15, "X": 1.15, "^": 1.1, "v": 1.1}  # marks that look smaller than they are


class Named(NamedTuple):
    """A place in the plot (data coordinates) and its method. strong: whether its name stands out."""

    x: float
    y: float
    label: str
    series: int
    strong: bool = False


def room(labels: Sequence[str]) -> float:
    """Inches right of a plot that its names need."""
    return (GAP + 10 + LETTER * max((len(short(label)) for label in labels), default=0)) / 72


def name_at_right(axes: Axes, named: Sequence[Named]) -> None:
    """Write the names; axes have their limits already. Nothing overlaps while there is `LINE` for each."""
    width, height = size_in_points(axes)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    per_x, per_y = (right - left) / width, (top - bottom) / height
    ys = spread_out([(n.y - bottom) / per_y for n in named], LINE, LINE / 2, height - LINE / 2)
    where = [bottom + y * per_y for y in ys]
    edge = right + GAP * per_x
    lines = [
        [(n.x, n.y), (right + 0.45 * GAP * per_x, y), (edge - 4 * per_x, y)] for n, y in zip(named, where, strict=True)
    ]
    axes.add_collection(LineCollection(lines, colors=SOFT, linewidths=0.5, alpha=0.55, clip_on=False), autolim=False)
    for n, y in zip(named, where, strict=True):
        mark(axes, edge, y, n.series)
        weight = "bold" if n.strong else "normal"
        axes.text(edge + 7 * per_x, y, short(n.label), fontsize=SIZE, va="center_baseline", color=INK, weight=weight)


def mark(axes: Axes, x: float, y: float, series: int, size: float = 6.0) -> None:
    """A method's mark, as beside its name in text; the reference is hollow."""
    hollow = series == 0
    size *= OPTICAL.get(marker(series), 1.0)
    axes.plot(
        [x], [y], marker(series), color=colour(series), markersize=size, clip_on=False, zorder=5,
        markerfacecolor=PAPER if hollow else colour(series), markeredgecolor=INK if hollow else PAPER,
        markeredgewidth=1.3 if hollow else 0.6,
    )  # fmt: skip


def size_in_points(axes: Axes) -> tuple[float, float]:
    """Width and height of axes that `plotting.plot_area` made."""
    box = axes.get_position()
    width, height = axes.get_figure(root=True).get_size_inches()  # type: ignore[union-attr]
    return box.width * width * 72, box.height * height * 72


def short(label: str, longest: int = LONGEST) -> str:
    """A label that fits a figure, safe to show; its end goes."""
    label = " ".join(clean(label).split())
    return label if len(label) <= longest else f"{label[: longest - 1]}…"


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near the wanted ones, in the same order, at least `gap` apart and within low..high where they fit.

    Those that crowd become a block about their middle; blocks that then meet are put together.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[list[float]] = []

    def start(block: list[float]) -> float:
        length = gap * (len(block) - 1)
        return max(low, min(sum(block) / len(block) - length / 2, high - length))

    for i in order:
        blocks.append([wanted[i]])
        while len(blocks) > 1 and start(blocks[-1]) < start(blocks[-2]) + gap * len(blocks[-2]):
            last = blocks.pop()
            blocks[-1] += last
    placed = [start(block) + gap * place for block in blocks for place in range(len(block))]
    found = [0.0] * len(wanted)
    for i, position in zip(order, placed, strict=True):
        found[i] = position
    return found


class Room(NamedTuple):
    """Vertical spans (low, high), one a point, and how far apart they stand where two would overlap."""

    spans: Sequence[tuple[float, float]]
    gap: float


def swarm(xs: Sequence[float], rooms: Sequence[Room], reach: float) -> list[float]:
    """Where to draw points lest they hide each other: beside their place, by turns right and left, as near as there is
    room and never further than `reach`; those that nothing is in the way of stay.

    rooms: what each point takes, from what matters most on; where not all fit within reach, the last are given up.
    """
    step = min(room.gap for room in rooms)
    offsets = [sign * step * n for n in range(int(reach / step + 1e-9) + 1) for sign in (1, -1)]
    placed: dict[int, float] = {}

    def is_free(i: int, x: float, wanted: Sequence[Room]) -> bool:
        return all(
            abs(x - other) >= gap - 1e-9 or apart(spans[i], spans[j])
            for spans, gap in wanted
            for j, other in placed.items()
        )

    for i in sorted(range(len(xs)), key=lambda i: (rooms[0].spans[i], i)):
        wishes = (rooms[:count] for count in range(len(rooms), 0, -1))
        free = (xs[i] + offset for wanted in wishes for offset in offsets if is_free(i, xs[i] + offset, wanted))
        placed[i] = next(free, xs[i])
    return [placed[i] for i in range(len(xs))]


def apart(first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Whether two spans have nothing in common."""
    return first[1] < second[0] or second[1] < first[0]
