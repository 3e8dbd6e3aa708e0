"""Ballots and votes made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from atp_eval.annotation.ballot import Ballot, Item
from atp_eval.annotation.merge import Preference, merge
from atp_eval.annotation.votes import Choice, JudgeFacts, Look, Missing, Pool, Side, Vote, Votes

LEFTS: tuple[Side, Side] = ("a", "b")


def ballot(answers: Sequence[tuple[str, str]], *, hint: str = "", picture: Path | None = None) -> Ballot:
    """A ballot of one benchmark, `upper_bound` against `atp@144`; a stands on the left of every other sample."""
    items = tuple(
        Item("gqa", i, f"What is thing {i}?", "blue", f"picture-{i}", picture, pair, (1.0, 0.0), LEFTS[i % 2])
        for i, pair in enumerate(answers)
    )
    count = len(items)
    pools = {"gqa": Pool(answered=2 * count, identical=count, eligible=count, stands_for=count, drawn=count)}
    return Ballot("upper_bound", "atp@144", 0, hint, items, pools)


def pool(drawn: int, *, answered: int | None = None, identical: int = 0) -> Pool:
    """A benchmark of which all that differs was drawn from."""
    answered = answered or drawn + identical
    differs = answered - identical
    return Pool(answered=answered, identical=identical, eligible=differs, stands_for=differs, drawn=drawn)


def votes(
    who: str,
    choices: Mapping[str, Choice | tuple[Choice, Choice]],
    *,
    lefts: Mapping[str, Side] | None = None,
    pictures: Mapping[str, str] | None = None,
    pools: Mapping[str, Pool] | None = None,
    page: str = "1" * 32,
    a: str = "upper_bound",
    b: str = "atp@144",
    missing: Sequence[Missing] = (),
) -> Votes:
    """choices: of samples such as `gqa/3`; two of a judge, with a and then b first. A person sees a on the left unless
    `lefts` says otherwise."""
    given = []
    for sample, chosen in choices.items():
        benchmark, _, doc = sample.partition("/")
        pairs = (
            zip(LEFTS, chosen, strict=True) if isinstance(chosen, tuple) else [((lefts or {}).get(sample, "a"), chosen)]
        )
        looks = tuple(Look(left=left, choice=choice) for left, choice in pairs)
        given.append(Vote(benchmark=benchmark, doc_id=int(doc), picture=(pictures or {}).get(sample), looks=looks))
    facts = JudgeFacts(
        model=who[6:], endpoint="http://localhost/v1", prompt="0" * 16, answers=2 * len(given), prompt_tokens=10,
        completion_tokens=1, unknown_usage=0, cost=None,
    )  # fmt: skip
    names = {vote.benchmark for vote in given} or {"gqa"}
    return Votes(
        page=page, annotator=who, judge=facts if who.startswith("judge:") else None, a=a, b=b, seed=0,
        pools=dict(pools or {name: pool(len(given)) for name in names}), exported="2026-11-21T09:00:00Z",
        votes=tuple(given), missing=tuple(missing),
    )  # fmt: skip


def merged(*files: Votes) -> Preference:
    """What they add up to, as files 0.json, 1.json, ..."""
    return merge([(Path(f"{i}.json"), found) for i, found in enumerate(files)])
