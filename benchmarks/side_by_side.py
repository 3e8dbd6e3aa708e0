"""Pieces of work timed in turn, round after round: what benchmarks that compare two ways of doing the same have alike.

Works take turns in rotating order, so that whatever else the machine does falls on all of them, and ratios are taken
within a round. A result is the median of its rounds with the 95 % interval of the median.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from atp_eval.analysis.significance import median_interval
from atp_eval.bench.machine import machine_name
from atp_eval.plotting import INK, SOFT, Chart, colour, plot_area, write_chart

Spread = list[float | None]  # median, and the bounds of its 95 % interval (None below 6 rounds)


class Bar(NamedTuple):
    """One row of the figure: a ratio, and what it was to reach (None where there is no target)."""

    label: str
    ratio: Spread
    target: float | None = None


def in_turn(
    works: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each work in each of `repeats` rounds, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    names = list(works)
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=(repeats + 1) * len(names))
        for number in range(repeats + 1):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                bar.update(task, description=name)
                start = clock()
                works[name]()
                taken = clock() - start
                if number:
                    seconds[name].append(taken)
                bar.advance(task)
    return seconds


def spread(values: Any) -> Spread:
    """The median of rounds, and its interval."""
    return [None if np.isnan(x) else float(x) for x in median_interval(np.asarray(values, dtype=float))]


def times_faster(seconds: Mapping[str, list[float]], one: str, than: str) -> Spread:
    """How many times as fast one work is as another, within rounds."""
    return spread(np.array(seconds[than]) / np.array(seconds[one]))


def shown(values: Spread, form: str = ".2f") -> str:
    """`3.12 [3.05, 3.20]`."""
    middle, low, high = (None if x is None else format(x, form) for x in values)
    return f"{middle}" if low is None else f"{middle} [{low}, {high}]"


def setting(device: torch.device, **more: Any) -> dict[str, Any]:
    """Where it is measured; asked before the start, or the load would be the benchmark's own."""
    import transformers

    return {
        "device": machine_name(device),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **more,
    }


def typed(script: str, arguments: Sequence[str]) -> str:
    """The command, without where results go."""
    found, left = ["python", f"benchmarks/{script}"], iter(arguments)
    for argument in left:
        if argument in ("--json", "--figure"):
            next(left, None)
        elif argument.partition("=")[0] not in ("--json", "--figure"):
            found.append(argument)
    return shlex.join(found)


def described(s: Mapping[str, Any]) -> str:
    """A line about a setting, for below a table."""
    return (
        f"Batch {s['batch']}, {s['layers']} layers, {s['dtype']}; {s['device']}, {s['threads']} threads, load "
        f"{s['load']:.1f}; torch {s['torch']}, transformers {s['transformers']}. Medians of {s['repeats']} interleaved "
        "rounds [95 % interval]."
    )


def bars(name: str, alt: str, rows: list[Bar], axis: str) -> Chart:
    """Ratios as bars with their intervals; a target is a line across its bar."""
    data = pd.DataFrame(
        [
            {"label": b.label, "ratio": b.ratio[0], "low": b.ratio[1], "high": b.ratio[2], "target": b.target}
            for b in rows
        ]
    )

    def draw(figure: Figure) -> None:
        axes = plot_area(figure, box=(2.0, 0.5, 3.7, 0.34 * len(rows)))
        for place, row in enumerate(rows):
            middle, low, high = row.ratio
            axes.barh(place, middle, height=0.62, color=colour(1 if row.target else 8), alpha=0.85)
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=INK, linewidth=1.4)
            axes.annotate(shown(row.ratio), (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
            if row.target:
                axes.plot([row.target] * 2, [place - 0.42, place + 0.42], color=INK, linewidth=2)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.axvline(1, color=SOFT, linewidth=0.8)
        axes.invert_yaxis()
        axes.set_xlabel(axis)
        axes.grid(axis="y", visible=False)

    return Chart(name, alt, data, draw, (7.0, 0.34 * len(rows) + 0.65))


def add_options(parser: argparse.ArgumentParser, repeats: int) -> None:
    """What all of these benchmarks can be told."""
    parser.add_argument("--repeats", type=int, default=repeats, help=f"measured rounds; intervals need 6 [{repeats}]")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves it to torch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--json", type=Path, help="write the result here as well")
    parser.add_argument("--figure", type=Path, help="a folder for the figure (PDF, PNG, CSV)")


def write(result: dict[str, Any], chart: Chart, options: argparse.Namespace) -> None:
    """The files that were asked for."""
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.figure:
        write_chart(chart, options.figure)
