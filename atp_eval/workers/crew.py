"""Giving tasks to workers until all are done: what a worker that died had in hand is tried again, a few times."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from atp_eval.errors import TaskFailure

TRIES = 3  # workers that may die of one task before it is given up
Task = TypeVar("Task")
Work = Callable[[Any], Any]


class Ended(NamedTuple):
    """A task at a place has ended.

    found: what the work returned. error: a UserError or TaskFailure that it raised, which ends everything. died: why
    the worker is no more (`killed by SIGKILL`); whatever it had in hand may be half done.
    """

    place: int
    found: Any = None
    error: Exception | None = None
    died: str | None = None


class Crew(Protocol):
    """Workers at places 0 .. size - 1, one task each at a time."""

    @property
    def size(self) -> int:
        """How many tasks are worked on at once, at most."""

    def places(self) -> Sequence[int]:
        """Those that a worker has, or could have now: machines may go, and with them the room for some."""

    def give(self, place: int, task: Any) -> None:
        """Start a task; where the place has no worker, or it died, one is started first."""

    def wait(self, seconds: float) -> list[Ended]:
        """What has ended by now; as soon as something has, at the latest after `seconds`."""

    def close(self) -> None:
        """End all workers, at once, whatever they do."""


class Watcher(Generic[Task]):
    """Whom `share_out` tells how it goes; this one does not listen."""

    def started(self, place: int, task: Task) -> None:
        """A worker has been given a task."""

    def ended(self, place: int, task: Task, found: Any) -> None:
        """A task is done; `found` is what the work returned."""

    def died(self, place: int, task: Task, why: str, tries: int) -> None:
        """A worker died of a task, the `tries`-th that did."""

    def look(self) -> None:
        """Called a few times a second."""


def share_out(tasks: Sequence[Task], crew: Crew, watcher: Watcher[Task], *, tries: int = TRIES) -> dict[int, str]:
    """Have every task worked on, in their order as far as workers are free; the last reason by the position of each
    task of which `tries` workers died.

    Raises what the work raised, if that is a UserError or a TaskFailure: the others' work stops then; and TaskFailure
    when no place is left. The crew is not closed.
    """
    queue = deque(range(len(tasks)))
    busy: dict[int, int] = {}
    deaths: Counter[int] = Counter()
    given_up: dict[int, str] = {}
    while queue or busy:
        for place in crew.places() if queue else ():
            if queue and place not in busy:
                busy[place] = queue.popleft()
                crew.give(place, tasks[busy[place]])
                watcher.started(place, tasks[busy[place]])
        if not busy:
            raise TaskFailure(
                "there is no room for any worker any more: the machines are gone, or others use them. What was done is "
                "kept; the same command goes on"
            )
        for place, found, error, died in crew.wait(0.25):
            if error is not None:
                raise error
            number = busy.pop(place)
            if died is None:
                watcher.ended(place, tasks[number], found)
                continue
            deaths[number] += 1
            watcher.died(place, tasks[number], died, deaths[number])
            if deaths[number] < tries:
                queue.append(number)  # last: should it bring down worker after worker, the others are done by then
            else:
                given_up[number] = died
        watcher.look()
    return given_up
