"""What changed between two runs: scores, answers, kept tokens and times of the methods that both have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from atp_eval.analysis.aggregation import Sums, cluster_sums
from atp_eval.analysis.cautions import apart
from atp_eval.analysis.comparisons import Tested, holm, of_estimate
from atp_eval.analysis.efficiency import batch_ratios, batch_times
from atp_eval.analysis.estimate import Estimate, estimate, mean, resample
from atp_eval.analysis.flips import Flip, flips
from atp_eval.analysis.mcnemar import answers_of, mcnemar
from atp_eval.analysis.measure import benchmark_row
from atp_eval.analysis.reading import Entry, entries, protocol_differences
from atp_eval.analysis.retention import image_clusters, percent, stable_seed
from atp_eval.analysis.significance import RESAMPLES, Interval, median_interval, wilson
from atp_eval.analysis.summary import BenchmarkRow, plain
from atp_eval.analysis.tokens import entering
from atp_eval.analysis.traces import read_traces
from atp_eval.benchmarks import BENCHMARKS
from atp_eval.errors import UserError, unknown
from atp_eval.records import BenchmarkInfo, Run

COLUMNS = [
    *("doc_id", "image_id", "category", "group", "score", "question", "target", "response", "error"),
    *("trace", "seconds", "vision_seconds", "batch", "warm"),
]


class Tokens(NamedTuple):
    """Visual tokens that enter a layer, on average, in the first and the second run."""

    a: float
    b: float


@dataclass(frozen=True)
class Change:
    """A method on a benchmark in two runs, over the documents that both have.

    common, only_a, only_b: documents. a, b: scores in the benchmark's shown unit, difference: b less a. ratio: b in per
    cent of a. test: of the difference. changed: questions with another answer (text or error); gained, lost: that the
    second run scores higher, lower. kept: the share of questions of which other tokens were kept, among those whose
    tokens both runs know; None where there are none. time: seconds of the second run over those of the first, median
    over batches; they were not taken side by side.
    """

    method: str
    benchmark: str
    common: int
    only_a: int
    only_b: int
    a: Interval
    b: Interval
    difference: Interval
    ratio: Estimate
    test: Tested
    changed: int
    gained: int
    lost: int
    kept: Interval | None
    tokens: Tokens | None
    time: Interval | None

    @property
    def nothing(self) -> bool:
        """Whether neither an answer nor a score nor a kept token is another."""
        return not (self.changed or self.gained or self.lost or (self.kept and self.kept.value))

    def to_json(self) -> dict[str, Any]:
        """All figures, JSON-ready."""
        return plain({**self.__dict__, "ratio": self.ratio.interval, "test": self.test})


@dataclass(frozen=True)
class Average:
    """A method over its benchmarks, which weigh alike in `ratio` (the second run's score in per cent of the first's)
    and `tokens`; counts and `kept` are over questions. test: of the ratio being 100. time: median over all batches."""

    method: str
    benchmarks: int
    common: int
    ratio: Interval
    test: Tested
    changed: int
    gained: int
    lost: int
    kept: Interval | None
    tokens: Tokens | None
    time: Interval | None


@dataclass(frozen=True)
class Comparison:
    """Two runs held against each other. names: of the runs. protocol: what differs, with both values; they may not be
    comparable then. notes: what a reader has to know, one sentence each."""

    names: tuple[str, str]
    runs: tuple[Run, Run]
    protocol: dict[str, list[Any]]
    notes: tuple[str, ...]
    benchmarks: tuple[BenchmarkRow, ...]
    changes: tuple[Change, ...]
    averages: tuple[Average, ...]
    flips: tuple[Flip, ...]
    resamples: int

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods compared, in order."""
        return tuple(average.method for average in self.averages)

    @property
    def significant(self) -> tuple[Change, ...]:
        """The changes of score beyond chance."""
        return tuple(change for change in self.changes if change.test.significant)

    def at(self, method: str, benchmark: str) -> Change | None:
        """A method on a benchmark; None where not both runs have it."""
        return next((c for c in self.changes if (c.method, c.benchmark) == (method, benchmark)), None)

    def to_json(self) -> dict[str, Any]:
        """All figures, JSON-ready."""
        return {
            "runs": [str(run.path) for run in self.runs],
            "protocol_differences": plain(self.protocol),
            "notes": list(self.notes),
            "averages": plain(self.averages),
            "changes": [change.to_json() for change in self.changes],
            "flips": plain(self.flips),
        }


