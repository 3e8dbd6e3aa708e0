"""What methods keep and cost on a model, before anything runs: the table of `atp-eval budget`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from atp_eval.cost import Averages, ModelGeometry, averages, tokens_per_layer
from atp_eval.cost.calibration import Calibration
from atp_eval.cost.flops import engine_prefill, kv_bytes, paper_macs, projector, vision_tower
from atp_eval.cost.target import TEXT_TOKENS
from atp_eval.methods import get_method

PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Costs:
    """What one prompt with an image costs.

    kv_bytes: of visual tokens, bf16. paper_macs: Eq. 16 of ATP-LLaVA on visual tokens. exact_flops: of the
    engine's prefill, text included. seconds: of the same, predicted from measured times without the method's own work;
    None where nothing was measured.
    """

    kv_bytes: int
    paper_macs: int
    exact_flops: int
    seconds: float | None


@dataclass(frozen=True)
class Budget:
    """A method on a model.

    solved: with every parameter. exact: whether its counts are fixed. average: visual tokens that enter a layer, on
    average; where counts depend on the data, those of the budget, or None without one. tokens: [layers] that enter each
    layer, and their averages; None where they depend on the data, and costs are those of the average in every layer.
    """

    method: str
    solved: str
    exact: bool
    average: float | None
    tokens: tuple[int, ...] | None = None
    averages: Averages | None = None
    costs: Costs | None = None


def costs_of(
    geometry: ModelGeometry,
    tokens: Sequence[int],
    text: int = TEXT_TOKENS,
    times: Calibration | None = None,
    early: bool = False,
) -> Costs:
    """What a prompt costs, `tokens[i]` visual tokens of which enter layer i, beside `text` others. early: of the method
    (`Method.early`)."""
    lengths = [count + text for count in tokens]
    return Costs(
        kv_bytes=kv_bytes(geometry, tokens),
        paper_macs=paper_macs(geometry, tokens),
        exact_flops=engine_prefill(geometry, lengths, geometry.cells + text, early).total,
        seconds=times.seconds(tokens) if times else None,
    )


def solve_budget(
    spec: str, geometry: ModelGeometry, text: int = TEXT_TOKENS, times: Calibration | None = None
) -> Budget:
    """Solve one method. Raises UserError for a budget that cannot be met, with the nearest one that can."""
    method = get_method(spec)
    solved = method.solve(geometry)
    counts = solved.counts()
    if counts is None:
        average = method.average_for(geometry)
        costs = None if average is None else costs_of(geometry, [average] * geometry.num_layers, text, times)
        return Budget(method.label, str(solved), False, average, costs=costs)
    tokens = tokens_per_layer(geometry, solved.prune_layers, counts)
    found = averages(tokens)
    costs = costs_of(geometry, tokens, text, times, solved.early)
    return Budget(method.label, str(solved), True, found.input, tuple(tokens), found, costs)


@dataclass(frozen=True)
class BudgetTable:
    """Methods on one model, with `text` tokens beside the image; `full` is what the unpruned prompt costs."""

    model: str
    geometry: ModelGeometry
    text: int
    full: Costs
    rows: list[Budget]
    times: Calibration | None

    def to_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        around = {"vision_tower_flops": vision_tower(self.geometry), "projector_flops": projector(self.geometry)}
        return {
            "model": self.model,
            "geometry": asdict(replace(self.geometry, place=None)),
            "text_tokens": self.text,
            "unpruned": {**asdict(self.full), **around},
            "methods": [{**asdict(row), "averages": row.averages and row.averages._asdict()} for row in self.rows],
            "prefill_times": self.times and {**asdict(self.times), "place": self.times.place._asdict()},
        }

    def to_rich(self) -> RenderableType:
        """A table for people, and what its columns count."""
        full = self.full
        title = f"{self.model}: {self.geometry.num_layers} layers, {self.geometry.cells} visual tokens"
        table = Table(title=escape(title), title_justify="left", show_lines=True)
        table.add_column("method\nsolved\ntokens in layers", overflow="fold")
        heads = ["average", "KV\nMB", f"paper\n{prefix(full.paper_macs)}MAC", f"exact\n{prefix(full.exact_flops)}FLOP"]
        for head in heads + (["time\nms"] if full.seconds else []):
            table.add_column(head, justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(*self._cells(row))
        return Group(table, *map(escape, self._notes()))

    def _cells(self, row: Budget) -> list[str]:
        solved = [] if row.solved == row.method else [escape(row.solved)]
        tokens = compact(row.tokens) if row.tokens else "counts depend on the data"
        cells = ["\n".join([f"[bold]{escape(row.method)}[/bold]", *solved, tokens])]
        if row.costs is None:
            return cells
        found = row.averages._asdict() if row.averages else {"input": row.average}
        cells.append("\n".join(f"{'' if row.exact else '~'}{value:.1f} {name}" for name, value in found.items()))
        cost, full = row.costs, self.full
        cells.append(share(cost.kv_bytes, full.kv_bytes, 1e6))
        cells.append(share(cost.paper_macs, full.paper_macs, scale(full.paper_macs)))
        cells.append(share(cost.exact_flops, full.exact_flops, scale(full.exact_flops)))
        if cost.seconds is not None and full.seconds is not None:
            cells.append(share(cost.seconds, full.seconds, 1e-3))
        return cells

    def _notes(self) -> list[str]:
        around = vision_tower(self.geometry) + projector(self.geometry)
        notes = [
            "Average over layers of the visual tokens that enter (input), that leave (output); final: that enter the "
            "last layer. KV: visual tokens, bf16. Paper: ATP-LLaVA's Eq. 15-16, visual tokens. Exact: what runs of the "
            f"LLM's prefill with {self.text} text tokens, without dead rows and methods' own work; vision tower and "
            f"projector take {number(around / scale(around))} {prefix(around)}FLOP more."
        ]
        if not all(row.exact for row in self.rows):
            notes.append("~: what was asked for. How many tokens stay is up to the data: measured, not exact.")
        if self.text != TEXT_TOKENS and any("@flops=" in row.method or "@time=" in row.method for row in self.rows):
            notes.append(f"Budgets of FLOPs and time are met with {TEXT_TOKENS} text tokens.")
        if self.times:
            device, dtype, attention = self.times.place
            notes.append(
                f"Time: predicted from prefills of 1 to {self.times.tokens[-1]} visual and {self.times.text} text "
                f"tokens, medians of {self.times.rounds} interleaved rounds on {device} in {dtype} with {attention}."
            )
        return notes


def budget_table(
    specs: Sequence[str],
    model: str,
    geometry: ModelGeometry,
    text: int = TEXT_TOKENS,
    times: Calibration | None = None,
) -> BudgetTable:
    """Solve methods for a model. Raises UserError for the first that cannot be."""
    full = costs_of(geometry, [geometry.cells] * geometry.num_layers, text, times)
    rows = [solve_budget(spec, geometry, text, times) for spec in dict.fromkeys(specs)]
    return BudgetTable(model, geometry, text, full, rows, times)


def compact(tokens: Sequence[int]) -> str:
    """`2 x 576, 30 x 115`."""
    return ", ".join(f"{len(list(group))} x {count}" for count, group in groupby(tokens))


def share(value: float, full: float, unit: float) -> str:
    """A cost, and its share of the unpruned one below."""
    return f"{number(value / unit)}\n{100 * value / full:.1f}%"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def scale(value: float) -> float:
    """The unit in which a number is read with ease: 1e12 for 2.5e12."""
    return next((unit for unit, _ in PREFIXES if value >= unit), 1.0)


def prefix(value: float) -> str:
    """The name of that unit: `T`."""
    return next((name for unit, name in PREFIXES if value >= unit), "")
