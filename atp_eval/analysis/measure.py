"""From run folders to a Summary: read each finished cell once, measure it, and put methods together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from atp_eval.analysis.adaptivity import Adaptivity, measure_adaptivity, question_rows
from atp_eval.analysis.agreement import Agreement, agreement_rows, measure_agreement
from atp_eval.analysis.efficiency import batch_ratios, batch_times, timing
from atp_eval.analysis.fairness import Cost, Fairness, Prompts, compare_budgets, cost_of, model_sizes, prompts
from atp_eval.analysis.hindsight import Hindsight, ladder_rows, ladders, measure_hindsight
from atp_eval.analysis.reading import UPPER_BOUND, Entry, benchmarks_of, distinct, entries, reference_of, run_names
from atp_eval.analysis.retention import COLUMNS as SCORED
from atp_eval.analysis.retention import Retained, average, retain
from atp_eval.analysis.significance import RESAMPLES, percentile_interval, wilson
from atp_eval.analysis.summary import BenchmarkRow, Contrast, MethodSummary, Score, Summary
from atp_eval.analysis.tokens import combine, count_tokens, token_stats
from atp_eval.benchmarks import BENCHMARKS
from atp_eval.records import BenchmarkInfo, Run

COLUMNS = [
    *SCORED,
    *("error", "invalid", "new_tokens", "prompt_tokens", "seconds", "vision_seconds", "batch", "warm", "trace"),
]
MOST_TOGETHER = 24  # methods that are all held against each other; of more, only those of like budgets
TOLERANCE = 0.0005  # of a metric's scale, between lmms-eval's number and ours from its samples


@dataclass(frozen=True)
class Cell:
    """A method on a benchmark: its Score, the label it is held against, and what sums over benchmarks need besides."""

    score: Score
    prompts: Prompts
    reference: str | None
    retained: Retained
    times: pd.DataFrame
    ratios: pd.Series[Any] | None
    errors: int
    invalid: int


def summarise(runs: Sequence[Run], *, resamples: int = RESAMPLES, seed: int = 0) -> Summary:
    """Scores, retention, tokens, time and failures of every finished method. Raises UserError when none is finished."""
    runs = distinct(runs)
    methods = entries(runs)
    cells: dict[str, dict[str, Cell]] = {e.label: {} for e in methods}
    rows, warnings = [], list(unfinished(runs))
    for name in benchmarks_of(methods):
        present = [e for e in methods if name in e.results]
        info = present[0].run.manifest.benchmarks[name]
        row = benchmark_row(name, info)
        rows.append(row)
        for label, cell in measure(row, info, present, resamples, seed).items():
            cells[label][name] = cell
        warnings += disagreements(row, {e.label: cells[e.label][name] for e in present})
    names = run_names(runs)
    summaries = tuple(put_together(e, names[e.run.path], cells[e.label]) for e in methods)
    full = [m.tokens.averages.full for m in summaries if m.tokens]
    fairness = compare_budgets(list(costs(methods, summaries, cells)))
    return Summary(
        runs=tuple(names.values()),
        benchmarks=tuple(rows),
        methods=summaries,
        contrasts=tuple(contrasts(cells)),
        warnings=(*warnings, *gaps(summaries, rows), *fairness.warnings),
        resamples=resamples,
        full_tokens=max(full, default=math.nan),
        adaptivity=tuple(adaptive(methods, summaries, resamples, seed)),
        hindsight=tuple(in_hindsight(methods, resamples, seed)),
        fairness=fairness,
        agreement=agreement(methods, fairness, resamples, seed),
    )


def costs(
    methods: Sequence[Entry], summaries: Sequence[MethodSummary], cells: dict[str, dict[str, Cell]]
) -> Iterator[Cost]:
    """What each method's tokens came to, of those whose tokens are known."""
    for entry, summary in zip(methods, summaries, strict=True):
        if summary.tokens is None:
            continue
        found = [cell.prompts for cell in cells[entry.label].values() if len(cell.prompts.tokens)]
        sizes = model_sizes(entry.run.manifest)
        yield cost_of(entry.label, entry.is_reference, summary.tokens, found, sizes)


