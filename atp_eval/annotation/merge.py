"""Votes of several annotators on one page, checked and merged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from atp_eval.analysis.significance import Interval
from atp_eval.annotation.tallies import (
    Agreement,
    Pair,
    Position,
    Rates,
    agreement,
    look_table,
    overall,
    pair,
    position,
    rates,
    vote_table,
)
from atp_eval.annotation.votes import JudgeFacts, Votes, read_votes
from atp_eval.errors import UserError


@dataclass(frozen=True)
class Preference:
    """What the votes say; rates are of b. pooled: of all people's votes, or of all judges' where no person voted, as
    are by_benchmark and overall (see `tallies.overall`). drawn, answered, identical: samples, of all benchmarks.
    judges: how each was asked; invalid: its samples without a readable vote, by reason."""

    a: str
    b: str
    page: str
    drawn: int
    answered: int
    identical: int
    pooled: Rates
    annotators: tuple[Rates, ...]
    by_benchmark: tuple[Rates, ...]
    overall: Interval | None
    positions: tuple[Position, ...]
    agreements: tuple[Agreement, ...]
    pairs: tuple[Pair, ...]
    judges: Mapping[str, JudgeFacts]
    invalid: Mapping[str, Mapping[str, int]]


def merge_files(paths: Sequence[Path]) -> Preference:
    """Raises UserError for files without votes, of different pages, or of an annotator that is there twice."""
    if not paths:
        raise UserError("--merge needs files of votes: atp-eval annotate --merge votes-*.json")
    return merge([(path, read_votes(path)) for path in paths])


def merge(files: Sequence[tuple[Path, Votes]]) -> Preference:
    """The same of votes that were read already."""
    check(files)
    found = [votes for _, votes in files]
    first, table, looks = found[0], vote_table(found), look_table(found)
    if table.empty:
        raise UserError(f"there is no vote in {', '.join(str(path) for path, _ in files)}")
    people, judged = table[~table["judge"]], table[table["judge"]]
    pooled = people if len(people) else judged
    names = [votes.annotator for votes in found if votes.votes]
    groups = {"people": people, "judges": judged}
    if len(people) and len(judged):
        groups = {"people": people, "people and judges": table}
    return Preference(
        a=first.a,
        b=first.b,
        page=first.page,
        drawn=sum(pool.drawn for pool in first.pools.values()),
        answered=sum(pool.answered for pool in first.pools.values()),
        identical=sum(pool.identical for pool in first.pools.values()),
        pooled=rates("all people" if len(people) else "all judges", pooled, clustered=True),
        annotators=tuple(rates(name, table[table["annotator"] == name], clustered=False) for name in names),
        by_benchmark=tuple(rates(str(name), part, clustered=True) for name, part in pooled.groupby("benchmark")),
        overall=overall(pooled, first.pools),
        positions=tuple(position(name, looks[looks["annotator"] == name]) for name in names),
        agreements=tuple(agreement(name, part) for name, part in groups.items() if part["annotator"].nunique() > 1),
        pairs=tuple(pair(one, two, table) for one, two in combinations(names, 2)),
        judges={votes.annotator: votes.judge for votes in found if votes.judge},
        invalid={v.annotator: dict(Counter(m.reason for m in v.missing).most_common()) for v in found if v.missing},
    )


def check(files: Sequence[tuple[Path, Votes]]) -> None:
    """Raises UserError that names the files which cannot be merged."""
    path, first = files[0]
    seen: dict[str, Path] = {}
    for other, votes in files:
        if (votes.page, votes.a, votes.b) != (first.page, first.a, first.b):
            raise UserError(
                f"{other} holds votes on another page ({votes.a} and {votes.b}, page {votes.page[:8]}) than {path} "
                f"({first.a} and {first.b}, page {first.page[:8]}): merge votes on one page"
            )
        if votes.annotator in seen:
            raise UserError(
                f"{seen[votes.annotator]} and {other} are both votes of {votes.annotator!r}: give one export of each "
                "annotator, the last one"
            )
        seen[votes.annotator] = other
