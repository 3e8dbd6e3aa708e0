"""What answers cost by every count there is, side by side: the table of `atp-eval flops`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from atp_eval.budgets import compact, number, prefix, scale
from atp_eval.cost import Averages, ModelGeometry, averages, tokens_per_layer
from atp_eval.cost.breakdown import Breakdown, breakdown
from atp_eval.cost.flops import kv_bytes, paper_macs, paper_reduction
from atp_eval.cost.scorer import Prompt, thresholds
from atp_eval.cost.sharing import Reader
from atp_eval.errors import UserError, unknown
from atp_eval.fvcore_count import Traced
from atp_eval.methods import Method, get_method

BEFORE = 5  # tokens before the image in the checkpoint's own prompt: "USER: " and the start token
ATP_INPUTS, ATP_HIDDEN = 2 * 576, 256  # of its threshold module (Eq. 6), at the width that `atp-eval train` takes
# What a schedule scores by: the score of method `schedule`, and the threshold modules on top.
SCORERS = {"atp": "redundant", "redundant": "redundant", "self": "self", "cross": "cross", "last_row": "last_row"}
NOTHING = "none"


@dataclass(frozen=True)
class Asked:
    """A method with its name in the table. more: FLOPs of its choosing that the method itself does not know of."""

    name: str
    method: Method
    more: int = 0


@dataclass(frozen=True)
class Counted:
    """One column. tokens: [layers], visual tokens that enter each layer; measured: whether these are no more than an
    average that depends on the data. kv_bytes: visual tokens, bf16. paper_macs: Eq. 15 over all layers, visual tokens;
    paper_saved: what Eq. 16 says is saved. parts: exact FLOPs."""

    name: str
    solved: str
    measured: bool
    tokens: tuple[int, ...]
    averages: Averages
    kv_bytes: int
    paper_macs: int
    paper_saved: int
    parts: Breakdown


def parse_schedule(text: str, scorer: str) -> Asked:
    """`4:126,14:88,24:20`: before layer 4 126 tokens stay, and so on. Raises UserError that names the wrong part."""
    if scorer != NOTHING and scorer not in SCORERS:
        raise unknown("scorer", scorer, [*SCORERS, NOTHING])
    stages = [part.strip() for part in text.split(",")]
    for stage in stages:
        if not re.fullmatch(r"\d{1,4}:\d{1,6}", stage):
            raise UserError(f"--schedule: {stage!r} must be a layer and a count, such as 4:126,14:88,24:20")
    layers, keep = zip(*(stage.split(":") for stage in stages), strict=True)
    score = SCORERS.get(scorer, "random")
    spec = f"schedule:layers={'-'.join(map(int_text, layers))},keep={'-'.join(map(int_text, keep))},score={score}"
    more = len(stages) * thresholds(ATP_INPUTS, ATP_HIDDEN) if scorer == "atp" else 0
    return Asked(f"{','.join(stages)} ({'no scorer' if scorer == NOTHING else scorer})", get_method(spec), more)


def int_text(digits: str) -> str:
    """Without leading zeros."""
    return str(int(digits))


def reader(asked: Asked, geometry: ModelGeometry, before: int, after: int) -> Reader:
    """How the engine reads prompts about one picture with a method. Raises UserError where its counts depend on the
    data: those that a run measured can be given as a schedule."""
    method = asked.method.solve(geometry)
    counts = method.counts()
    if counts is None:
        raise UserError(f"{asked.name}: how many tokens stay depends on the data; give the counts as a schedule")
    prompt = Prompt(geometry, tuple(tokens_per_layer(geometry, method.prune_layers, counts)), before, after)
    apart = method.prune_layers[0] if method.reads_question and method.prune_layers else None
    scorer = method.scorer_flops(prompt)
    return Reader(prompt, method.early, apart, (scorer or 0) + asked.more)


def count(asked: Asked, geometry: ModelGeometry, before: int, after: int, new: int) -> Counted:
    """One method. Raises UserError where it does not fit the model, or nobody knows how many tokens it will keep."""
    method = asked.method.solve(geometry)
    counts, cells = method.counts(), geometry.cells
    if counts is None:
        average = asked.method.average_for(geometry)
        if average is None:
            raise UserError(
                f"{asked.name}: how many tokens stay depends on the data, and there is no budget to take instead. Give "
                "the counts that a run measured as --schedule"
            )
        tokens: tuple[int, ...] = (average,) * geometry.num_layers
        layers: tuple[int, ...] = (0,)
        left: tuple[int, ...] = (average,)
    else:
        tokens = tuple(tokens_per_layer(geometry, method.prune_layers, counts))
        layers, left = method.prune_layers, counts
    prompt = Prompt(geometry, tokens, before, after)
    scorer = method.scorer_flops(prompt)
    return Counted(
        name=asked.name,
        solved=str(method),
        measured=counts is None,
        tokens=tokens,
        averages=averages(tokens),
        kv_bytes=kv_bytes(geometry, tokens),
        paper_macs=paper_macs(geometry, tokens),
        paper_saved=paper_reduction(geometry, cells, layers, left) if layers else 0,
        parts=breakdown(prompt, None if scorer is None else scorer + asked.more, new, method.early),
    )


@dataclass(frozen=True)
class FlopsTable:
    """Columns side by side, the unpruned model first. before, after: text tokens; new: tokens that are written."""

    model: str
    geometry: ModelGeometry
    before: int
    after: int
    new: int
    columns: list[Counted]
    traced: list[Traced] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "model": self.model,
            "geometry": asdict(replace(self.geometry, place=None)),
            "text_tokens": {"before_image": self.before, "after_image": self.after},
            "new_tokens": self.new,
            "columns": [
                {
                    "name": c.name,
                    "solved": c.solved,
                    "counts_depend_on_data": c.measured,
                    "tokens": c.tokens,
                    "averages": c.averages._asdict(),
                    "kv_bytes": c.kv_bytes,
                    "paper": {"macs": c.paper_macs, "saved_macs": c.paper_saved},
                    "exact_flops": {**asdict(c.parts), "prefill": c.parts.prefill, "total": c.parts.total},
                }
                for c in self.columns
            ],
            "fvcore": [t._asdict() for t in self.traced],
        }

    def to_rich(self) -> RenderableType:
        """A table for people: one line a count, one column a method, each with its share of the unpruned model's."""
        full = self.columns[0]
        title = f"{self.model}: one image, {self.before} + {self.after} text tokens, {self.new} new"
        table = Table(title=escape(title), title_justify="left")
        table.add_column("", overflow="fold")
        for c in self.columns:
            table.add_column(escape(c.name), justify="right", overflow="fold")
        table.add_row(
            "visual tokens by layer", *(("~" if c.measured else "") + compact(c.tokens) for c in self.columns)
        )
        for name in Averages._fields:
            table.add_row(f"  average, {name}", *(f"{c.averages._asdict()[name]:.2f}" for c in self.columns))
        self._shares(table, "KV cache, MB", [c.kv_bytes for c in self.columns], 1e6)
        unit, letter = scale(full.paper_macs), prefix(full.paper_macs)
        self._shares(table, f"paper, {letter}MAC (Eq. 15)", [c.paper_macs for c in self.columns], unit)
        self._shares(table, "  saved (Eq. 16)", [c.paper_saved for c in self.columns], unit, full.paper_macs)
        unit, letter = scale(full.parts.total), prefix(full.parts.total)
        table.add_section()
        self._shares(table, f"exact, {letter}FLOP", [c.parts.total for c in self.columns], unit)
        parts = [c.parts for c in self.columns]
        whole = full.parts.total
        self._shares(table, "  vision tower", [p.vision_tower for p in parts], unit, whole)
        self._shares(table, "  projector", [p.projector for p in parts], unit, whole)
        self._shares(table, "  LLM layers, prefill", [sum(p.layers) for p in parts], unit, whole)
        self._shares(table, "  scorer", [p.scorer for p in parts], unit, whole)
        self._shares(table, "  LM head", [p.lm_head for p in parts], unit, whole)
        self._shares(table, "  decode", [p.decode for p in parts], unit, whole)
        table.add_section()
        table.add_row(f"LLM layers, {letter}FLOP each", *(_grouped(p.layers, unit) for p in parts))
        return Group(table, *map(escape, self._notes()), *([self._traced()] if self.traced else []))

    def _shares(
        self, table: Table, name: str, values: Sequence[int | None], unit: float, whole: float | None = None
    ) -> None:
        whole = whole or values[0] or 1
        table.add_row(
            name, *("not counted" if v is None else f"{number(v / unit)}  {_percent(v / whole)}" for v in values)
        )

    def _notes(self) -> list[str]:
        notes = [
            "Averages over layers of the visual tokens that enter (input) or leave (output); final: that enter the "
            "last. KV cache and paper: visual tokens only, as the paper counts. Exact: two operations for each "
            "multiply-accumulate of every matrix product that runs, attention length x length; equal to torch's "
            "FlopCounterMode. Rows that nobody reads do not run: pruned ones leave the layer before behind its "
            "attention where the method allows it, and one row alone goes through a pruned prompt's last layer. "
            "Scorer: the matrix products by which the method chooses. Shares are of the unpruned model's."
        ]
        if any(c.measured for c in self.columns):
            notes.append(
                "~: how many tokens stay depends on the data; the budget's average in every layer stands for it."
            )
        if any(c.parts.scorer is None for c in self.columns):
            notes.append("Not counted: what the method asks of another model than this one; its total is without that.")
        return notes

    def _traced(self) -> RenderableType:
        table = Table(title="fvcore on the unpruned LLM's prefill", title_justify="left")
        for head in ("attention", "fvcore, MAC", "x 2 / exact", "operators that it does not count"):
            table.add_column(head, overflow="fold")
        for t in self.traced:
            # fused attention is the only one of these that holds matrix products: first, since it is what is missing
            order = sorted(t.unsupported.items(), key=lambda item: ("attention" not in item[0], -item[1]))
            missing = ", ".join(f"{name.removeprefix('aten::')} x {times}" for name, times in order)
            table.add_row(t.attention, f"{t.macs:.4g}", f"{2 * t.macs / t.exact:.4f}", missing)
        return table


def _percent(share: float) -> str:
    """Six places wide; two digits of what is less than a tenth of a per cent."""
    return f"{100 * share:.1f}%".rjust(6) if share >= 1e-3 or not share else f"{100 * share:.1g}%".rjust(6)


def _grouped(layers: Sequence[int], unit: float) -> str:
    """`4 x 0.264, 10 x 0.0752`."""
    groups: list[tuple[int, int]] = []
    for flops in layers:
        times = groups.pop()[0] if groups and groups[-1][1] == flops else 0
        groups.append((times + 1, flops))
    return ", ".join(f"{times} x {number(flops / unit)}" for times, flops in groups)


def flops_table(
    asked: Sequence[Asked], model: str, geometry: ModelGeometry, before: int, after: int, new: int
) -> FlopsTable:
    """The unpruned model, then what was asked for. Raises UserError for the first that cannot be counted."""
    columns = [Asked("upper_bound", get_method("upper_bound")), *(a for a in asked if a.name != "upper_bound")]
    counted = {a.name: count(a, geometry, before, after, new) for a in columns}
    return FlopsTable(model, geometry, before, after, new, list(counted.values()))
