"""The samples that are voted on: drawn by hash, evenly over benchmarks, each with the side that stands on the left.

The same runs, methods and seed give the same ballot everywhere, so that people and judges vote on one page. Pictures
are not repeated as long as there are others, since votes on one picture say less than votes on two.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from atp_eval.analysis.reading import Entry, benchmarks_of, entries, protocol_differences
from atp_eval.annotation.votes import Pool, Side
from atp_eval.errors import UserError, unknown
from atp_eval.records import IMAGES, Run

COLUMNS = ["doc_id", "image_id", "response", "error"]


@dataclass(frozen=True)
class Item:
    """A sample. asked: the prompt as the model got it, choices included. answers, scores: of method a, then b; scores
    in [0, 1]. left: who stands on the left. image: the picture's name; picture: its file, None where it was not kept.
    """

    benchmark: str
    doc_id: int
    asked: str
    target: str
    image: str | None
    picture: Path | None
    answers: tuple[str, str]
    scores: tuple[float, float]
    left: Side

    @property
    def sample(self) -> str:
        """The sample's name: `gqa/12`."""
        return f"{self.benchmark}/{self.doc_id}"

    @property
    def shown(self) -> tuple[str, str]:
        """The answers as they stand: left, right."""
        return self.answers if self.left == "a" else self.answers[::-1]


@dataclass(frozen=True)
class Ballot:
    """Items in the order of showing. pools: of each benchmark, what they were drawn from."""

    a: str
    b: str
    seed: int
    hint: str
    items: tuple[Item, ...]
    pools: Mapping[str, Pool]

    @cached_property
    def page(self) -> str:
        """A hash of all that a voter is shown, and of whose it is."""
        items = [(i.sample, i.asked, i.image, i.answers, i.left) for i in self.items]
        shown = json.dumps(["atp-eval ballot 1", self.a, self.b, self.seed, self.hint, items])
        return hashlib.sha256(shown.encode("ascii")).hexdigest()[:32]

    @property
    def pictured(self) -> int:
        """Items whose picture is there, or that have none by nature."""
        return sum(1 for item in self.items if item.picture or item.image is None)


def draw(
    runs: Sequence[Run],
    a: str,
    b: str,
    count: int,
    *,
    benchmarks: Sequence[str] | None = None,
    seed: int = 0,
    hint: str = "",
    include_identical: bool = False,
    any_picture: bool = False,
) -> Ballot:
    """At most `count` samples that both methods answered, differently unless `include_identical`.

    Where the runs kept any picture, only samples with theirs are drawn, unless `any_picture`. Raises UserError for a
    method or benchmark that is not there, runs of different protocols, and where nothing can be drawn.
    """
    if count < 1:
        raise UserError(f"-n {count}: at least 1 sample")
    first, second = chosen(runs, a, b)
    shared = [name for name in benchmarks_of([first, second]) if name in first.results and name in second.results]
    for name in benchmarks or ():
        if name not in shared:
            raise unknown("benchmark of both methods", name, shared)
    names = [name for name in shared if not benchmarks or name in benchmarks]
    pictures = {p.stem: p for run in (second.run, first.run) for p in sorted((run.path / IMAGES).glob("*.webp"))}
    tables = {name: table(first, second, name) for name in names}
    for name, rows in tables.items():
        able = rows["answered"] & (include_identical | ~rows["identical"])
        if pictures and not any_picture:
            able &= rows["image_id"].isna() | rows["image_id"].isin(list(pictures))
        tables[name] = rows.assign(eligible=able)
    if not any(rows["eligible"].any() for rows in tables.values()):
        raise UserError(nothing(tables, a, b))
    sizes = evenly({name: int(rows["eligible"].sum()) for name, rows in tables.items()}, count)
    picks = {name: pick(rows[rows["eligible"]], sizes[name], f"{seed}/{name}") for name, rows in tables.items()}
    order = sorted((dice(f"{seed}/place/{name}/{doc}"), name, doc) for name, docs in picks.items() for doc in docs)
    sides = halves([f"{name}/{doc}" for _, name, doc in order], seed)
    loaded = {name: load(first, second, name, docs) for name, docs in picks.items() if docs}
    items = [
        Item(name, doc, **fields, left=sides[f"{name}/{doc}"], picture=pictures.get(fields["image"]))
        for name, doc, fields in ((name, doc, loaded[name][doc]) for _, name, doc in order)
    ]
    pools = {name: pool(rows, sizes[name], include_identical) for name, rows in tables.items()}
    return Ballot(a, b, seed, hint, tuple(items), pools)


