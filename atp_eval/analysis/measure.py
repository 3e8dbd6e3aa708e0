"""From run folders to a Summary: read each finished cell once, measure it, and put methods together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import pandas as pd

from atp_eval.analysis.adaptivity import Adaptivity, measure_adaptivity, question_rows
from atp_eval.analysis.agreement import Agreement, agreement_rows, measure_agreement
from atp_eval.analysis.cautions import disagreements, gaps, not_side_by_side, too_few, unfinished
from atp_eval.analysis.comparisons import Tested, holm, of_estimate, of_scores
from atp_eval.analysis.efficiency import batch_ratios, batch_times, timing
from atp_eval.analysis.estimate import mean
from atp_eval.analysis.fairness import (
    Cost,
    Fairness,
    Prompts,
    compare_budgets,
    cost_of,
    leaves_early,
    model_sizes,
    prompts,
)
from atp_eval.analysis.hindsight import Hindsight, ladder_rows, ladders, measure_hindsight
from atp_eval.analysis.histograms import Asked, TokenUse, token_use
from atp_eval.analysis.reading import Entry, benchmarks_of, distinct, entries, reference_of, run_names
from atp_eval.analysis.retention import ANSWERS, Extra, Retained, average, has_more_metrics, retain
from atp_eval.analysis.retention import COLUMNS as SCORED
from atp_eval.analysis.significance import DESCRIPTIVE_RESAMPLES, RESAMPLES, wilson
from atp_eval.analysis.stages import measure_efficiency
from atp_eval.analysis.summary import BenchmarkRow, Contrast, Contrasted, MethodSummary, Score, Summary
from atp_eval.analysis.tokens import combine, entering, token_stats
from atp_eval.analysis.traces import read_traces
from atp_eval.benchmarks import BENCHMARKS
from atp_eval.records import BenchmarkInfo, Run

COLUMNS = [
    *SCORED,
    *("error", "invalid", "new_tokens", "prompt_tokens", "seconds", "vision_seconds", "batch", "warm", "trace"),
]
MOST_TOGETHER = 24  # methods that are all held against each other; of more, only those of like budgets


@dataclass(frozen=True)
class Cell:
    """A method on a benchmark: its Score, the label it is held against, and what sums over benchmarks need besides."""

    score: Score
    prompts: Prompts
    tokens: Asked | None
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
    rows, warnings = [], [*unfinished(runs), *not_side_by_side(runs)]
    for name in benchmarks_of(methods):
        present = [e for e in methods if name in e.results]
        info = present[0].run.manifest.benchmarks[name]
        row = benchmark_row(name, info)
        rows.append(row)
        for label, cell in measure(row, info, present, resamples, seed).items():
            cells[label][name] = cell
        here = {e.label: cells[e.label][name] for e in present}
        warnings += [*disagreements(row, here), *too_few(row, here)]
    names = run_names(runs)
    summaries = averages_tested([put_together(e, names[e.run.path], cells[e.label]) for e in methods], cells)
    full = [m.tokens.averages.full for m in summaries if m.tokens]
    fairness = compare_budgets(list(costs(methods, summaries, cells)))
    few = min(resamples, DESCRIPTIVE_RESAMPLES)
    return Summary(
        runs=tuple(names.values()),
        benchmarks=tuple(rows),
        methods=summaries,
        contrasts=tuple(contrasts(summaries, cells, fairness.groups)),
        warnings=(*warnings, *gaps(summaries, rows), *fairness.warnings),
        resamples=resamples,
        full_tokens=max(full, default=math.nan),
        adaptivity=tuple(adaptive(methods, summaries, few, seed)),
        hindsight=tuple(in_hindsight(methods, few, seed)),
        fairness=fairness,
        token_use=tuple(token_uses(methods, cells)),
        agreement=agreement(methods, fairness, few, seed),
        efficiency=tuple(measure_efficiency(methods)),
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


def token_uses(methods: Sequence[Entry], cells: dict[str, dict[str, Cell]]) -> Iterator[TokenUse]:
    """How each method's tokens are spread, of those whose tokens are known."""
    for entry in methods:
        known = {name: cell.tokens for name, cell in cells[entry.label].items() if cell.tokens}
        found = token_use(entry.label, entry.is_reference, known)
        if found is not None:
            yield found


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
    known = BENCHMARKS.get(row.name)
    form = known.form if known else "open"
    columns = [*COLUMNS, *ANSWERS] if has_more_metrics(form, info.aggregation) else COLUMNS
    frames: dict[str, pd.DataFrame] = {}
    asked: dict[str, Prompts] = {}
    tokens: dict[str, Asked | None] = {}
    for e in present:
        frame = frames[e.label] = e.rows(row.name, columns)
        # Traces are most of the bytes: counted at once, so that they need not be held for the rest.
        counts = entering(read_traces(frame.pop("trace")))
        asked[e.label] = prompts(
            counts, frame["prompt_tokens"], model_sizes(e.run.manifest), leaves_early(e.run.manifest, e.method)
        )
        tokens[e.label] = Asked(counts, frame["category"]) if counts else None
    found = {e.label: reference_of(e, present) for e in present}
    references = {label: reference.label if reference else None for label, reference in found.items()}
    kept = retain(
        frames, references, benchmark=row.name, aggregation=info.aggregation, scale=info.scale, form=form,
        resamples=resamples, seed=seed,
    )  # fmt: skip
    tests = holm({e.label: test for e in present if (test := against(kept, e, references[e.label]))})
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
            tokens=token_stats(here.tokens if (here := tokens[e.label]) else None),
            timing=timing(times[e.label], ratios),
            test=tests.get(e.label),
            extra={name: in_per_cent(extra) for name, extra in retained.extra.items()},
            pictures=retained.pictures,
            differing=retained.differing,
        )
        cells[e.label] = Cell(
            score, asked[e.label], tokens[e.label], reference, retained, times[e.label], ratios, errors, invalid
        )
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


