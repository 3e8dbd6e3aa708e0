"""Samples worth looking at, with what each method answered and which tokens it kept."""

from __future__ import annotations

import json
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from atp_eval.analysis.reading import Entry, benchmarks_of, entries
from atp_eval.errors import UserError, unknown
from atp_eval.records import IMAGES, Run
from atp_eval.trace import KeepTrace

SHOWN = 200  # of a gallery, unless asked otherwise
AT_RANDOM = 0.25  # share of the samples that is drawn whatever the methods answered
NEEDED = [
    *("benchmark", "doc_id", "image_id", "question", "prompt", "target", "category", "kind", "level"),
    *("response", "error", "invalid", "score", "trace"),
]

Pick = tuple[str, int]  # a benchmark and a doc_id
Pictures = dict[tuple[str, str], Path]  # by how they were made square (pad, crop) and image_id


@dataclass(frozen=True)
class Answer:
    """What a method made of a sample. score in [0, 1]; trace is None for a failed or text-only sample.

    image: the kept picture as the model saw it, if any; the grid lies over it exactly.
    """

    label: str
    response: str | None
    error: str | None
    invalid: bool
    score: float
    trace: KeepTrace | None
    image: Path | None = None


@dataclass(frozen=True)
class Sample:
    """A sample and its answers, in the order of the methods.

    at_random: whether it was drawn at random, whatever the methods made of it; these alone are representative.
    """

    benchmark: str
    doc_id: int
    question: str
    prompt: str
    target: str
    category: str | None
    kind: str | None
    level: str | None
    answers: tuple[Answer, ...]
    at_random: bool = False

    @property
    def image(self) -> Path | None:
        """The picture that most stand for: the first answer's that has one."""
        return next((a.image for a in self.answers if a.image), None)

    @property
    def differs(self) -> bool:
        """Whether methods have different scores."""
        return len({a.score for a in self.answers}) > 1


def interesting_samples(
    runs: Sequence[Run], count: int, benchmarks: Sequence[str] | None = None, *, share: float = AT_RANDOM
) -> list[Sample]:
    """At most `count` samples, as many of each benchmark as there are, in the order of benchmarks and documents.

    A `share` of them is drawn at random first, so that what is shown is not only the spectacular; then come
    samples on which scores differ, patterns of right and wrong in turn and pictures in turn, and others where those run
    out. Samples whose picture was kept go before all others, in both parts. The choice is deterministic.

    Raises UserError for a benchmark that is finished nowhere.
    """
    methods, pictures = entries(runs), kept_pictures(runs)
    names = benchmarks_of(methods)
    for name in benchmarks or ():
        if name not in names:
            raise unknown("benchmark of this run", name, names)
    there = {image_id for _, image_id in pictures}
    candidates = {name: _candidates(methods, name, there) for name in names if name in (benchmarks or names)}
    shares = fair_shares({name: len(frame) for name, frame in candidates.items()}, count)
    chosen = {name: choose(frame, shares[name], share) for name, frame in candidates.items()}
    picks = {(name, doc): at_random for name, docs in chosen.items() for doc, at_random in docs.items()}
    return _load(methods, picks, pictures)


def named_samples(runs: Sequence[Run], picks: Sequence[Pick]) -> list[Sample]:
    """The samples of these benchmarks and documents, in this order.

    Raises UserError for a benchmark or a document that no method has answered.
    """
    methods = entries(runs)
    for name, _ in picks:
        if name not in benchmarks_of(methods):
            raise unknown("benchmark of this run", name, benchmarks_of(methods))
    found = _load(methods, dict.fromkeys(picks, False), kept_pictures(runs))
    there = {(s.benchmark, s.doc_id): s for s in found}
    for name, doc in picks:
        if (name, doc) not in there:
            last = max(e.run.manifest.benchmarks[name].documents for e in methods if name in e.results) - 1
            raise UserError(f"{name}:{doc}: no method has answered it. {name} has documents 0 to {last}.")
    return [there[pick] for pick in picks]


def spread(samples: Iterable[Sample], count: int) -> list[Sample]:
    """A few of the samples, in their order: pictures before none, other pictures and other benchmarks before the same
    again."""
    samples = list(samples)
    left, taken = list(range(len(samples))), list[int]()
    while left and len(taken) < count:
        shown = Counter[object](x for i in taken for x in (samples[i].image, samples[i].benchmark))
        best = min(left, key=lambda i: _again(samples[i], shown))
        left.remove(best)
        taken.append(best)
    return [samples[i] for i in sorted(taken)]


def _again(s: Sample, shown: Counter[object]) -> tuple[bool, int, int]:
    return s.image is None, shown[s.image], shown[s.benchmark]


