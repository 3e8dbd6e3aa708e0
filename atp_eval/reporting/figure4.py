"""Static figures like ATP-LLaVA's Figure 4: a picture, then what is left of it after each prune layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from PIL import Image

from atp_eval.analysis.overlays import Answer, Sample, cell_runs
from atp_eval.errors import UserError
from atp_eval.plotting import INK, PAGE, SOFT, Chart
from atp_eval.reporting.gallery import judged, options, said
from atp_eval.reporting.svg import clean
from atp_eval.reporting.typeset import SIZE, wrapped
from atp_eval.trace import KeepTrace, pack

EDGE, GAP, BESIDE = 0.01, 0.05, 0.2  # inches: around the figure, between panels, between samples
HEAD, LINE, FOOT = 0.17, 0.135, 0.12  # inches: over panels, a line of text, below it
QUESTION, ANSWER = 3, 1  # lines of text below a sample at most
SHARPEST = 300  # pixels an inch that pictures are embedded with at most
MOST_PANELS = 6  # beside each other in two samples of a row
VEIL = 0.82  # opacity of the white over what is pruned
MOST = 60  # samples; more are no figure


@dataclass(frozen=True)
class Row:
    """A sample of the figure, with the answer of its method."""

    sample: Sample
    answer: Answer

    @property
    def trace(self) -> KeepTrace:
        """What the method kept; rows of a figure have it."""
        assert self.answer.trace is not None, "pick_rows leaves out samples without"
        return self.answer.trace


def figure4(
    samples: Sequence[Sample], method: str, layers: Sequence[int] | None = None, name: str = "figure4"
) -> Chart:
    """The chart of some samples under a method's label; layers: after whose pruning, by default all of its own.

    A panel for layer i shows the cells with tokens of their own that enter layer i, the others under white.
    Raises UserError for a sample that the method has not answered, that has no picture, or that has not such a layer.
    """
    if len(samples) > MOST:
        raise UserError(f"{len(samples)} samples: a figure holds {MOST}, the page (without --figure4) any number")
    rows = [Row(s, answer_of(s, method)) for s in samples]
    deepest = min(row.trace.num_layers for row in rows)
    if wrong := [layer for layer in layers or () if not 0 <= layer < deepest]:
        raise UserError(f"--layers {wrong[0]}: this model has layers 0 to {deepest - 1}")
    shown = sorted(set(layers or [stage.layer for row in rows for stage in row.trace.stages]))
    if not shown:
        raise UserError(f"{method} prunes none of these samples; choose another with --method or layers with --layers")
    grid = laid_out(rows, len(shown) + 1)
    return Chart(
        name=name,
        alt=caption(rows, method, shown),
        data=table(rows, method, shown),
        draw=lambda figure: draw(figure, rows, shown, grid),
        size=(PAGE, sum(grid.rows)),
    )


def answer_of(sample: Sample, method: str) -> Answer:
    """The method's answer. Raises UserError where nothing of it can be drawn."""
    answer = next((a for a in sample.answers if a.label == method), None)
    where = f"{sample.benchmark}:{sample.doc_id}"
    if answer is None:
        raise UserError(f"{method} has no answer to {where}. Finish its run, or choose other documents with --docs.")
    if answer.trace is None or not answer.trace.grid[1]:
        raise UserError(
            f"{where} has no visual tokens of {method}: {answer.error or 'it has no image'}. Choose another."
        )
    if answer.image is None:
        raise UserError(f"the run kept no picture of {where}; `atp-eval run --keep-images` says of how many it does.")
    return answer


# ------------------------------------------------------------------ what it says


def caption(rows: Sequence[Row], method: str, layers: Sequence[int]) -> str:
    """What the figure shows, for those who do not see it and for below it."""
    means = [np.mean([tokens(row.trace, layer) for row in rows]) for layer in layers]
    drawn = ", drawn at random among those kept," if all(row.sample.at_random for row in rows) else ""
    told = ", ".join(f"layer {layer}: {mean:.0f}" for layer, mean in zip(layers, means, strict=True))
    return clean(
        f"{len(rows)} pictures{drawn} as the model sees them, and what {method} keeps of them: under white what has no "
        f"token of its own when a layer is entered. Mean tokens entering {told}."
    )


def table(rows: Sequence[Row], method: str, layers: Sequence[int]) -> pd.DataFrame:
    """What is drawn: a row a panel; kept_cells: a bit a cell in raster order, base64 (trace.unpack reads it)."""
    return pd.DataFrame(
        {
            "benchmark": row.sample.benchmark,
            "doc_id": row.sample.doc_id,
            "question": clean(row.sample.question),
            "target": clean(row.sample.target),
            "method": clean(method),
            "answer": clean(said(row.answer)),
            "verdict": judged(row.answer)[0],
            "layer": layer,
            "tokens": tokens(row.trace, layer),
            "merged": merged(row.trace, layer),
            "rows": row.trace.grid[0],
            "columns": row.trace.grid[1],
            "kept_cells": pack(row.trace.keep_at(layer)),
        }
        for row in rows
        for layer in layers
    )


def tokens(trace: KeepTrace, layer: int) -> int:
    """Visual tokens that enter a layer."""
    return int(trace.tokens_per_layer()[layer])


def merged(trace: KeepTrace, layer: int) -> int:
    """How many of them are made of several cells."""
    return next((s.merged for s in reversed(trace.stages) if s.layer <= layer), 0)


# ------------------------------------------------------------------ drawing


class Words(NamedTuple):
    """Lines below a sample."""

    asked: list[str]
    answered: list[str]


