"""Is it adaptive? The page's sentences and figure about what kept counts go with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from atp_eval.analysis import Adaptivity, Hindsight, Interval
from atp_eval.plotting import SOFT, Margins, Panel, Panels, colour
from atp_eval.reporting.headline import NBSP
from atp_eval.reporting.labels import mark

PANEL = (3.4, 2.4)  # inches


class Check(NamedTuple):
    """Something that should rise if a method adapts: where it would spend more, and the figure that tells, in words."""

    interval: Interval
    where: str
    figure: str


def adaptive_words(measured: Sequence[Adaptivity], hindsight: Sequence[Hindsight]) -> list[str]:
    """Paragraphs, without markup: about the first method, and about the first choice in hindsight."""
    about = [" ".join([spreads(a), *verdicts(checks(a))]) for a in measured[:1]]
    return about + [looked_back(h) for h in hindsight[:1]]


def spreads(a: Adaptivity) -> str:
    """How many tokens, how far apart, and whether pictures or questions make the difference."""
    tokens = a.tokens
    text = (
        f"{a.label} keeps {tokens.mean.value:.1f} visual tokens on average, {tokens.low:.1f} to {tokens.high:.1f} for "
        "nine questions in ten"
    )
    if a.between_pictures is None:
        return f"{text}."
    share = a.between_pictures.scaled(100)
    return (
        f"{text}; {share.value:.0f}{NBSP}%{bracketed(share, 0)} of the variance lies between pictures, the rest "
        "between questions about the same picture."
    )


def checks(a: Adaptivity) -> list[Check]:
    """What is known of a method."""
    fine, wrong, objects = a.fine_minus_coarse, a.wrong_minus_right, a.objects
    found = []
    if fine and fine.bounded:
        found.append(Check(fine, "on fine questions than on coarse ones", f"{signed(fine)} tokens"))
    if wrong and wrong.bounded:
        where = "on questions that the unpruned model answers wrong than on those it answers right"
        found.append(Check(wrong, where, f"{signed(wrong)} tokens"))
    if objects and objects.bounded:
        found.append(Check(objects, "where there are more objects", f"rank correlation {signed(objects, 2)}"))
    return found


def verdicts(found: Sequence[Check]) -> Iterator[str]:
    """A sentence each for what rises, what falls, and what may do neither."""
    said = {True: "It spends more ", False: "It spends less, not more, "}
    for rises, start in said.items():
        if clear := [c for c in found if (c.interval.low > 0 if rises else c.interval.high < 0)]:
            yield start + listed([f"{c.where} ({c.figure})" for c in clear], "and") + "."
    if unclear := [c for c in found if c.interval.low <= 0 <= c.interval.high]:
        end = "the interval includes 0" if len(unclear) == 1 else "these intervals include 0"
        where = listed([f"{c.where} ({c.figure})" for c in unclear], "or")
        yield f"There is no sign that it spends more {where}: {end}."


def listed(parts: Sequence[str], last: str) -> str:
    """`a, b and c`"""
    return f" {last} ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def looked_back(h: Hindsight) -> str:
    """What the best choice among fixed counts would have brought, and how much of it luck may be."""
    rate, luck = h.least.right.scaled(100), h.luck.right.scaled(100)
    single, tokens = h.scales[h.least.scale]
    single = single.scaled(100)
    return (
        f"Had each question been given the least of {len(h.scales)} fixed counts at which it is answered right, "
        f"{rate.value:.1f}{NBSP}%{bracketed(rate, 1)} would be right with {h.least.tokens.value:.0f} tokens on "
        f"average; with one count for all, {tokens.value:.0f} tokens, {single.value:.1f}{NBSP}%"
        f"{bracketed(single, 1)} are. No choice among these counts can bring more, and part of it is luck: right "
        f"answers dealt at random would give {luck.value:.1f}{NBSP}%."
    )


def signed(interval: Interval, digits: int = 1) -> str:
    """`+1.3 [−0.2, 2.8]`"""
    return f"{interval.value:+.{digits}f}".replace("-", "\u2212") + bracketed(interval, digits)


def bracketed(interval: Interval, digits: int) -> str:
    """The bounds, with a true minus, on one line with what they belong to; nothing where there are none."""
    if not interval.bounded:
        return ""
    return f"{NBSP}[{interval.low:.{digits}f},{NBSP}{interval.high:.{digits}f}]".replace("-", "\u2212")


def objects_panels(measured: Sequence[Adaptivity], series: Callable[[str], int]) -> Panels | None:
    """Mean tokens by the number of objects in the picture, less the method's mean; a panel a method, on equal axes.

    Methods whose pictures' objects are unknown have none; None without any.
    """
    shown = [a for a in measured if len(a.by_objects) > 1]
    if not shown:
        return None
    frames = {a.label: bins(a) for a in shown}
    everything = pd.concat(frames.values())
    ends = everything[["from_mean", "low", "high"]].to_numpy()
    low, high = min(0.0, float(np.nanmin(ends))), max(0.0, float(np.nanmax(ends)))
    margin = 0.06 * (high - low)
    x_range = everything["objects"].min() - 0.5, everything["objects"].max() + 0.5
    y_range = low - margin, high + margin

    def drawing(label: str) -> Callable[[Axes], None]:
        return lambda axes: draw(axes, frames[label], series(label))

    def draw(axes: Axes, frame: pd.DataFrame, number: int) -> None:
        axes.set_xlim(*x_range)
        axes.set_ylim(*y_range)
        axes.set_xlabel("objects in the picture")
        axes.set_ylabel("tokens, from the mean")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.axhline(0, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.vlines(frame["objects"], frame["low"], frame["high"], color=SOFT, linewidth=1.1, zorder=3)
        axes.plot(frame["objects"], frame["from_mean"], color=colour(number), linewidth=1.1, alpha=0.6, zorder=2)
        for x, y in zip(frame["objects"], frame["from_mean"], strict=True):
            mark(axes, x, y, number, 5.5)

    panels = tuple(
        Panel(
            a.label,
            f"tokens by the number of objects, from the mean. {said(frames[a.label])}.",
            frames[a.label],
            drawing(a.label),
        )
        for a in shown
    )
    alt = "Mean tokens by the number of objects in the picture, less each method's mean."
    return Panels("tokens-by-objects", alt, panels, PANEL, Margins(left=0.7))


def bins(a: Adaptivity) -> pd.DataFrame:
    """A method's mean tokens, less its mean over all questions, by the number of objects."""
    mean = a.tokens.mean.value
    return pd.DataFrame(
        {
            **{"method": a.label, "objects": b.objects, "questions": b.questions},
            **{"from_mean": b.tokens.value - mean, "low": b.tokens.low - mean, "high": b.tokens.high - mean},
        }
        for b in a.by_objects
    )


def said(frame: pd.DataFrame) -> str:
    """`3: -0.1; 4: +0.9`"""
    return "; ".join(f"{x:g}: {y:+.1f}" for x, y in zip(frame["objects"], frame["from_mean"], strict=True))
