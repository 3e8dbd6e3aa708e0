"""Rounds of a run: benchmarks that are answered together, and the batches into which their questions are put.

The batches are written down in the run folder. So a run that goes on starts at once, however many questions there are,
and all processes of a run have the same batches.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from atp_eval.asks import Ask, batches
from atp_eval.config import RunConfig
from atp_eval.writer import write_atomically

if TYPE_CHECKING:
    from atp_eval.questions import Questions

FOLDER = ".batches"
PIECE = 1024  # questions that are read at a time
Name = tuple[str, int]  # a benchmark and a doc_id
Plan = Sequence[Sequence[Name]]


def rounds(config: RunConfig) -> list[list[str]]:
    """The benchmarks that are answered together: all of the embedded suite, which ask about the same pictures; of the
    others each alone."""
    names = list(dict.fromkeys(config.tasks))
    return [names] if config.resolved_suite == "mini" else [[name] for name in names]


def plan_batches(folder: Path, questions: Mapping[str, Questions], batch_size: int, data: Sequence[str]) -> Plan:
    """The batches of a round: those written down in a run folder, or new ones, which are written down there.

    data: hashes of what is asked.
    """
    known = [data, batch_size, {name: len(some) for name, some in questions.items()}]
    digest = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:12]
    path = folder / FOLDER / f"{digest}.json"
    if path.exists():
        names = list(questions)
        return [[(names[which], doc) for which, doc in batch] for batch in json.loads(path.read_text())]
    asks = [
        ask
        for some in questions.values()
        for start in range(0, len(some), PIECE)
        for ask in some.asks(range(start, min(len(some), start + PIECE)))
    ]
    found = [[(ask.benchmark, ask.doc_id) for ask in batch] for batch in batches(asks, batch_size)]
    numbers = {name: number for number, name in enumerate(questions)}
    write_atomically(path, json.dumps([[(numbers[name], doc) for name, doc in batch] for batch in found]))
    return found


def agreed(folder: Path, batch_size: int) -> int:
    """The batch size of all processes that fill a run folder: that of the first of them, if they come to it by what
    memory is free."""
    path, own = folder / FOLDER / "size", folder / FOLDER / f"size-{uuid.uuid4().hex}"
    write_atomically(own, str(batch_size))
    with suppress(FileExistsError):
        os.link(own, path)  # in one step, with its content
    own.unlink()
    return int(path.read_text())


def asker(questions: Mapping[str, Questions]) -> Callable[[Sequence[Name]], list[Ask]]:
    """The questions of a batch, in its order."""

    def asks(batch: Sequence[Name]) -> list[Ask]:
        found: dict[Name, Ask] = {}
        for benchmark in dict.fromkeys(name for name, _ in batch):
            wanted = [doc for name, doc in batch if name == benchmark]
            found |= {(ask.benchmark, ask.doc_id): ask for ask in questions[benchmark].asks(wanted)}
        return [found[name] for name in batch]

    return asks
