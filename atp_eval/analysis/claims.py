"""The claims ledger: every figure that the paper prints, beside what follows by arithmetic and what we measured.

A measurement stands beside a claim only where a run asked the published benchmark of the very model that the claim is
about, whole, with the paper's padding and prompt. The embedded model's figures never do.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from atp_eval.analysis.reading import run_names
from atp_eval.analysis.recomputed import AVERAGE, KEPT, Recomputed, recompute
from atp_eval.analysis.significance import Interval
from atp_eval.analysis.summary import MethodSummary, Summary
from atp_eval.benchmarks import BENCHMARKS
from atp_eval.paper import LLAVA, Figure, PrintedTable, TableRow, claimed_tables
from atp_eval.records import Manifest, Run

Status = Literal["contradicted", "measured", "measured otherwise", "recomputed", "not measured"]
STATUSES: tuple[Status, ...] = ("contradicted", "measured", "measured otherwise", "recomputed", "not measured")
OURS = {"mmmu_val": "mmmu", "mmb_en": "mmb"}  # benchmarks that the paper's tables name in another way
# What lmms-eval asks is another quantity than the paper prints; the benchmarks' notes say how.
OTHERWISE = ("pope", "seed", "textvqa", "vqav2")
# Rows that a run of an untrained method on the published weights is a run of.
AS_IT_IS = {
    "main_results": ("upper_bound", "fastv@192", "fastv@128", "sparsevlm@192", "sparsevlm@128", "atp@144", "atp@88"),
    "additional_benchmarks": ("upper_bound", "atp@144"),
    "prumerge_training_setting": ("upper_bound",),
    "pruning_strategy": ("upper_bound", "atp@144", "atp@88"),
}
_NEEDS = {
    "pruning_strategy": "a language model trained with each schedule: `atp-eval ablate`, then a run of what it trained",
    "training_strategy": "both trainings: `atp-eval train` with and without the language model, then a run",
    "spatial_augmented_pruning": "a training of each row: `atp-eval ablate`",
    "importance_score": "a training of each row: `atp-eval ablate`",
    "efficiency": "the paper's machine: one A100, batch 1, with its prompts",
    "flash_attention": "the paper's machine: one A100, batch 1, with its prompts",
    "training_wall_time": "the paper's machine and data: four A100-40GB, 665,000 samples",
    "human_evaluation": "people: `atp-eval annotate` makes the page for their votes",
    "hyperparameters": "a training of each row: `atp-eval train`",
    "prumerge_training_setting": "weights that were trained the way PruMerge+ was",
}


@dataclass(frozen=True)
class Claim:
    """One printed figure. recomputed: by arithmetic; None where nothing follows. measured: in the figure's unit; None
    where no run measured the same. note: how a measurement or a calculation differs. needs: what would measure it."""

    table: str
    title: str
    key: str
    row: str
    column: str
    printed: Figure
    recomputed: Recomputed | None
    measured: Interval | None
    note: str
    needs: str

    @property
    def status(self) -> Status:
        """A contradiction stays one, whatever was measured."""
        if self.recomputed and not self.recomputed.allows(self.printed):
            return "contradicted"
        if self.measured:
            return "measured otherwise" if self.note else "measured"
        return "recomputed" if self.recomputed else "not measured"


def ledger(runs: Sequence[Run] = (), summary: Summary | None = None) -> tuple[Claim, ...]:
    """Every figure in the order of the paper; measurements from `summary`, which is of these runs."""
    ours = list(_comparable(runs, summary)) if summary else []
    return tuple(claim for table in claimed_tables() for row in table.rows for claim in _claims(table, row, ours))


def differs(manifest: Manifest, model: str = LLAVA) -> str | None:
    """Why a run does not measure what the paper claims of `model`; None where it does."""
    protocol = manifest.protocol
    wanted = {"model": model, "suite": "real", "image": "pad", "prompt": "vicuna_v1"}
    if wrong := [
        f"{key} {protocol.get(key)}, not {value}" for key, value in wanted.items() if protocol.get(key) != value
    ]:
        return "; ".join(wrong)
    if (limit := manifest.config.get("limit")) is not None:
        return f"the first {limit} documents of each benchmark, not all"
    return None


def _comparable(runs: Sequence[Run], summary: Summary) -> Iterator[MethodSummary]:
    """The methods of runs that measure what the paper does."""
    names = run_names(runs)
    fit = {names[run.path] for run in runs if run.path in names and differs(run.manifest) is None}
    yield from (method for method in summary.methods if method.run in fit)


def _claims(table: PrintedTable, row: TableRow, ours: Sequence[MethodSummary]) -> Iterator[Claim]:
    computed = recompute(table, row)
    as_it_is = table.model == LLAVA and row.label in AS_IT_IS.get(table.key, ())
    found = next((m for m in ours if m.method == row.label), None) if as_it_is else None
    bounded = found is not None and any(m.is_reference and m.run == found.run for m in ours)
    for column, figure in row.figures.items():
        measured = _measured(found, table, column, bounded) if found else None
        yield Claim(
            table=table.name,
            title=table.title,
            key=table.key,
            row=row.label,
            column=column,
            printed=figure,
            recomputed=computed.get(column),
            measured=measured,
            note=_otherwise(table, row, column) if measured else "",
            needs=_needs(table, row, column, as_it_is),
        )


def _benchmarks(table: PrintedTable, row: TableRow) -> list[str]:
    """The benchmarks that a row has, by their names here."""
    best = table.row("upper_bound").figures
    return [OURS.get(c, c) for c in row.figures if c in best and OURS.get(c, c) in BENCHMARKS]


def _measured(method: MethodSummary, table: PrintedTable, column: str, bounded: bool) -> Interval | None:
    """The same quantity of ours: a score, its share of the upper bound's, the average of these, or tokens.

    bounded: whether the run has an upper bound of its own; shares of another run's are not the claim.
    """
    if column == "tokens":
        return Interval(method.average_tokens) if method.tokens else None
    if not bounded and (column == AVERAGE or column.endswith(KEPT)):
        return None
    if column == AVERAGE:
        asked = [OURS.get(c, c) for c in table.row("upper_bound").figures]
        same = {b for b in asked if b in BENCHMARKS} == set(method.scores)
        return method.retention if same else None
    name = column.removesuffix(KEPT)
    score = method.scores.get(OURS.get(name, name))
    if score is None:
        return None
    return score.retention if column.endswith(KEPT) else score.score


def _otherwise(table: PrintedTable, row: TableRow, column: str) -> str:
    """How what a run measures under this name differs from what the paper prints."""
    name = OURS.get(column.removesuffix(KEPT), column.removesuffix(KEPT))
    if column == AVERAGE:
        others = [b for b in _benchmarks(table, row) if b in OTHERWISE]
        return f"{', '.join(others)} are other quantities here" if others else ""
    return BENCHMARKS[name].note if name in OTHERWISE else ""


def _needs(table: PrintedTable, row: TableRow, column: str, as_it_is: bool) -> str:
    """What would measure a claim; the benchmarks of a row take one command."""
    if table.model != LLAVA:
        return f"{table.model}, a model family that atp-eval does not load"
    if as_it_is:
        method = "" if row.label == "upper_bound" else f",{row.label}"
        tasks = ",".join(_benchmarks(table, row))
        command = shlex.join(["atp-eval", "run", "--model", LLAVA, "--prompt", "vicuna_v1", "--tasks", tasks])
        trained = " with an adapter trained for it (`atp-eval train`)" if row.label.startswith("atp") else ""
        return f"`{command} --methods upper_bound{method}`{trained}"
    if row.label.startswith("prumerge_plus"):
        return "LLaVA-1.5 weights that were fine-tuned with PruMerge+, as its authors' were"
    if column in ("accuracy_pct", "average_rate_pct"):
        return "a run over the benchmarks of Tab. 1 with what was trained for this row"
    if column == "kv_mb":
        return "nothing: it is arithmetic"
    return _NEEDS[table.key]
