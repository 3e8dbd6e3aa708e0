"""What one process knows of a run's answers: which there are. The records themselves stay on the disk, so that memory
does not grow with their number; only where there is no run folder are they kept here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from atp_eval.records import SampleRecord
from atp_eval.rows import Answer
from atp_eval.writer import RunWriter

Cell = tuple[str, str]  # a method's label and a benchmark


class Recorded:
    """Answers of methods to benchmarks, in a run folder or in memory."""

    def __init__(self, writer: RunWriter | None = None) -> None:
        self.writer = writer
        self._documents: dict[Cell, set[int]] = {}
        self._records: dict[Cell, dict[int, SampleRecord]] = {}  # empty where there is a writer

    def documents(self, method: str, benchmark: str) -> Set[int]:
        """The doc_ids that are recorded, by this process or by an earlier one in the same run folder."""
        cell = (method, benchmark)
        if cell not in self._documents:
            self._documents[cell] = self.writer.documents(*cell) if self.writer else set()
        return self._documents[cell]

    def add(self, records: Iterable[SampleRecord]) -> int:
        """Keep what is not recorded yet; how many that were."""
        new = []
        for record in records:
            cell = (record.method, record.benchmark)
            if record.doc_id not in self.documents(*cell):
                self._documents[cell].add(record.doc_id)
                new.append(record)
        if self.writer:
            self.writer.append(new)
        else:
            for record in new:
                self._records.setdefault((record.method, record.benchmark), {})[record.doc_id] = record
        return len(new)

    def answers(self, method: str, benchmark: str) -> Mapping[int, Answer]:
        """What scoring needs of every record, by doc_id; read from the run folder at each call."""
        if self.writer:
            return self.writer.answers(method, benchmark)
        return {key: Answer.of(record) for key, record in self._records.get((method, benchmark), {}).items()}

    def records(self, method: str, benchmark: str) -> Mapping[int, SampleRecord]:
        """All of every record, by doc_id: a few kilobytes each, read from the run folder at each call."""
        if self.writer:
            return self.writer.records(method, benchmark)
        return self._records.get((method, benchmark), {})