def agreement(methods: Sequence[Entry], fairness: Fairness, resamples: int, seed: int) -> Agreement | None:
    """What the pruning methods keep alike; None without any."""
    labels = tuple(row.label for row in fairness.rows if not row.is_reference)
    groups = fairness.groups if len(labels) > MOST_TOGETHER else (labels,)
    pruned = [entry for entry in methods if entry.label in labels]
    return measure_agreement(agreement_rows(pruned), groups, resamples=resamples, seed=seed)


def adaptive(
    methods: Sequence[Entry], summaries: Sequence[MethodSummary], resamples: int, seed: int
) -> Iterator[Adaptivity]:
    """What the tokens go with, of each method whose samples differ in them."""
    for entry, summary in zip(methods, summaries, strict=True):
        stats = [s.tokens for s in summary.scores.values() if s.tokens]
        if any((t.low < t.high).any() for t in stats):
            rows = question_rows(entry, reference_of(entry, methods))
            if found := measure_adaptivity(entry.label, rows, resamples=resamples, seed=seed):
                yield found


def in_hindsight(methods: Sequence[Entry], resamples: int, seed: int) -> Iterator[Hindsight]:
    """The choice in hindsight, of each ranking with several fixed counts."""
    for ranking, ladder in ladders(methods).items():
        if found := measure_hindsight(ranking, ladder_rows(ladder), resamples=resamples, seed=seed):
            yield found


def benchmark_row(name: str, info: BenchmarkInfo) -> BenchmarkRow:
    """How a benchmark's metric is shown: per cent where its publication does so, else its own points."""
    known = BENCHMARKS.get(name)
    title, note = (known.title, known.note) if known else (name, "")
    if known is None or known.paper_scale == 100.0:
        unit, factor = "%", 100.0 / info.scale
    else:
        factor = known.paper_scale / known.scale
        unit = f"of {info.scale * factor:.0f}"
    return BenchmarkRow(name, title, info.task, info.metric, unit, factor, info.documents, note)


def measure(
    row: BenchmarkRow, info: BenchmarkInfo, present: Sequence[Entry], resamples: int, seed: int
) -> dict[str, Cell]:
    """The cells of a benchmark by label; the methods share the bootstrap's draws."""
    frames = {e.label: e.rows(row.name, COLUMNS) for e in present}
    asked = {
        e.label: prompts(frames[e.label]["trace"], frames[e.label]["prompt_tokens"], model_sizes(e.run.manifest))
        for e in present
    }
    # Traces are most of the bytes: counted at once, so that they need not be held for the rest.
    tokens = {label: token_stats(count_tokens(frame.pop("trace"))) for label, frame in frames.items()}
    found = {e.label: reference_of(e, present) for e in present}
    references = {label: reference.label if reference else None for label, reference in found.items()}
    kept = retain(
        frames, references, benchmark=row.name, aggregation=info.aggregation, scale=info.scale,
        resamples=resamples, seed=seed,
    )  # fmt: skip
    times = {label: batch_times(frame) for label, frame in frames.items()}
    cells = {}
    for e in present:
        frame, retained, reference = frames[e.label], kept[e.label], references[e.label]
        ratios = batch_ratios(times[e.label], times[reference]) if reference else None
        errors, invalid = int(frame["error"].notna().sum()), int(frame["invalid"].sum())
        score = Score(
            score=retained.score.scaled(row.factor),
            reported=e.results[row.name].score * row.factor,
            retention=retained.kept.interval if retained.kept else None,
            common=retained.common,
            missing=retained.missing,
            samples=len(frame),
            errors=wilson(errors, len(frame)),
            invalid=wilson(invalid, len(frame)),
            new_tokens=float(frame["new_tokens"].mean()),
            tokens=tokens[e.label],
            timing=timing(times[e.label], ratios),
        )
        cells[e.label] = Cell(score, asked[e.label], reference, retained, times[e.label], ratios, errors, invalid)
    return cells


