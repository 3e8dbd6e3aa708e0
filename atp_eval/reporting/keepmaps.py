"""Where in the picture tokens survive: the maps of the page's section on tokens, on one colour scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from atp_eval.analysis.keepmap import KeepMap
from atp_eval.plotting import SEQUENTIAL, Chart, Margins, Panel, Panels, plot_area

MAPS = 4  # prune points of a method whose maps are shown


def highest(maps: Sequence[KeepMap]) -> float:
    """The top of the colour scale that all maps share."""
    return max(float(rates.max()) for found in maps for rates in shown_rates(found))


def shown_rates(found: KeepMap) -> list[np.ndarray]:
    """A method's last maps."""
    return list(found.rates[-MAPS:])


def map_panels(maps: Sequence[KeepMap]) -> Panels | None:
    """A panel a method and prune point: how often each cell stays, on one colour scale."""
    if not maps:
        return None
    top = highest(maps)

    def draw(axes: Axes, rates: np.ndarray) -> None:
        axes.imshow(rates, cmap=SEQUENTIAL, vmin=0, vmax=top, interpolation="none", aspect="auto")
        axes.set_axis_off()

    panels = []
    for found in maps:
        for layer, rates in list(zip(found.starts, found.rates, strict=True))[-MAPS:]:
            rows, columns = rates.shape
            least, most = (np.unravel_index(f(rates), rates.shape) for f in (np.argmin, np.argmax))
            alt = (
                f"from layer {layer} on cells stay in {100 * rates.mean():.1f} % of questions; the most frequent, row "
                f"{most[0]} and column {most[1]} of {rows} x {columns}, in {100 * rates.max():.1f} %, the rarest, row "
                f"{least[0]} and column {least[1]}, in {100 * rates.min():.1f} %."
            )
            note = f"from layer {layer}: {100 * rates.mean():.1f}\u00a0%"
            frame = pd.DataFrame(rates.round(4)).rename(columns=lambda column: f"column_{column}")
            frame = frame.rename_axis("row").reset_index()
            frame.insert(0, "first_layer", layer)
            panels.append(Panel(found.label, alt, frame, lambda axes, rates=rates: draw(axes, rates), note))  # type: ignore[misc]
    rows, columns = maps[0].rates.shape[1:]
    size = (1.45, 1.45 * rows / columns)
    alt = "How often each cell of the picture's grid still is a token, by method and prune point."
    return Panels("keep-rate", alt, tuple(panels), size, Margins(0.04, 0.04, 0.04, 0.04), columns=5)


def scale_chart(maps: Sequence[KeepMap]) -> Chart:
    """The colour scale of the maps."""
    top = 100 * highest(maps)

    def draw(figure: Figure) -> None:
        axes = plot_area(figure, Margins(0.1, 0.2, 0.46, 0.04))
        axes.imshow(
            np.linspace(0, 1, 64)[None], cmap=SEQUENTIAL, aspect="auto", extent=(0, top, 0, 1), interpolation="none"
        )
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("% of questions in which the cell is a token")
        for spine in axes.spines.values():
            spine.set_visible(False)

    alt = f"Colour scale of the maps, from 0 to {top:.0f} % of questions."
    return Chart("keep-rate-scale", alt, pd.DataFrame({"lowest": [0.0], "highest": [top / 100]}), draw, (3.2, 0.66))