def kept_pictures(runs: Sequence[Run]) -> Pictures:
    """The pictures that runs kept."""
    return {
        (view_of(run), path.stem): path for run in reversed(runs) for path in sorted((run.path / IMAGES).glob("*.webp"))
    }


def view_of(run: Run) -> str:
    """How a run makes pictures square; those of another way do not lie under this run's grid."""
    return str(run.manifest.protocol.get("image"))


def fair_shares(sizes: dict[str, int], count: int) -> dict[str, int]:
    """How many to take of each: the same of all, and what the small ones cannot give from the others."""
    shares = dict.fromkeys(sizes, 0)
    left = min(count, sum(sizes.values()))
    while left:
        open_ones = [name for name, size in sizes.items() if shares[name] < size]
        each = max(1, left // len(open_ones))
        for name in open_ones[:left]:
            more = min(each, sizes[name] - shares[name], left)
            shares[name] += more
            left -= more
    return shares


def choose(frame: pd.DataFrame, count: int, share: float) -> dict[int, bool]:
    """Of `_candidates`: {doc_id: whether it was drawn at random}, rising."""
    shuffled = frame.sort_values(["pictured", "dice"], ascending=[False, True])
    drawn = shuffled.head(round(share * count))
    rest = shuffled.drop(drawn.index)
    # The n-th of its pattern, the n-th of its picture: all patterns and pictures come once before any comes twice.
    turn = np.maximum(rest.groupby("pattern").cumcount(), rest.groupby("image").cumcount())
    rest = rest.assign(turn=np.where(rest["differs"], turn, 0))
    best = rest.sort_values(
        ["pictured", "differs", "turn", "range", "dice"], ascending=[False, False, True, False, True]
    ).head(count - len(drawn))
    found = dict.fromkeys(drawn["doc_id"].tolist(), True)
    found |= dict.fromkeys(best["doc_id"].tolist(), False)
    return dict(sorted(found.items()))


def _candidates(methods: Sequence[Entry], benchmark: str, pictures: set[str]) -> pd.DataFrame:
    """The documents that all methods of a benchmark answered, with what makes them worth showing."""
    there = [e for e in methods if benchmark in e.results]
    first = there[0].rows(benchmark, ["doc_id", "image_id", "score"]).set_index("doc_id")
    others = [e.rows(benchmark, ["doc_id", "score"]).set_index("doc_id") for e in there[1:]]
    scores = pd.concat([f["score"] for f in (first, *others)], axis=1, join="inner")
    values = scores.to_numpy(dtype=np.float64)
    right = np.packbits(values >= 0.5, axis=1)
    image = first["image_id"].reindex(scores.index)
    reach = np.ptp(values, axis=1)
    return pd.DataFrame(
        {
            "doc_id": scores.index,
            "image": image.where(image.notna(), f"{benchmark}/" + scores.index.astype(str)).to_numpy(),
            "pictured": image.isin(pictures).to_numpy(),
            "differs": reach > 0,
            "pattern": np.ascontiguousarray(right).view(f"S{right.shape[1]}").ravel(),
            "range": reach,
            "dice": [zlib.crc32(f"{benchmark}/{doc}".encode()) for doc in scores.index],
        }
    )


def _load(methods: Sequence[Entry], picks: dict[Pick, bool], pictures: Pictures) -> list[Sample]:
    """The samples of (benchmark, doc_id) pairs, in their order; those that nobody answered are left out."""
    found: dict[Pick, list[tuple[Entry, dict[str, Any]]]] = {pick: [] for pick in picks}
    for name in dict.fromkeys(name for name, _ in picks):
        docs = [doc for other, doc in picks if other == name]
        for e in methods:
            for row in e.rows(name, NEEDED, docs).to_dict("records") if name in e.results else []:
                clean = {str(k): None if _missing(v) else v for k, v in row.items()}
                found[name, int(row["doc_id"])].append((e, clean))
    return [_sample(rows, pictures, picks[pick]) for pick, rows in found.items() if rows]


def _sample(rows: Sequence[tuple[Entry, dict[str, Any]]], pictures: Pictures, at_random: bool) -> Sample:
    first = rows[0][1]
    answers = tuple(
        Answer(
            label=e.label,
            response=row["response"],
            error=row["error"],
            invalid=bool(row["invalid"]),
            score=float(row["score"]),
            trace=KeepTrace.from_json(json.loads(row["trace"])) if row["trace"] else None,
            image=pictures.get((view_of(e.run), row["image_id"])),
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
        answers=answers,
        at_random=at_random,
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