def compare(
    first: Run, second: Run, methods: Sequence[str] = (), *, force: bool = False, resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:  # fmt: skip
    """Hold a run against another. methods: only these, all that both have by default.

    Raises UserError for one and the same run, a method that not both have, runs that share nothing, and runs of
    different protocols, unless forced.
    """
    if first.path.resolve() == second.path.resolve():
        raise UserError(f"{first.path} is named twice. Name two run folders.")
    protocol = protocol_differences([first, second])
    if protocol and not force:
        said = "; ".join(f"{key}: {a} and {b}" for key, (a, b) in protocol.items())
        raise UserError(f"these runs follow different protocols ({said}). --force compares them all the same.")
    a, b = ({entry.method: entry for entry in entries([run])} for run in (first, second))
    shared = [name for name in a if name in b]
    for name in methods:
        if name not in shared:
            raise unknown("method of both runs", name, shared)
    chosen = list(dict.fromkeys(methods)) or shared
    measured = [
        _Measured(name, task, a[name], b[name], resamples, seed)
        for name in chosen
        for task in a[name].results
        if task in b[name].results
    ]
    if not measured:
        raise UserError(f"{first.path} and {second.path} have no finished method and benchmark in common.")
    tests = holm({(m.change.method, m.change.benchmark): m.change.test for m in measured})
    changes = tuple(replace(m.change, test=tests[m.change.method, m.change.benchmark]) for m in measured)
    averages = [_average([m for m in measured if m.change.method == name]) for name in chosen if _has(measured, name)]
    overall = holm({average.method: average.test for average in averages})
    tasks = dict.fromkeys(change.benchmark for change in changes)
    return Comparison(
        names=_names(first, second),
        runs=(first, second),
        protocol=protocol,
        notes=tuple(apart(first, second, changes)),
        benchmarks=tuple(benchmark_row(task, first.manifest.benchmarks[task]) for task in tasks),
        changes=changes,
        averages=tuple(replace(average, test=overall[average.method]) for average in averages),
        flips=tuple(flip for m in measured for flip in m.flips),
        resamples=resamples,
    )


class _Measured:
    """A method on a benchmark: its change, its flips, and what averages need besides."""

    def __init__(self, method: str, task: str, first: Entry, second: Entry, resamples: int, seed: int) -> None:
        info, row = first.run.manifest.benchmarks[task], benchmark_row(task, first.run.manifest.benchmarks[task])
        whole = [entry.rows(task, COLUMNS) for entry in (first, second)]
        both = pd.Index(whole[0]["doc_id"]).intersection(pd.Index(whole[1]["doc_id"]))
        a, b = (rows[rows["doc_id"].isin(both)].reset_index(drop=True) for rows in whole)
        drawn, test = _scores(task, info, a, b, resamples, seed)
        self.kept = _kept(a, b)
        tokens = [entering(read_traces(rows["trace"])) for rows in (a, b)]
        self.ratios = batch_ratios(batch_times(b), batch_times(a))
        other = (a["response"].fillna("") != b["response"].fillna("")) | (a["error"].isna() != b["error"].isna())
        self.change = Change(
            method=method,
            benchmark=task,
            common=len(both),
            only_a=len(whole[0]) - len(both),
            only_b=len(whole[1]) - len(both),
            a=drawn["a"].interval.scaled(row.factor),
            b=drawn["b"].interval.scaled(row.factor),
            difference=drawn["difference"].interval.scaled(row.factor),
            ratio=drawn["ratio"],
            test=test,
            changed=int(other.sum()),
            gained=int((b["score"] > a["score"]).sum()),
            lost=int((b["score"] < a["score"]).sum()),
            kept=wilson(*self.kept) if self.kept[1] else None,
            tokens=Tokens(*(float(found.averages.mean()) for found in tokens if found)) if all(tokens) else None,
            time=_time([self.ratios]),
        )
        self.flips = flips(method, task, a, b)


def _scores(
    task: str, info: BenchmarkInfo, a: pd.DataFrame, b: pd.DataFrame, resamples: int, seed: int
) -> tuple[dict[str, Estimate], Tested]:
    """Both metrics, their difference and their ratio, from the same draws of pictures; and the test of the difference:
    McNemar's where answers are right or wrong, else the bootstrap's."""
    clusters = image_clusters([a, b])
    size = int(clusters.max()) + 1 if len(clusters) else 0
    placed = [rows.assign(cluster=clusters.reindex(rows["doc_id"]).to_numpy()) for rows in (a, b)]
    one, two = (cluster_sums(rows, size, info.aggregation, info.scale) for rows in placed)
    split, together = one.sums.shape[1], np.concatenate([one.sums, two.sums], axis=1)
    parts = {
        "a": one,
        "b": two,
        "difference": Sums(together, lambda t: two.metric(t[..., split:]) - one.metric(t[..., :split])),
        "ratio": Sums(together, lambda t: percent(two.metric(t[..., split:]), one.metric(t[..., :split]))),
    }
    drawn = dict(zip(parts, resample(list(parts.values()), resamples, stable_seed(task, seed)), strict=True))
    found = {name: estimate(task, one) for name, one in drawn.items()}
    known = BENCHMARKS.get(task)
    right = [answers_of(rows, known.form if known else "open", info.aggregation) for rows in placed]
    if right[0] is None or right[1] is None:
        return found, of_estimate(found["difference"], 0.0)
    test = mcnemar(right[1], right[0])
    return found, Tested("McNemar", test.p, gained=test.gained, lost=test.lost, p_questions=test.p_questions)


def _kept(a: pd.DataFrame, b: pd.DataFrame) -> tuple[int, int]:
    """Of how many questions other tokens were kept, and how many have both runs' traces."""
    known = a["trace"].notna() & b["trace"].notna()
    return int((a["trace"][known] != b["trace"][known]).sum()), int(known.sum())


def _time(ratios: Sequence[pd.Series[float]]) -> Interval | None:
    found = np.concatenate([np.asarray(one, dtype=float) for one in ratios])
    return median_interval(found) if len(found) else None


def _average(measured: Sequence[_Measured]) -> Average:
    """A method over its benchmarks."""
    changes = [m.change for m in measured]
    known = [c.ratio for c in changes if np.isfinite(c.ratio.value)]
    ratio = mean(known) if known else None
    tokens = [c.tokens for c in changes if c.tokens]
    kept = [sum(counts) for counts in zip(*(m.kept for m in measured), strict=True)]
    return Average(
        method=changes[0].method,
        benchmarks=len(known),
        common=sum(c.common for c in changes),
        ratio=ratio.interval if ratio else Interval(float("nan")),
        test=of_estimate(ratio, 100.0) if ratio else Tested("bootstrap", float("nan")),
        changed=sum(c.changed for c in changes),
        gained=sum(c.gained for c in changes),
        lost=sum(c.lost for c in changes),
        kept=wilson(kept[0], kept[1]) if kept[1] else None,
        tokens=Tokens(*np.mean(tokens, axis=0).tolist()) if tokens else None,
        time=_time([m.ratios for m in measured]),
    )


def _has(measured: Sequence[_Measured], method: str) -> bool:
    return any(m.change.method == method for m in measured)


def _names(first: Run, second: Run) -> tuple[str, str]:
    """The folders' names; their paths where those are the same."""
    a, b = (Path(run.path).resolve() for run in (first, second))
    return (a.name, b.name) if a.name != b.name else (str(first.path), str(second.path))
