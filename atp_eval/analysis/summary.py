"""Summary: everything that tables, figures and pages say about some runs, as typed numbers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from atp_eval.analysis.adaptivity import Adaptivity
from atp_eval.analysis.agreement import Agreement
from atp_eval.analysis.comparisons import Tested
from atp_eval.analysis.efficiency import Timing
from atp_eval.analysis.fairness import Fairness, compare_budgets
from atp_eval.analysis.hindsight import Hindsight
from atp_eval.analysis.histograms import TokenUse
from atp_eval.analysis.retention import Extra
from atp_eval.analysis.significance import DESCRIPTIVE_RESAMPLES, Interval
from atp_eval.analysis.stages import Efficiency
from atp_eval.analysis.tokens import TokenStats

TRUTH = ("oracle", "background")


@dataclass(frozen=True)
class BenchmarkRow:
    """A benchmark as tables name it. Scores are shown times `factor`: in per cent, or in the benchmark's own points.

    unit: "%" or "of 2000". documents: rows of the whole benchmark. note: what to know before quoting a figure.
    """

    name: str
    title: str
    task: str
    metric: str
    unit: str
    factor: float
    documents: int
    note: str = ""


@dataclass(frozen=True)
class Score:
    """A method on a benchmark. score: in the shown unit; reported: the same as lmms-eval computed it.

    retention: per cent of the upper bound, over `common` documents (`missing`: those that only one of the two has).
    errors, invalid: rates in [0, 1]. new_tokens: mean generated tokens. test: against the upper bound. extra: other
    metrics of the benchmark, in per cent (POPE's F1). pictures, differing: as in Retained.
    """

    score: Interval
    reported: float
    retention: Interval | None
    common: int
    missing: int
    samples: int
    errors: Interval
    invalid: Interval
    new_tokens: float
    tokens: TokenStats | None
    timing: Timing | None
    test: Tested | None = None
    extra: dict[str, Extra] = field(default_factory=dict)
    pictures: int = 0
    differing: int = 0


@dataclass(frozen=True)
class MethodSummary:
    """A method over its benchmarks, which weigh alike in `retention` (per cent) and `tokens`.

    errors, invalid, new_tokens and timing are over all of its samples. test: of the retention being 100 per cent.
    """

    label: str
    method: str
    run: str
    is_reference: bool
    scores: dict[str, Score]
    retention: Interval | None
    tokens: TokenStats | None
    timing: Timing | None
    samples: int
    errors: Interval
    invalid: Interval
    new_tokens: float
    test: Tested | None = None

    @property
    def average_tokens(self) -> float:
        """Visual tokens that enter a layer, averaged over layers, samples and benchmarks; NaN without images."""
        return self.tokens.averages.input if self.tokens else math.nan

    @property
    def knows_truth(self) -> bool:
        """Whether its tokens are chosen by ground truth: a limit of what any choice could do, never called the best."""
        return re.split("[@:]", self.method, maxsplit=1)[0] in TRUTH


@dataclass(frozen=True)
class Contrasted:
    """first's retention on a benchmark minus second's, in points; paired."""

    difference: Interval
    test: Tested | None = None


@dataclass(frozen=True)
class Contrast:
    """first's average retention minus second's, in points, over the benchmarks that both have; paired.

    test: of the difference being 0. It and scores (by benchmark) are of methods with equal budgets only; of an upper
    bound and another method the test is that one's own.
    """

    first: str
    second: str
    difference: Interval
    test: Tested | None = None
    scores: dict[str, Contrasted] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """The comparison of some runs. warnings: what a reader must know before trusting it, one sentence each.

    full_tokens: visual tokens of the unpruned model. adaptivity: of the methods whose counts vary between samples.
    hindsight: of the rankings that were run with several fixed counts. fairness: what the methods' tokens came to.
    agreement: which cells the pruning methods keep; None without any. efficiency: time by stage, speed and memory, from
    the runs' own records. token_use: how methods' tokens are spread.
    """

    runs: tuple[str, ...]
    benchmarks: tuple[BenchmarkRow, ...]
    methods: tuple[MethodSummary, ...]
    contrasts: tuple[Contrast, ...]
    warnings: tuple[str, ...]
    resamples: int
    full_tokens: float
    adaptivity: tuple[Adaptivity, ...] = ()
    hindsight: tuple[Hindsight, ...] = ()
    fairness: Fairness = field(default_factory=lambda: compare_budgets(()))
    agreement: Agreement | None = None
    efficiency: tuple[Efficiency, ...] = ()
    token_use: tuple[TokenUse, ...] = ()

    @property
    def has_retention(self) -> bool:
        """Whether there is an upper bound that anything is held against."""
        return any(m.retention is not None and not m.is_reference for m in self.methods)

    @property
    def descriptive_resamples(self) -> int:
        """Bootstrap draws of what goes with tokens and cells, which cost more and are quoted less."""
        return min(self.resamples, DESCRIPTIVE_RESAMPLES)

    def method(self, label: str) -> MethodSummary:
        """The method of a label. Raises KeyError."""
        return {m.label: m for m in self.methods}[label]

    def contrast(self, first: str, second: str) -> Contrast | None:
        """Of two methods in the order in which `contrasts` has them; None where nothing can be said."""
        return next((c for c in self.contrasts if (c.first, c.second) == (first, second)), None)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; NaN becomes null."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self)}


def plain(value: Any) -> Any:
    """Dataclasses, named tuples and arrays as dictionaries and lists, NaN and infinities as None."""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value) if f.metadata.get("json", True)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: plain(v) for name, v in zip(value._fields, value, strict=True)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
