"""Workers as processes of this machine, each with a pipe to this one."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import traceback
from collections.abc import Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from atp_eval.errors import TaskFailure, UserError
from atp_eval.workers.crew import Ended, Work

PATIENCE = 5.0  # seconds that a process is given to end by itself


class _Seat(NamedTuple):
    process: BaseProcess
    pipe: Connection


class Processes:
    """A worker for each of `works`; each is sent to its process when that starts.

    Processes are started afresh (spawn): a forked copy of a process with threads, or with a GPU in use, may hang.
    """

    def __init__(self, works: Sequence[Work]) -> None:
        self._works = list(works)
        self._seats: dict[int, _Seat] = {}
        self._busy: set[int] = set()

    @property
    def size(self) -> int:
        """How many processes there are at most."""
        return len(self._works)

    def places(self) -> Sequence[int]:
        """All: this machine stays as it is."""
        return range(self.size)

    def give(self, place: int, task: Any) -> None:
        """Start a task; see `Crew`."""
        if place in self._seats and not self._seats[place].process.is_alive():
            _end(self._seats.pop(place))
        if place not in self._seats:
            self._seats[place] = _start(self._works[place])
        self._busy.add(place)
        with contextlib.suppress(BrokenPipeError):  # it died just now: `wait` says so
            self._seats[place].pipe.send(task)

    def wait(self, seconds: float) -> list[Ended]:
        """What has ended; see `Crew`."""
        seats = {place: self._seats[place] for place in sorted(self._busy)}
        ready = connection.wait([x for s in seats.values() for x in (s.pipe, s.process.sentinel)], seconds)
        found = []
        for place, seat in seats.items():
            if seat.pipe in ready or seat.process.sentinel in ready:
                found.append(self._hear(place, seat))
                self._busy.discard(place)
        return found

    def _hear(self, place: int, seat: _Seat) -> Ended:
        """What a process says, or why it no longer can."""
        try:
            if seat.pipe.poll():  # what it said before it died counts
                found, error, died = seat.pipe.recv()
                if died is None:
                    return Ended(place, found, error)
            else:
                died = None
        except (EOFError, OSError):
            died = None
        _end(self._seats.pop(place))
        return Ended(place, died=died or _cause(seat.process.exitcode))

    def close(self) -> None:
        """End all processes; those that have nothing to do end by themselves when nobody is there any more."""
        for place, seat in self._seats.items():
            seat.pipe.close()
            if place in self._busy:
                seat.process.terminate()
        for seat in self._seats.values():
            _end(seat)
        self._seats.clear()
        self._busy.clear()


def _start(work: Work) -> _Seat:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work), daemon=True)
    process.start()
    theirs.close()  # else its end would stay open here, and nobody would hear that it is gone
    return _Seat(process, ours)


def _serve(pipe: Connection, work: Work) -> None:
    """A worker's life: task after task, until whoever gives them is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who gives the tasks ends us
    try:
        while True:
            task = pipe.recv()
            try:
                pipe.send((work(task), None, None))
            except (UserError, TaskFailure) as error:
                pipe.send((None, error, None))
            except Exception as error:  # a worker in an unknown state is not asked again: a new one is
                pipe.send((None, None, crash(error)))
                sys.exit(1)
    except (EOFError, BrokenPipeError):
        return


def crash(error: BaseException) -> str:
    """An unexpected error in one line, with the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


def _end(seat: _Seat) -> None:
    """Wait for a process, and do away with one that does not end."""
    seat.pipe.close()
    seat.process.join(PATIENCE)
    if seat.process.is_alive():
        seat.process.kill()
        seat.process.join()


def _cause(code: int | None) -> str:
    """Why a process ended, from its exit code."""
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"it ended with exit code {code}"
