"""What a reader must know before trusting a comparison, one sentence each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from atp_eval.analysis.reading import UPPER_BOUND
from atp_eval.analysis.summary import BenchmarkRow, MethodSummary
from atp_eval.records import Run

if TYPE_CHECKING:
    from atp_eval.analysis.compare import Change
    from atp_eval.analysis.measure import Cell

FEW_PICTURES, FEW_DIFFERING = 20, 5  # below, intervals miss more often than they say (docs/statistics.md)
TOLERANCE = 0.0005  # of a metric's scale, between lmms-eval's number and ours from its samples


def unfinished(runs: Sequence[Run]) -> Iterator[str]:
    """Cells that were asked for and are not there."""
    for run in runs:
        have = {(r.method, r.benchmark) for r in run.results()}
        asked = [(m, b) for m in run.manifest.methods for b in run.manifest.benchmarks]
        if missing := [f"{m} on {b}" for m, b in asked if (m, b) not in have]:
            yield f"{run.path.name} is not finished: {shortened(missing)}. `atp-eval run` with these goes on."


def not_side_by_side(runs: Sequence[Run]) -> Iterator[str]:
    """Runs whose methods were answered by several workers."""
    for run in runs:
        if run.manifest.config.get("workers"):
            yield (
                f"{run.path.name} was answered by several workers ({run.manifest.config['workers']}): not all of its "
                "methods ran side by side, so ratios of times say little."
            )


def disagreements(row: BenchmarkRow, cells: Mapping[str, Cell]) -> Iterator[str]:
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


def too_few(row: BenchmarkRow, cells: Mapping[str, Cell]) -> Iterator[str]:
    """Pictures in all, or pictures that a method and the upper bound score differently."""
    held = {label: cell.retained for label, cell in cells.items() if cell.retained.kept and cell.reference != label}
    if not held:
        return
    pictures = max(r.pictures for r in held.values())
    if pictures < FEW_PICTURES:
        yield (
            f"{row.name}: {pictures} pictures are too few for intervals that hold what they say; take at least "
            f"{FEW_PICTURES}, better 100."
        )
    elif rare := [label for label, r in held.items() if r.differing < FEW_DIFFERING]:
        yield (
            f"{row.name}: in fewer than {FEW_DIFFERING} pictures do {shortened(rare)} score otherwise than the upper "
            "bound; their intervals of retention are rough."
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


def apart(first: Run, second: Run, changes: Sequence[Change]) -> list[str]:
    """Methods whose parameters are not the same, documents and methods that only one run has, and devices."""
    said = []
    a, b = first.manifest, second.manifest
    names = list(dict.fromkeys(change.method for change in changes))
    for name in names:
        one, two = a.methods[name], b.methods[name]
        if keys := sorted(key for key in {*one, *two} if one.get(key) != two.get(key)):
            what = "; ".join(f"{key}: {one.get(key)} and {two.get(key)}" for key in keys)
            said.append(f"{name} is not the same method in both runs ({what}).")
    for run, other, other_names in ((first, b, b.methods), (second, a, a.methods)):
        alone = [name for name in run.manifest.methods if name not in other_names]
        alone += [name for name in run.manifest.benchmarks if name not in other.benchmarks]
        if alone:
            said.append(f"Only {run.path.name} has {', '.join(alone)}.")
    if uneven := [f"{c.method} on {c.benchmark}" for c in changes if c.only_a or c.only_b]:
        more = f" and {len(uneven) - 3} more" if len(uneven) > 3 else ""
        said.append(f"Not both runs have all documents of {', '.join(uneven[:3])}{more}; those that both have count.")
    if a.device != b.device:
        said.append(f"The runs are of different devices ({a.device}; {b.device}), so their times say little.")
    return said
