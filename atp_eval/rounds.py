"""Rounds of a run: benchmarks that are answered together, and the batches into which their questions are put.

The batches are written down in the run folder. So a run that goes on starts at once, however many questions there are,
and all processes of a run have the same batches.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from atp_eval.asks import Ask, batches
from atp_eval.config import RunConfig
from atp_eval.writer import temporary, write_atomically

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


def plan_batches(
    folder: Path,
    questions: Mapping[str, Questions],
    missing: Mapping[str, Collection[int]],
    batch_size: int,
    data: Sequence[str],
) -> Plan:
    """The batches of a round: those written down in a run folder, and new ones of what they lack, which are written
    down there.

    missing: the documents of each benchmark, in rising order, that some method has not answered. Others get into no
    new batch, which would have them answered again. All processes of a run have the same batches: those that come to it
    before anything is answered find the same documents missing, and later ones find them written down. data: hashes of
    what is asked.
    """
    known = [data, batch_size, {name: len(some) for name, some in questions.items()}]
    digest = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:12]
    path = folder / FOLDER / f"{digest}.json"
    names, found = list(questions), list[list[Name]]()
    with suppress(FileNotFoundError, ValueError):  # none, or a damaged one
        found = [[(names[which], doc) for which, doc in batch] for batch in json.loads(path.read_text())]
    there = {name for batch in found for name in batch}
    asks = list[Ask]()
    for name, some in questions.items():
        new = [doc for doc in missing[name] if (name, doc) not in there]
        asks += (ask for start in range(0, len(new), PIECE) for ask in some.asks(new[start : start + PIECE]))
    if asks:
        found += [[(ask.benchmark, ask.doc_id) for ask in batch] for batch in batches(asks, batch_size)]
        numbers = {name: number for number, name in enumerate(names)}
        write_atomically(path, json.dumps([[(numbers[name], doc) for name, doc in batch] for batch in found]))
    return found


def agreed(folder: Path, batch_size: int) -> int:
    """The batch size of all processes that fill a run folder: that of the first of them, if they come to it by what
    memory is free.

    It is the name of a file in a folder, since a folder is renamed in one step, with what is in it, and never takes
    the place of another one that is not empty. Hard links, which could do the same, not every file system has.
    """
    path = folder / FOLDER / "agreed"
    own = temporary(path)
    own.mkdir(parents=True)
    (own / str(batch_size)).touch()
    with suppress(OSError):
        own.rename(path)
    shutil.rmtree(own, ignore_errors=True)  # where another one was first
    (size,) = path.iterdir()
    return int(size.name)


def asker(questions: Mapping[str, Questions]) -> Callable[[Sequence[Name]], list[Ask]]:
    """The questions of a batch, in its order."""

    def asks(batch: Sequence[Name]) -> list[Ask]:
        found: dict[Name, Ask] = {}
        for benchmark in dict.fromkeys(name for name, _ in batch):
            wanted = [doc for name, doc in batch if name == benchmark]
            found |= {(ask.benchmark, ask.doc_id): ask for ask in questions[benchmark].asks(wanted)}
        return [found[name] for name in batch]

    return asks