@dataclass(frozen=True)
class Layout:
    """Where panels lie, in inches from the top left corner: samples in rows, two beside each other where they fit."""

    panels: int
    beside: int
    words: tuple[Words, ...]

    @property
    def block(self) -> float:
        """Width of a sample."""
        return (PAGE - 2 * EDGE - BESIDE * (self.beside - 1)) / self.beside

    @property
    def side(self) -> float:
        """Side of a panel; a single sample of few panels leaves room rather than fill a page."""
        return min(1.7, (self.block - GAP * (self.panels - 1)) / self.panels)

    @property
    def rows(self) -> list[float]:
        """Height of each row of samples, by the most lines that one of it has."""
        lines = [len(w.asked) + len(w.answered) for w in self.words]
        most = [max(lines[i : i + self.beside]) for i in range(0, len(lines), self.beside)]
        return [HEAD + self.side + LINE * n + FOOT for n in most]

    def places(self) -> Iterator[tuple[float, float]]:
        """(left, top) of each sample's panels."""
        for i in range(len(self.words)):
            row, place = divmod(i, self.beside)
            yield EDGE + place * (self.block + BESIDE), sum(self.rows[:row]) + HEAD


def laid_out(rows: Sequence[Row], panels: int) -> Layout:
    """The layout of some samples, with their texts as lines that fit it."""
    empty = Layout(panels, 2 if len(rows) > 1 and panels <= MOST_PANELS else 1, ())
    return replace(empty, words=tuple(words(row, empty.block) for row in rows))


def words(row: Row, width: float) -> Words:
    """The question with its options, and the answer with its verdict, as lines."""
    verdict, symbol = judged(row.answer)
    right = "" if verdict == "right" else f"; right answer: {row.sample.target}"
    asked = " ".join([row.sample.question, *options(row.sample)])
    return Words(
        wrapped(asked, width, QUESTION), wrapped(f"{symbol} {said(row.answer)} ({verdict}{right})", width, ANSWER)
    )


def draw(figure: Figure, rows: Sequence[Row], layers: Sequence[int], grid: Layout) -> None:
    """Put all samples on an empty figure."""
    figure.set_layout_engine("none")
    height = sum(grid.rows)
    pixels = round(grid.side * SHARPEST)
    for row, lines, (left, top) in zip(rows, grid.words, grid.places(), strict=True):
        picture = opened(row, pixels)
        for i, layer in enumerate([None, *layers]):
            x, bottom = left + i * (grid.side + GAP), height - top - grid.side
            axes = figure.add_axes((x / PAGE, bottom / height, grid.side / PAGE, grid.side / height))
            panel(axes, picture, row.trace, layer)
        coloured = [(text, INK) for text in lines.asked] + [(text, SOFT) for text in lines.answered]
        for i, (text, colour) in enumerate(coloured):
            y = height - top - grid.side - 0.05 - i * LINE
            figure.text(left / PAGE, y / height, text, fontsize=SIZE, color=colour, va="top")


def opened(row: Row, side: int) -> Any:
    """[side, side, 3]: the sample's picture, at most so large."""
    assert row.answer.image is not None, "answer_of has made sure"
    with Image.open(row.answer.image) as image:
        picture = image.convert("RGB")
    if max(picture.size) > side:
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def panel(axes: Axes, pixels: Any, trace: KeepTrace, layer: int | None) -> None:
    """The picture, and white over the cells that have no token of their own at a layer.

    The picture is what the model saw, padded or cropped, so the grid divides it evenly; a unit is a cell.
    """
    rows, columns = trace.grid
    axes.set_axis_off()
    axes.imshow(pixels, extent=(0, columns, rows, 0), aspect="auto", interpolation="none", zorder=0)
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    title = "image"
    if layer is not None:
        title = f"layer {layer}: {tokens(trace, layer)}"
        if outline := covered(trace, layer):
            # One path, whose cells meet without a seam; drawn as vectors, sharp at any size.
            axes.add_patch(PathPatch(outline, facecolor="white", alpha=VEIL, linewidth=0, zorder=1))
            axes.add_collection(LineCollection(borders(trace, layer), colors=INK, linewidths=0.25, alpha=0.6, zorder=2))
    axes.set_title(title, fontsize=SIZE - 0.5, color=SOFT, pad=2, loc="left", fontweight="normal")
    axes.add_patch(PathPatch(box(0, 0, columns, rows), fill=False, edgecolor=SOFT, linewidth=0.4, zorder=2))


def box(x: float, y: float, width: float, height: float) -> Outline:
    """A closed rectangle."""
    return Outline([(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)], closed=True)


def covered(trace: KeepTrace, layer: int) -> Outline | None:
    """The outline of the cells without a token of their own at a layer; None where all have one."""
    runs = cell_runs(~trace.keep_at(layer), trace.grid[1])
    return Outline.make_compound_path(*(box(c, r, n, 1) for r, c, n in runs)) if runs else None


def borders(trace: KeepTrace, layer: int) -> list[list[tuple[int, int]]]:
    """Lines between cells with and without a token of their own; white on a pale picture would not show."""
    keep = trace.keep_at(layer).reshape(trace.grid)
    upright = [[(c + 1, r), (c + 1, r + 1)] for r, c in np.argwhere(keep[:, 1:] != keep[:, :-1]).tolist()]
    level = [[(c, r + 1), (c + 1, r + 1)] for r, c in np.argwhere(keep[1:] != keep[:-1]).tolist()]
    return upright + level
