"""Lines of text in a static figure, broken and cut by the font's own measures."""

from __future__ import annotations

from bisect import bisect_right

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import text_to_path

from atp_eval.reporting.svg import clean

SIZE = 7.5  # points


def wrapped(text: str, width: float, lines: int) -> list[str]:
    """Text in at most `lines` lines of `width` inches, by the font's own measures; what does not fit becomes `…`."""
    words = drawable(clean(" ".join(text.split()), 600)).split(" ")
    found = [""]
    while words:
        word = words.pop(0)
        longer = f"{found[-1]} {word}".strip()
        if measure(longer) <= width:
            found[-1] = longer
        elif not found[-1] or measure(word) > width:  # a word that fits no line is cut where the line ends
            start = found[-1]
            room = bisect_right(range(1, len(word)), width, key=lambda n: measure(f"{start} {word[:n]}"))
            room = max(room, int(not start))
            found[-1] = f"{start} {word[:room]}".strip()
            words.insert(0, word[room:])
            found.append("")
        else:
            words.insert(0, word)
            found.append("")
        if len(found) > lines:
            found[lines - 1] = shortened(found[lines - 1], width)
            break
    return [line for line in found[:lines] if line]


def shortened(line: str, width: float) -> str:
    """The line with `…` at its end, which fits."""
    while line and measure(f"{line}…") > width:
        line = line[:-1]
    return f"{line.rstrip()}…"


def drawable(text: str) -> str:
    """The text with a replacement character for each that the figure's font has no picture of."""
    font = get_font(findfont(FontProperties(size=SIZE)))
    return "".join(c if font.get_char_index(ord(c)) else "\ufffd" for c in text)


def measure(text: str) -> float:
    """Inches that a line of text takes."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=SIZE), ismath=False)
    return float(width) / 72
