"""Samples as the page shows them: a picture once, and for each method the veils over the cells that it pruned."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from atp_eval.analysis.overlays import Answer, Sample
from atp_eval.reporting.figures import veil

OPTION = re.compile(r"^\s*\(?[A-J][.):]\s*\S")


@dataclass(frozen=True)
class Picture:
    """A picture of the page: `name` is its element's id, `data` its data: address (long: never cut as text is)."""

    name: str
    data: Markup


@dataclass(frozen=True)
class Veil:
    """From `layer` on, `tokens` enter each layer (`merged` of them made of several cells); `path` covers the others."""

    layer: int
    tokens: int
    merged: int
    path: Markup


@dataclass(frozen=True)
class Tile:
    """A method's answer. verdict: right, wrong, partly right, no answer or failed."""

    label: str
    said: str
    verdict: str
    symbol: str
    rows: int
    columns: int
    full: int
    veils: tuple[Veil, ...]
    average: float | None

    @property
    def alt(self) -> str:
        """The tile's picture in words."""
        if not self.veils:
            return f"{self.label}: all {self.full} visual tokens stay."
        kept = "; ".join(f"from layer {v.layer} on {v.tokens}" for v in self.veils)
        return f"{self.label}: of {self.full} visual tokens, {kept}."


@dataclass(frozen=True)
class Card:
    """A sample of the page. options: the lines of a choice, as the model saw them."""

    sample: Sample
    picture: Picture | None
    options: tuple[str, ...]
    tiles: tuple[Tile, ...]


def pictures(samples: Iterable[Sample]) -> dict[Path, Picture]:
    """Each sample's picture once, as a data: address."""
    found: dict[Path, Picture] = {}
    for path in [s.image for s in samples if s.image]:
        if path not in found:
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            found[path] = Picture(f"picture-{len(found)}", Markup("data:image/webp;base64,") + data)
    return found


def cards(samples: Sequence[Sample], kept: dict[Path, Picture]) -> list[Card]:
    """The samples, ready for the template."""
    return [
        Card(
            sample=s,
            picture=kept[s.image] if s.image else None,
            options=tuple(line.strip() for line in s.prompt.splitlines() if OPTION.match(line)),
            tiles=tuple(tile(a) for a in s.answers),
        )
        for s in samples
    ]


def tile(answer: Answer) -> Tile:
    """A method's answer."""
    verdict, symbol = judged(answer)
    trace = answer.trace
    rows, columns = trace.grid if trace else (0, 0)
    veils = [Veil(s.layer, s.tokens, s.merged, veil(trace, s)) for s in trace.stages] if trace and columns else []
    return Tile(
        label=answer.label,
        said=answer.error if answer.error is not None else answer.response or "",
        verdict=verdict,
        symbol=symbol,
        rows=rows,
        columns=columns,
        full=rows * columns,
        veils=tuple(veils),
        average=trace.average_input if trace and columns else None,
    )


def judged(answer: Answer) -> tuple[str, str]:
    """The verdict in a word, and a symbol that does not rely on colour."""
    if answer.error is not None:
        return "failed", "⚠"
    if answer.score >= 1.0:
        return "right", "✓"
    if answer.score > 0.0:
        return f"partly right ({answer.score:.2f})", "◐"
    return ("no answer", "∅") if answer.invalid else ("wrong", "✗")
