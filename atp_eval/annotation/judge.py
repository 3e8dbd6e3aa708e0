"""A model's votes on a ballot: both orders asked of each sample, answers kept on disk, cost counted as it grows.

What two orders do not agree on is a tie, and its share is the judge's position bias (Zheng et al. 2023, "Judging
LLM-as-a-Judge with MT-Bench and Chatbot Arena", Sec. 3.4). An answer that cannot be read, or none, is never a vote.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import NamedTuple

from atp_eval.annotation.ballot import Ballot, Item
from atp_eval.annotation.endpoint import Endpoint, Reply, RequestFailed
from atp_eval.annotation.prompt import PROMPT, data_address, messages, read_verdict
from atp_eval.annotation.settings import JudgeSettings, Prices
from atp_eval.annotation.votes import JUDGE, LONGEST_NAME, JudgeFacts, Look, Missing, Side, Vote, Votes
from atp_eval.errors import TaskFailure

ORDERS: tuple[Side, Side] = ("a", "b")
MOST_FAILURES = 10  # requests in a row that bring nothing
NOT_ASKED = "not asked"


class Step(NamedTuple):
    """done of all looks; spent: USD so far in this call, None without prices."""

    done: int
    all: int
    spent: float | None


@dataclass
class Ledger:
    """What was asked and spent so far, shared by the workers; use under `lock`."""

    prices: Prices | None
    max_cost: float | None
    lock: threading.Lock = field(default_factory=threading.Lock)
    replies: list[Reply] = field(default_factory=list)
    asked: int = 0
    in_flight: int = 0
    spent: float = 0.0
    dearest: float = 0.0
    failures: int = 0
    stopped: bool = False

    def reserve(self) -> bool:
        """Whether one more may be asked: were it and all under way as dear as the dearest, would the limit hold?"""
        with self.lock:
            if self.max_cost is not None and self.spent + (self.in_flight + 1) * self.dearest > self.max_cost:
                self.stopped = True
            if self.stopped:
                return False
            self.in_flight += 1
            return True

    def settle(self, reply: Reply | None) -> None:
        """An answer that was asked for, or None for a failed request. Raises TaskFailure where going on is no use."""
        with self.lock:
            self.asked, self.in_flight = self.asked + 1, self.in_flight - 1
            self.failures = 0 if reply else self.failures + 1
            if reply is None:
                return
            self.replies.append(reply)
            if self.prices:
                cost = self.prices.of(reply)
                self.spent, self.dearest = self.spent + cost, max(self.dearest, cost)
            if self.max_cost is not None and None in reply[1:]:
                raise TaskFailure("the endpoint does not say how many tokens it used: --max-cost cannot be held to")


@dataclass(frozen=True)
class Judgement:
    """asked: requests of this call; spent: USD of this call, None without prices; stopped: by max_cost, early."""

    votes: Votes
    asked: int
    spent: float | None
    stopped: bool


def judge(
    ballot: Ballot, settings: JudgeSettings, folder: Path, progress: Callable[[Step], None] = lambda _: None
) -> Judgement:
    """Ask about every item in both orders; what `folder` holds is not asked again.

    The first request goes alone: what is wrong with address, key or model shows once, and what a request costs is known
    before more are made. Raises UserError where the endpoint refuses all, TaskFailure after MOST_FAILURES in a row.
    """
    prices = settings.prices
    endpoint = Endpoint(
        settings.url,
        settings.model,
        key=settings.key,
        timeout=settings.timeout,
        retries=settings.retries,
        backoff=settings.backoff,
        extra=settings.body,
    )
    todo = [(item, left) for item in ballot.items for left in ORDERS]
    ledger, kept = Ledger(prices, settings.max_cost), Kept(folder)
    found: dict[tuple[str, Side], Look | str] = {}
    known: list[Reply] = []

    def look(item: Item, left: Side) -> Look | str:
        asked = partial(messages, item, left, ballot.hint)
        raw = item.picture.read_bytes() if item.picture else None
        name = kept.name(endpoint.body(asked(hashlib.sha256(raw).hexdigest() if raw else None)))
        reply = kept.read(name)
        if reply is not None:
            with ledger.lock:
                known.append(reply)
        else:
            if not ledger.reserve():
                return NOT_ASKED
            try:
                reply = endpoint.ask(asked(data_address(raw) if raw else None))
            except RequestFailed as error:
                ledger.settle(None)
                if ledger.failures >= MOST_FAILURES:
                    raise TaskFailure(
                        f"{MOST_FAILURES} requests in a row failed, the last with: {error}. What was answered is kept; "
                        "the same command goes on"
                    ) from None
                return str(error)
            kept.write(name, reply)
            ledger.settle(reply)
        choice, reason = read_verdict(reply.text)
        return reason if choice is None else Look(left=left, choice=choice, reason=reason)

    def note(place: int, outcome: Look | str) -> None:
        item, left = todo[place]
        found[item.sample, left] = outcome
        progress(Step(len(found), len(todo), ledger.spent if prices else None))

    with closing(endpoint), ThreadPoolExecutor(settings.workers) as pool:
        note(0, look(*todo[0]))
        waiting = {pool.submit(look, *todo[i]): i for i in range(1, len(todo))}
        try:
            for done in as_completed(waiting):
                note(waiting[done], done.result())
        except BaseException:
            endpoint.halt.set()
            pool.shutdown(cancel_futures=True)
            raise
    votes, missing = tally(ballot.items, found)
    replies = known + ledger.replies
    facts = JudgeFacts(
        model=endpoint.model,
        endpoint=endpoint.url,
        prompt=PROMPT,
        answers=len(replies),
        prompt_tokens=sum(r.prompt_tokens or 0 for r in replies),
        completion_tokens=sum(r.completion_tokens or 0 for r in replies),
        unknown_usage=sum(None in r[1:] for r in replies),
        cost=sum(prices.of(r) for r in replies) if prices else None,
    )
    return Judgement(
        votes=Votes(
            page=ballot.page,
            annotator=JUDGE + endpoint.model[-LONGEST_NAME:].strip(),
            judge=facts,
            a=ballot.a,
            b=ballot.b,
            seed=ballot.seed,
            pools=dict(ballot.pools),
            exported=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            votes=tuple(votes),
            missing=tuple(missing),
        ),
        asked=ledger.asked,
        spent=ledger.spent if prices else None,
        stopped=ledger.stopped,
    )


def tally(items: Sequence[Item], found: dict[tuple[str, Side], Look | str]) -> tuple[list[Vote], list[Missing]]:
    """A vote of each sample with two readable looks; the others with the reason, those not asked about left out."""
    votes, missing = [], []
    for item in items:
        looks = [found[item.sample, left] for left in ORDERS]
        whys = [look for look in looks if isinstance(look, str)]
        if not whys:
            seen = tuple(look for look in looks if isinstance(look, Look))
            votes.append(Vote(benchmark=item.benchmark, doc_id=item.doc_id, picture=item.image, looks=seen))
        elif NOT_ASKED not in whys:
            missing.append(Missing(benchmark=item.benchmark, doc_id=item.doc_id, reason=whys[0]))
    return votes, missing


class Kept:
    """Answers on disk, a file each, named by a hash of all that was asked: model, rules, question, both answers in
    their order, the picture's hash. A file that cannot be read is asked for again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def name(self, body: dict[str, object]) -> str:
        """The name of an answer to a request whose picture is given by its hash."""
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode("ascii")).hexdigest()

    def read(self, name: str) -> Reply | None:
        """The answer, if there is one."""
        try:
            data = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
            return Reply(str(data["text"]), data["prompt_tokens"], data["completion_tokens"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, name: str, reply: Reply) -> None:
        """Whole or not at all. Raises TaskFailure where the folder cannot be written, before more is paid for."""
        part = self.folder / f"{name}.{threading.get_ident()}.part"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(reply._asdict()), encoding="utf-8")
            os.replace(part, self.folder / f"{name}.json")
        except OSError as error:
            raise TaskFailure(f"cannot keep answers in {self.folder}: {error.strerror or error}") from None
