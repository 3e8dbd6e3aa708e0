"""Finished cells of run folders: a method's rows on a benchmark, with only the columns that a step needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow import parquet

from atp_eval.errors import UserError
from atp_eval.records import PARQUET, Result, Run, slug

UPPER_BOUND = "upper_bound"


@dataclass(frozen=True)
class Entry:
    """A method of a run, under the label that is unique among all runs compared."""

    label: str
    method: str
    run: Run
    results: dict[str, Result]

    @property
    def is_reference(self) -> bool:
        """Whether this is the unpruned model, which the others are held against."""
        return self.method == UPPER_BOUND

    def rows(self, benchmark: str, columns: list[str] | None = None, docs: Sequence[int] | None = None) -> pd.DataFrame:
        """Finished rows of a benchmark, sorted by doc_id, with `score`; only some columns or documents on request.

        A column that came into the schema after the run was made is empty.
        """
        path = self.run.path / slug(self.method) / benchmark / PARQUET
        filters = None if docs is None else [("doc_id", "in", [int(d) for d in docs])]
        names = parquet.read_schema(path).names
        there = columns and [c for c in columns if c in names]
        rows = pd.read_parquet(path, columns=there, filters=filters).sort_values("doc_id", ignore_index=True)
        return rows if columns is None else rows.reindex(columns=columns)

    def pieces(self, benchmark: str, columns: list[str], size: int) -> Iterator[pd.DataFrame]:
        """`rows`, at most `size` at a time, for what need not be in memory at once."""
        with parquet.ParquetFile(self.run.path / slug(self.method) / benchmark / PARQUET) as file:
            there = [c for c in columns if c in file.schema_arrow.names]
            for piece in file.iter_batches(size, columns=there):
                yield piece.to_pandas().reindex(columns=columns)


def entries(runs: Sequence[Run]) -> list[Entry]:
    """All methods with a finished benchmark, in order; a label that several runs have gets the run's name.

    Raises UserError when nothing is finished.
    """
    names = run_names(runs)
    found: list[tuple[Run, str, dict[str, Result]]] = []
    for run in distinct(runs):
        by_method: dict[str, dict[str, Result]] = {}
        for result in run.results():
            by_method.setdefault(result.method, {})[result.benchmark] = result
        found += [(run, method, results) for method, results in by_method.items()]
    if not found:
        raise UserError(f"nothing is finished in {', '.join(str(r.path) for r in runs)}. Finish the run first.")
    times = Counter(method for _, method, _ in found)
    return [
        Entry(method if times[method] == 1 else f"{method} ({names[run.path]})", method, run, results)
        for run, method, results in found
    ]


def distinct(runs: Sequence[Run]) -> list[Run]:
    """Each run folder once, however often it was named."""
    return list({run.path.resolve(): run for run in runs}.values())


def run_names(runs: Sequence[Run]) -> dict[Path, str]:
    """A name for each run folder: its own, with a number where several have the same."""
    names: dict[Path, str] = {}
    for run in distinct(runs):
        same = sum(1 for path in names if path.name == run.path.name)
        names[run.path] = f"{run.path.name} #{same + 1}" if same else run.path.name
    return names


def reference_of(entry: Entry, among: Sequence[Entry]) -> Entry | None:
    """The upper bound that a method is held against: its own run's, else the first there is."""
    references = [e for e in among if e.is_reference]
    own = [e for e in references if e.run.path == entry.run.path]
    return next(iter(own + references), None)


def benchmarks_of(among: Sequence[Entry]) -> list[str]:
    """The benchmarks that any method finished, in the manifests' order."""
    finished = {name for e in among for name in e.results}
    named = [name for e in among for name in e.run.manifest.benchmarks if name in finished]
    return list(dict.fromkeys(named))


def protocol_differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Protocol keys (dotted where nested) that are not equal in all runs, with each run's value.

    A benchmark that all have must also be the same data and prompts: `benchmarks.gqa` stands for its hash.
    """
    flat = [flatten(run.manifest.protocol) for run in runs]
    shared = [name for name in runs[0].manifest.benchmarks if all(name in r.manifest.benchmarks for r in runs)]
    for one, run in zip(flat, runs, strict=True):
        one |= {f"benchmarks.{name}": run.manifest.benchmarks[name].hash for name in shared}
    keys = dict.fromkeys(key for one in flat for key in one)
    values = {key: [one.get(key) for one in flat] for key in keys}
    return {key: found for key, found in values.items() if any(v != found[0] for v in found)}


def flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
