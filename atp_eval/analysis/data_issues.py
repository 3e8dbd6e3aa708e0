"""What is wrong with the data: answers that failed or are no answer, documents that are missing, rows that are twice
there or torn; how often, for which method, and an example of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from atp_eval.analysis.reading import Entry, benchmarks_of, entries
from atp_eval.analysis.significance import Interval, wilson
from atp_eval.records import SAMPLES, Run, slug

COLUMNS = ["doc_id", "error", "invalid"]
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
LONGEST = 300  # characters of an error's text
NAMED = 12  # documents that are named
FREQUENT = 12  # error texts that are shown


class Document(NamedTuple):
    """Where to look: a row of a method's benchmark."""

    label: str
    benchmark: str
    doc_id: int


@dataclass(frozen=True)
class CellIssues:
    """A method on a benchmark.

    samples: documents that it has; expected: documents that it or another method has; finished: whether it was scored.
    failed, invalid: rates in [0, 1] of its samples with Wilson's intervals, from `failures` and `invalids`.
    missing: doc_ids that other methods have and it lacks, the first NAMED of `missing_count`; alone: whether every
    other method has them. repeated: rows beyond a document's first. torn: whether the last row was cut by a kill.
    """

    label: str
    benchmark: str
    finished: bool
    samples: int
    expected: int
    failures: int
    invalids: int
    missing: tuple[int, ...]
    missing_count: int
    missing_here_only: int
    repeated: int
    torn: bool

    @property
    def failed(self) -> Interval:
        """Of its samples."""
        return wilson(self.failures, self.samples)

    @property
    def invalid(self) -> Interval:
        """Of its samples."""
        return wilson(self.invalids, self.samples)

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing to tell."""
        return self.finished and not (
            self.failures or self.invalids or self.missing_count or self.repeated or self.torn
        )


@dataclass(frozen=True)
class ErrorText:
    """Errors that read alike but for their numbers. text: the example's first line; methods: labels that had it."""

    text: str
    count: int
    methods: tuple[str, ...]
    example: Document


@dataclass(frozen=True)
class DataIssues:
    """cells: every method on every benchmark that anybody finished. errors: most frequent first, at most FREQUENT."""

    cells: tuple[CellIssues, ...]
    errors: tuple[ErrorText, ...]
    more_errors: int = 0

    @property
    def poor(self) -> tuple[CellIssues, ...]:
        """Those with something to tell."""
        return tuple(cell for cell in self.cells if not cell.is_clean)


def find_issues(runs: Sequence[Run]) -> DataIssues:
    """Of all finished methods, and of those that their manifest names beside them. Raises UserError without any."""
    methods = entries(runs)
    cells: list[CellIssues] = []
    failures: list[pd.DataFrame] = []
    for benchmark in benchmarks_of(methods):
        frames = {e.label: e.rows(benchmark, COLUMNS) for e in methods if benchmark in e.results}
        docs = {label: pd.Index(frame["doc_id"]).unique() for label, frame in frames.items()}
        held = pd.concat([pd.Series(1, index=found) for found in docs.values()], axis=1).notna().sum(axis=1)
        for e in methods:
            if e.label in frames:
                cells.append(issues_of(e, benchmark, frames[e.label], docs[e.label], held, len(docs)))
            elif benchmark in e.run.manifest.benchmarks:
                cells.append(unfinished(e.label, benchmark, len(held)))
        failures += [
            failed.assign(label=label, benchmark=benchmark)
            for label, frame in frames.items()
            if len(failed := frame.loc[frame["error"].notna(), ["doc_id", "error"]])
        ]
    found = list(error_texts(pd.concat(failures))) if failures else []
    return DataIssues(tuple(cells), tuple(found[:FREQUENT]), max(0, len(found) - FREQUENT))


def issues_of(
    entry: Entry, benchmark: str, rows: pd.DataFrame, docs: pd.Index[int], held: pd.Series[int], methods: int
) -> CellIssues:
    """held: by doc_id, how many of the `methods` have it."""
    missing = held.index.difference(docs)
    return CellIssues(
        label=entry.label,
        benchmark=benchmark,
        finished=True,
        samples=len(rows),
        expected=len(held),
        failures=int(rows["error"].notna().sum()),
        invalids=int(rows["invalid"].fillna(False).sum()),
        missing=tuple(int(doc) for doc in missing[:NAMED]),
        missing_count=len(missing),
        missing_here_only=int((held[missing] == methods - 1).sum()),
        repeated=len(rows) - len(docs),
        torn=is_torn(entry.run.path / slug(entry.method) / benchmark / SAMPLES),
    )


def unfinished(label: str, benchmark: str, expected: int) -> CellIssues:
    """A cell that was asked for and not scored."""
    return CellIssues(label, benchmark, False, 0, expected, 0, 0, (), expected, 0, 0, False)


def is_torn(path: Path) -> bool:
    """Whether a file of lines ends within one."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as f:
        f.seek(-1, 2)
        return f.read() != b"\n"


def error_texts(failures: pd.DataFrame) -> Iterator[ErrorText]:
    """Most frequent first. failures: doc_id, error, label, benchmark."""
    kinds = failures["error"].map(kind)
    groups = sorted(failures.groupby(kinds, sort=False), key=lambda group: -len(group[1]))
    for _, rows in groups:
        first = rows.iloc[0]
        example = Document(first["label"], first["benchmark"], int(first["doc_id"]))
        yield ErrorText(one_line(first["error"]), len(rows), tuple(rows["label"].unique()), example)


def kind(error: str) -> str:
    """What errors have in common that differ in numbers only: `out of memory at batch size #`."""
    return NUMBER.sub("#", one_line(error))


def one_line(error: str) -> str:
    """The first line that says something, cut where it is long."""
    lines = (line.strip() for line in error.splitlines())
    return next((line for line in lines if line), "(no text)")[:LONGEST]


def issues_frame(found: DataIssues) -> pd.DataFrame:
    """One row a method and benchmark."""
    return pd.DataFrame(
        {
            **{"method": c.label, "benchmark": c.benchmark, "finished": c.finished, "samples": c.samples},
            **{"expected": c.expected, "failed": c.failures, "failed_low": c.failed.low, "failed_high": c.failed.high},
            **{"invalid": c.invalids, "invalid_low": c.invalid.low, "invalid_high": c.invalid.high},
            **{"missing": c.missing_count, "missing_here_only": c.missing_here_only},
            **{"missing_documents": " ".join(map(str, c.missing)), "repeated": c.repeated, "torn": c.torn},
        }
        for c in found.cells
    )
