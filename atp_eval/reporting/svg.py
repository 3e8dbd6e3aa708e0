"""Text made safe to show on a page, and the marks of methods in it."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from atp_eval.plotting import ROLES, colour, marker

LONGEST = 2000  # characters of one text on a page
# Control characters, lone surrogates, and the marks that turn the direction of what follows them.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)


def clean(text: str, longest: int = LONGEST) -> str:
    """Text with what a page cannot or must not carry replaced by its visible name, and cut where it is too long."""
    shown = UNSAFE.sub(lambda m: f"⟨U+{ord(m.group()):04X}⟩", text[:longest])
    return shown if len(text) <= longest else f"{shown}… ({len(text) - longest:,} more characters)"


def breakable(text: str, narrow: bool = False) -> Markup:
    """Text whose method labels (`schedule:layers=1-3,keep=9`) may break between their parts, and there only; a short
    value stays with its name. narrow: also before a budget, and after `_` and `.`."""
    shown = re.sub(r"(?<=\w)([,:]|=(?=\w{4}))(?=\w)", r"\1<wbr>", str(escape(clean(text))))
    return Markup(re.sub(r"(?<=\w)(?=@)|(?<=\w[_.])(?=[a-zA-Z])", "<wbr>", shown) if narrow else shown)


# The marks of figures (plotting.MARKERS) as paths about the origin.
SHAPES = {
    "o": "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0z",
    "s": "M-4,-4h8v8h-8z",
    "^": "M0,-5.4L5.2,3.8H-5.2z",
    "D": "M0,-5.8L5.8,0L0,5.8L-5.8,0z",
    "v": "M0,5.4L5.2,-3.8H-5.2z",
    "P": "M-1.7,-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
    "X": "M-4.8,-2.4L-2.4,-4.8L0,-2.4L2.4,-4.8L4.8,-2.4L2.4,0L4.8,2.4L2.4,4.8L0,2.4L-2.4,4.8L-4.8,2.4L-2.4,0z",
    "*": "M0,-5.6L1.6,-1.8L5.6,-1.6L2.5,1L3.5,5L0,2.7L-3.5,5L-2.5,1L-5.6,-1.6L-1.6,-1.8z",
}


def swatch(series: int) -> Markup:
    """The mark beside a method's name in text, as figures have it: shape and colour both tell methods apart; series 0,
    the upper bound, is hollow."""
    hue = ROLES[colour(series)].removeprefix("--") if series else "reference"
    shape = Markup('<path d="{}" class="mark {}"></path>').format(SHAPES[marker(series)], hue)
    return Markup('<svg viewBox="-7 -7 14 14" class="swatch" aria-hidden="true">{}</svg>').format(shape)
