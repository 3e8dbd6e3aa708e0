"""Is it adaptive? The page's sentences and figure about what kept counts go with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

from atp_eval.analysis import Adaptivity, Hindsight, Interval
from atp_eval.reporting.figures import Axes, figure, interval_bar
from atp_eval.reporting.headline import NBSP
from atp_eval.reporting.svg import hue, marker, number, points, tag, ticks

PANEL = (330.0, 230.0)
LEFT = 62.0  # ticks have a sign and a decimal


class Check(NamedTuple):
    """Something that should rise if a method adapts: where it would spend more, and the figure that tells, in words."""

    interval: Interval
    where: str
    figure: str


class Panel(NamedTuple):
    """One method's figure among several."""

    label: str
    chart: Markup


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


def objects_panels(measured: Sequence[Adaptivity], series: Callable[[str], int]) -> list[Panel]:
    """Mean tokens by the number of objects in the picture, less the method's mean; a panel a method, on equal axes.

    Methods whose pictures' objects are unknown have none.
    """
    shown = [a for a in measured if len(a.by_objects) > 1]
    curves = {a.label: [moved(b.tokens, -a.tokens.mean.value) for b in a.by_objects] for a in shown}
    ends = [v for curve in curves.values() for i in curve for v in (i if i.bounded else (i.value,))]
    low, high = min(0.0, *ends, 0.0), max(0.0, *ends, 0.0)
    margin = 0.06 * (high - low)
    xs = [b.objects for a in shown for b in a.by_objects]
    panels = []
    for place, a in enumerate(shown, 1):
        axes = Axes(
            (min(xs) - 0.5, max(xs) + 0.5), (low - margin, high + margin),
            right=PANEL[0] - 8, left=LEFT, bottom=PANEL[1] - Axes.foot,
        )  # fmt: skip
        panels.append(Panel(a.label, panel(f"fig-objects-{place}", a, curves[a.label], axes, series(a.label))))
    return panels


def panel(name: str, a: Adaptivity, curve: Sequence[Interval], axes: Axes, mark: int) -> Markup:
    """One method's points with their intervals around its mean."""
    x_ticks = [t for t in ticks(*axes.x_range, 8) if t == int(t)]
    parts = [axes.draw("objects in the picture", "tokens, from the mean", x_ticks, ticks(*axes.y_range))]
    zero = number(axes.y(0))
    parts.append(tag("line", class_="reference", x1=number(axes.left), x2=number(axes.right), y1=zero, y2=zero))
    corners = [(axes.x(b.objects), axes.y(i.value)) for b, i in zip(a.by_objects, curve, strict=True)]
    parts += [interval_bar(axes, x, i) for (x, _), i in zip(corners, curve, strict=True)]
    parts.append(tag("polyline", class_=f"line thin {hue(mark)}", points=points(corners)))
    parts += [marker(mark, x, y) for x, y in corners]
    said = "; ".join(f"{b.objects:g}: {i.value:+.1f}" for b, i in zip(a.by_objects, curve, strict=True))
    return figure(name, f"{a.label}: tokens by the number of objects, from the mean. {said}.", *parts, size=PANEL)


def moved(interval: Interval, by: float) -> Interval:
    """The same, elsewhere on the line."""
    return Interval(interval.value + by, interval.low + by, interval.high + by)
