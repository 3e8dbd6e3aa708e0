"""Building SVG and HTML by hand: escaped tags, text made safe to show, ticks and labels that do not overlap."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

LONGEST = 2000  # characters of one text on a page
# Control characters, lone surrogates, and the marks that turn the direction of what follows them.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)


def clean(text: str, longest: int = LONGEST) -> str:
    """Text with what a page cannot or must not carry replaced by its visible name, and cut where it is too long."""
    shown = UNSAFE.sub(lambda m: f"⟨U+{ord(m.group()):04X}⟩", text[:longest])
    return shown if len(text) <= longest else f"{shown}… ({len(text) - longest:,} more characters)"


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element. Attribute names: a trailing underscore goes, others become dashes; None leaves an attribute out."""
    parts = [
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), clean(str(value)))
        for key, value in attributes.items()
        if value is not None
    ]
    inside = Markup("").join(c if isinstance(c, Markup) else escape(clean(str(c))) for c in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), Markup("").join(parts), inside)


def breakable(text: str) -> Markup:
    """Text whose method labels (`schedule:layers=1-3,keep=9`) may break between their parts, and there only."""
    return Markup(re.sub(r"(?<=\w)([,:=])(?=\w)", r"\1<wbr>", str(escape(clean(text)))))


def number(x: float) -> str:
    """A coordinate: at most one decimal."""
    return f"{x:.1f}".removesuffix(".0")


def points(pairs: Iterable[tuple[float, float]]) -> str:
    """Coordinates as `points` and paths write them."""
    return " ".join(f"{number(x)},{number(y)}" for x, y in pairs)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from low to high, about so many."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near the wanted ones, in the same order, at least `gap` apart and within low..high where they fit."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [min(max(wanted[i], low), high) for i in order]
    for k in range(1, len(placed)):
        placed[k] = max(placed[k], placed[k - 1] + gap)
    if placed and placed[-1] > high:
        placed[-1] = high
        for k in range(len(placed) - 2, -1, -1):
            placed[k] = min(placed[k], placed[k + 1] - gap)
    result = [0.0] * len(wanted)
    for i, position in zip(order, placed, strict=True):
        result[i] = position
    return result


HUES = 8
MARKERS = (
    "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0z",
    "M-4,-4h8v8h-8z",
    "M0,-5.4L5.2,3.8H-5.2z",
    "M0,-5.8L5.8,0L0,5.8L-5.8,0z",
    "M0,5.4L5.2,-3.8H-5.2z",
    "M-1.7,-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
    "M-4.8,-2.4L-2.4,-4.8L0,-2.4L2.4,-4.8L4.8,-2.4L2.4,0L4.8,2.4L2.4,4.8L0,2.4L-2.4,4.8L-4.8,2.4L-2.4,0z",
    "M0,-5.6L1.6,-1.8L5.6,-1.6L2.5,1L3.5,5L0,2.7L-3.5,5L-2.5,1L-5.6,-1.6L-1.6,-1.8z",
)


def marker(series: int, x: float = 0.0, y: float = 0.0) -> Markup:
    """A method's mark: shape and colour both tell methods apart; series 0 is the upper bound, hollow."""
    shape = MARKERS[max(0, series - 1) % len(MARKERS)]
    return tag("path", d=shape, class_=f"mark {hue(series)}", transform=f"translate({number(x)} {number(y)})")


def hue(series: int) -> str:
    """The class of a series' colour: one of eight, shifted at each round so that the ninth mark is a new one."""
    if series == 0:
        return "reference"
    turn, place = divmod(series - 1, HUES)
    return f"s{(place + 3 * turn) % HUES + 1}"


def short(label: str, longest: int = 22) -> str:
    """A label that fits a figure; its end goes."""
    return label if len(label) <= longest else f"{label[: longest - 1]}…"


def swatch(series: int) -> Markup:
    """The mark beside a method's name in text."""
    return tag("svg", marker(series), viewBox="-7 -7 14 14", class_="swatch", aria_hidden="true")