def chosen(runs: Sequence[Run], a: str, b: str) -> tuple[Entry, Entry]:
    """The two methods by their labels."""
    labels = {entry.label: entry for entry in entries(runs)}
    for label in (a, b):
        if label not in labels:
            raise unknown("method of the run", label, labels)
    if a == b:
        raise UserError(f"--a and --b are both {a!r}: a method is not compared with itself")
    first, second = labels[a], labels[b]
    if differ := protocol_differences([first.run, second.run]):
        raise UserError(f"the runs of {a} and {b} differ in {', '.join(differ)}: compare methods of one protocol")
    return first, second


def table(first: Entry, second: Entry, benchmark: str) -> pd.DataFrame:
    """The documents that both have, with `image_id`, `answered` by both, and `identical` up to blanks."""
    rows = first.rows(benchmark, COLUMNS).merge(second.rows(benchmark, COLUMNS), on="doc_id", suffixes=("", "_b"))
    given = rows["response"].notna() & rows["response_b"].notna() & rows["error"].isna() & rows["error_b"].isna()
    said = [rows[name].astype(object).fillna("").str.split().str.join(" ") for name in ("response", "response_b")]
    return rows[["doc_id", "image_id"]].assign(answered=given, identical=given & (said[0] == said[1]))


def nothing(tables: Mapping[str, pd.DataFrame], a: str, b: str) -> str:
    """Why no sample can be drawn, and what helps."""
    rows = pd.concat(list(tables.values()))
    answered, alike = int(rows["answered"].sum()), int(rows["identical"].sum())
    if not answered:
        return f"{a} and {b} answered no sample both: run them on the same benchmarks first"
    if alike == answered:
        return f"{a} and {b} gave the same answer to all {answered:,} samples; --include-identical shows them anyway"
    return (
        f"{a} and {b} answered {answered - alike:,} samples differently, none of which has its picture in the run: "
        "run again with a larger --keep-images, or vote without pictures by --any-picture"
    )


def pool(rows: pd.DataFrame, drawn: int, include_identical: bool) -> Pool:
    """What a benchmark's items were drawn from."""
    answered, alike = int(rows["answered"].sum()), int(rows["identical"].sum())
    stands_for = answered if include_identical else answered - alike
    return Pool(
        answered=answered, identical=alike, eligible=int(rows["eligible"].sum()), stands_for=stands_for, drawn=drawn
    )


def evenly(available: Mapping[str, int], count: int) -> dict[str, int]:
    """How many of each: alike, as benchmarks weigh alike in the average; who has fewer gives all, others more."""
    taken = dict.fromkeys(available, 0)
    while (left := count - sum(taken.values())) and (more := [n for n in available if taken[n] < available[n]]):
        for name in more[:left]:
            taken[name] += min(max(1, left // len(more)), available[name] - taken[name])
    return taken


def pick(rows: pd.DataFrame, count: int, salt: str) -> list[int]:
    """Documents by hash; one of each picture before any second."""
    thrown = rows.assign(dice=[dice(f"{salt}/{doc}") for doc in rows["doc_id"]]).sort_values("dice")
    alone = thrown["image_id"].where(thrown["image_id"].notna(), "doc " + thrown["doc_id"].astype(str))
    turn = thrown.groupby(alone).cumcount()
    found = thrown.assign(turn=turn).sort_values(["turn", "dice"])["doc_id"].head(count)
    return [int(doc) for doc in found]


def halves(samples: Sequence[str], seed: int) -> dict[str, Side]:
    """Who stands on the left: method a in half of the samples, so that a liking for one side favours nobody."""
    thrown = sorted(samples, key=lambda sample: dice(f"{seed}/left/{sample}"))
    return {sample: "a" if i % 2 == 0 else "b" for i, sample in enumerate(thrown)}


def dice(text: str) -> str:
    """A number that looks random and is the same everywhere."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def load(first: Entry, second: Entry, benchmark: str, docs: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The drawn documents' fields of Item."""
    names = ["doc_id", "question", "prompt", "target", "image_id", "response", "score"]
    rows = first.rows(benchmark, docs=docs).reindex(columns=names)
    rows = rows.merge(
        second.rows(benchmark, docs=docs)[["doc_id", "response", "score"]], on="doc_id", suffixes=("", "_b")
    )
    return {
        int(row["doc_id"]): {
            "asked": row["prompt"] if isinstance(row["prompt"], str) and row["prompt"] else row["question"],
            "target": row["target"],
            "image": row["image_id"] if isinstance(row["image_id"], str) else None,
            "answers": (row["response"], row["response_b"]),
            "scores": (float(row["score"]), float(row["score_b"])),
        }
        for row in rows.to_dict("records")
    }  # fmt: skip