def against(kept: dict[str, Retained], entry: Entry, reference: str | None) -> Tested | None:
    """A method against its upper bound on a benchmark; None for an upper bound, and without a retention."""
    found = kept[entry.label]
    if entry.is_reference or reference is None or found.kept is None:
        return None
    return of_scores(found, kept[reference], found.kept, 100.0)


def averages_tested(methods: Sequence[MethodSummary], cells: dict[str, dict[str, Cell]]) -> tuple[MethodSummary, ...]:
    """The same with tests of their average retention, which are a family."""
    averages = {m.label: average([c.retained for c in cells[m.label].values()]) for m in methods if not m.is_reference}
    tests = holm({label: of_estimate(found, 100.0) for label, found in averages.items() if found})
    return tuple(replace(m, test=tests.get(m.label)) for m in methods)


def contrasts(
    methods: Sequence[MethodSummary], cells: dict[str, dict[str, Cell]], groups: Sequence[Sequence[str]]
) -> Iterator[Contrast]:
    """The paired difference of average retention of every two methods, over the benchmarks that both have.

    Tests are among the methods of a group, whose budgets are equal: on each benchmark, and of the average, a family.
    """
    group = {label: place for place, labels in enumerate(groups) for label in labels}
    found: dict[tuple[str, str], Contrast] = {}
    families: dict[str | None, dict[tuple[str, str], Tested]] = {}  # by benchmark; None is the average
    for first, second in combinations(methods, 2):
        pair = first.label, second.label
        both = {n: (c.retained, cells[second.label][n].retained) for n, c in cells[first.label].items()
                if n in cells[second.label]}  # fmt: skip
        known = {n: a.kept.minus(b.kept) for n, (a, b) in both.items() if a.kept and b.kept}
        if not known:
            continue
        difference = mean(list(known.values()))
        scores: dict[str, Contrasted] = {}
        if first.label in group and group[first.label] == group.get(second.label):
            families.setdefault(None, {})[pair] = of_estimate(difference, 0.0)
            for name, points in known.items():
                families.setdefault(name, {})[pair] = of_scores(*both[name], points, 0.0)
                scores[name] = Contrasted(points.interval)
        found[pair] = Contrast(*pair, difference.interval, _with_upper_bound(first, second), scores)
    tests = {name: holm(family) for name, family in families.items()}
    for pair, contrast in found.items():
        test = tests.get(None, {}).get(pair, contrast.test)
        scores = {name: replace(score, test=tests[name][pair]) for name, score in contrast.scores.items()}
        yield replace(contrast, test=test, scores=scores)


def _with_upper_bound(first: MethodSummary, second: MethodSummary) -> Tested | None:
    """Against an upper bound a method has been tested already."""
    return first.test or second.test if first.is_reference != second.is_reference else None


def in_per_cent(extra: Extra) -> Extra:
    """A metric in [0, 1] as it is shown."""
    return Extra(extra.score.scaled(100.0), extra.retention)
