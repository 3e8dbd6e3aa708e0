"""Samples worth looking at, with what each method answered and which tokens it kept."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from atp_eval.analysis.reading import Entry, benchmarks_of, entries
from atp_eval.records import IMAGES, Run
from atp_eval.trace import KeepTrace

SHOWN = 8
CANDIDATES = 2000  # a benchmark; the rest is never worth more
COLUMNS = ["doc_id", "image_id", "score"]


@dataclass(frozen=True)
class Answer:
    """What a method made of a sample. score in [0, 1]; trace is None for a failed or text-only sample."""

    label: str
    response: str | None
    error: str | None
    invalid: bool
    score: float
    trace: KeepTrace | None


@dataclass(frozen=True)
class Sample:
    """A sample and its answers, in the order of the methods. image: the kept picture as the model saw it, if any."""

    benchmark: str
    doc_id: int
    question: str
    prompt: str
    target: str
    category: str | None
    kind: str | None
    level: str | None
    image: Path | None
    answers: tuple[Answer, ...]


def interesting_samples(runs: Sequence[Run], count: int = SHOWN) -> list[Sample]:
    """Samples of every benchmark in turn, those first where methods disagree and whose picture was kept.

    The choice is deterministic, prefers patterns of right and wrong not shown yet, and repeats no picture.
    """
    methods = entries(runs)
    pictures = {p.stem: p for run in reversed(runs) for p in sorted((run.path / IMAGES).glob("*.webp"))}
    left = {name: _candidates(methods, name, set(pictures)) for name in benchmarks_of(methods)}
    picks: list[tuple[str, int]] = []
    patterns: set[str] = set()
    while len(picks) < count and any(len(frame) for frame in left.values()):
        for name in [n for n, frame in left.items() if len(frame)][: count - len(picks)]:
            if left[name].empty:  # its last pictures were just shown with another benchmark
                continue
            frame = left[name].assign(new=~left[name]["pattern"].isin(patterns))
            best = frame.sort_values(["pictured", "disagree", "new", "spread", "dice"], ascending=False).iloc[0]
            picks.append((name, int(best["doc_id"])))
            patterns.add(best["pattern"])
            left = {n: f[f["image"] != best["image"]] for n, f in left.items()}
    return _load(methods, sorted(picks, key=lambda p: list(left).index(p[0])), pictures)


def _candidates(methods: Sequence[Entry], benchmark: str, pictures: set[str]) -> pd.DataFrame:
    """The documents that all methods of a benchmark answered, with what makes them worth showing."""
    frames = [e.rows(benchmark, COLUMNS).set_index("doc_id") for e in methods if benchmark in e.results]
    scores = pd.concat([f["score"] for f in frames], axis=1, join="inner")
    right = scores.to_numpy() >= 0.5
    spread = np.ptp(scores.to_numpy(), axis=1)
    image = frames[0]["image_id"].reindex(scores.index)
    found = pd.DataFrame(
        {
            "doc_id": scores.index,
            "image": image.where(image.notna(), f"{benchmark}/" + scores.index.astype(str)).to_numpy(),
            "pictured": image.isin(pictures).to_numpy(),
            "disagree": spread > 0,
            "pattern": ["".join("01"[int(r)] for r in row) for row in right],
            "spread": spread,
            "dice": [zlib.crc32(f"{benchmark}/{doc}".encode()) for doc in scores.index],
        }
    )
    return found.sort_values(["pictured", "disagree", "spread", "dice"], ascending=False).head(CANDIDATES)


def _load(methods: Sequence[Entry], picks: Sequence[tuple[str, int]], pictures: dict[str, Path]) -> list[Sample]:
    """The samples of (benchmark, doc_id) pairs, in their order."""
    found: dict[tuple[str, int], list[tuple[Entry, dict[str, Any]]]] = {pick: [] for pick in picks}
    for name in dict.fromkeys(name for name, _ in picks):
        docs = [doc for other, doc in picks if other == name]
        for e in methods:
            for row in e.rows(name, docs=docs).to_dict("records") if name in e.results else []:
                found[name, row["doc_id"]].append((e, {str(k): None if _missing(v) else v for k, v in row.items()}))
    return [_sample(rows, pictures) for rows in found.values()]


def _sample(rows: Sequence[tuple[Entry, dict[str, Any]]], pictures: dict[str, Path]) -> Sample:
    first = rows[0][1]
    answers = tuple(
        Answer(
            label=e.label,
            response=row["response"],
            error=row["error"],
            invalid=bool(row["invalid"]),
            score=float(row["score"]),
            trace=KeepTrace.from_json(json.loads(row["trace"])) if row["trace"] else None,
        )
        for e, row in rows
    )
    return Sample(
        benchmark=first["benchmark"],
        doc_id=int(first["doc_id"]),
        question=first["question"],
        prompt=first["prompt"] or "",
        target=first["target"],
        category=first["category"],
        kind=first["kind"],
        level=first["level"],
        image=pictures.get(first["image_id"]),
        answers=answers,
    )


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def cell_runs(cells: NDArray[np.bool_], columns: int) -> list[tuple[int, int, int]]:
    """[rows * columns] bool -> (row, first column, length) of the horizontal runs of true cells, in raster order."""
    padded = np.zeros((len(cells) // columns, columns + 2), dtype=np.int8)
    padded[:, 1:-1] = cells.reshape(-1, columns)
    edges = np.diff(padded, axis=1)
    starts, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
    return [(int(r), int(c), int(end - c)) for (r, c), (_, end) in zip(starts, ends, strict=True)]