def put_together(entry: Entry, run: str, cells: dict[str, Cell]) -> MethodSummary:
    """A method over its benchmarks."""
    samples = sum(c.score.samples for c in cells.values())
    ratios = [c.ratios for c in cells.values() if c.ratios is not None]
    kept = average([c.retained for c in cells.values()])
    return MethodSummary(
        label=entry.label,
        method=entry.method,
        run=run,
        is_reference=entry.is_reference,
        scores={name: c.score for name, c in cells.items()},
        retention=kept.interval if kept else None,
        tokens=combine([c.score.tokens for c in cells.values() if c.score.tokens]),
        timing=timing(pd.concat([c.times for c in cells.values()]), pd.concat(ratios) if ratios else None),
        samples=samples,
        errors=wilson(sum(c.errors for c in cells.values()), samples),
        invalid=wilson(sum(c.invalid for c in cells.values()), samples),
        new_tokens=sum(c.score.new_tokens * c.score.samples for c in cells.values()) / max(1, samples),
    )


def contrasts(cells: dict[str, dict[str, Cell]]) -> Iterator[Contrast]:
    """The paired difference of average retention of every two methods, over the benchmarks that both have."""
    for first, second in combinations(cells, 2):
        shared = [n for n in cells[first] if n in cells[second]]
        pairs = [(cells[first][n].retained, cells[second][n].retained) for n in shared]
        known = [(a.kept, b.kept) for a, b in pairs if a.kept and b.kept]
        if not known:
            continue
        value = np.mean([a.interval.value - b.interval.value for a, b in known])
        drawn = np.mean([a.replicates - b.replicates for a, b in known], axis=0)
        yield Contrast(first, second, percentile_interval(float(value), drawn))


# ------------------------------------------------------------------ what a reader must know


def unfinished(runs: Sequence[Run]) -> Iterator[str]:
    """Cells that were asked for and are not there."""
    for run in runs:
        have = {(r.method, r.benchmark) for r in run.results()}
        asked = [(m, b) for m in run.manifest.methods for b in run.manifest.benchmarks]
        if missing := [f"{m} on {b}" for m, b in asked if (m, b) not in have]:
            yield f"{run.path.name} is not finished: {shortened(missing)}. `atp-eval run` with these goes on."


def disagreements(row: BenchmarkRow, cells: dict[str, Cell]) -> Iterator[str]:
    """An upper bound of nothing, scores that our samples do not reproduce, documents that one of two methods lacks."""
    scale = 100.0 if row.unit == "%" else float(row.unit.removeprefix("of "))
    if none := [label for label, cell in cells.items() if cell.reference and cell.retained.kept is None]:
        yield f"{row.name}: the upper bound scored nothing there, so there is no retention of {shortened(none)}."
    for label, cell in cells.items():
        ours, theirs = cell.score.score.value, cell.score.reported
        if not abs(ours - theirs) <= TOLERANCE * scale:
            yield f"{label} on {row.name}: lmms-eval reports {theirs:.2f}, its samples add up to {ours:.2f}."
        if cell.retained.missing:
            yield (
                f"{label} on {row.name}: {cell.retained.missing} documents are missing from it or from the upper "
                f"bound; retention is over the {cell.retained.common} that both have."
            )


def gaps(methods: Iterable[MethodSummary], rows: Sequence[BenchmarkRow]) -> Iterator[str]:
    """No upper bound, or averages over different benchmarks."""
    methods = list(methods)
    if not any(m.is_reference for m in methods):
        yield f"{UPPER_BOUND} was not run, so there is no retention: add it to --methods."
    for m in methods:
        missing = [r.name for r in rows if r.name not in m.scores or m.scores[r.name].retention is None]
        if m.retention is not None and missing:
            yield (
                f"The averages of {m.label} are over {len(rows) - len(missing)} of {len(rows)} benchmarks; "
                f"without a retention: {shortened(missing)}."
            )


def shortened(names: Sequence[str], limit: int = 4) -> str:
    """The first names, and how many more."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")
