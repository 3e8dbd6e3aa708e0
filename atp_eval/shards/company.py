"""The ranks that torchrun, or any launcher with its environment variables, has started: who they are, how far they
are, and who is no more.

They talk through the launcher's key-value store alone. There is no collective operation that a dead rank would hold up:
whoever waits looks, once a second, whether the others still live.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Protocol

LOOK = 1.0  # seconds between two looks at the others
PATIENCE = 60.0  # seconds without a sign of life after which a rank of another machine is given up
JOIN = timedelta(minutes=5)  # until the others have to be there
LAST_WORDS = 3.0  # seconds in which a rank that was told to end finds out who died
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
DONE, KILLED = "done", "it was killed, or died without a word"
FOLLOWED, TOLD = "it ended since another rank did", "it was told to end (SIGTERM)"
FOLLOWING = (FOLLOWED, TOLD)
"""Why ranks end when another one has: not the first cause, if there is another."""


class Store(Protocol):
    """What a torch.distributed.Store can do, as far as it is needed."""

    def set(self, key: str, value: str, /) -> None:
        """Write a value."""

    def get(self, key: str, /) -> bytes:
        """Read it; waits until there is one."""

    def check(self, keys: list[str], /) -> bool:
        """Whether all are there."""


class Lost(Exception):
    """A rank is no more, or has given up; `why` is for a person. said: whether these are its own last words."""

    def __init__(self, rank: int, why: str, said: bool = False) -> None:
        super().__init__(rank, why)
        self.rank, self.why, self.said = rank, why, said


class Guarded:
    """A store that may go away with the process that holds it: the launcher, or else the first rank. Raises Lost."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def set(self, key: str, value: str) -> None:
        """Write a value."""
        with _guard():
            self._store.set(key, value)

    def get(self, key: str) -> bytes:
        """Read it."""
        with _guard():
            return self._store.get(key)

    def check(self, keys: list[str]) -> bool:
        """Whether all are there."""
        with _guard():
            return self._store.check(keys)


@contextmanager
def _guard() -> Iterator[None]:
    try:
        yield
    except RuntimeError:
        raise Lost(0, "the store through which the ranks talk is gone") from None


class Place(NamedTuple):
    """A process' number among all, and among those of its machine."""

    rank: int
    size: int
    local: int
    local_size: int


class Told(BaseException):
    """This process was told to end (SIGTERM), as launchers do with all others when one has died."""


def join() -> Company | None:
    """The company of this process; None where it was started alone.

    The variables are taken out of the environment, since lmms-eval would divide its documents by them too.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        return None
    from torch.distributed import PrefixStore, rendezvous

    store, rank, size = next(rendezvous("env://", timeout=JOIN))
    local, local_size = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    for name in VARIABLES:
        os.environ.pop(name, None)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return Company(PrefixStore(f"atp_eval/{attempt}", store), Place(rank, size, local, local_size))


class Company:
    """All ranks, as one of them sees them.

    >>> with company.watching():
    ...     ...  # in between: company.check(), which raises Lost
    ...     company.end()
    """

    def __init__(self, store: Store, place: Place) -> None:
        self.store, self.place = Guarded(store), place
        self.answered = 0  # by this rank
        self._lost: Lost | None = None
        self._ends = False
        self._last_words = False  # it looks for the cause
        self._signs: dict[int, tuple[str, float]] = {}  # the last one of each rank, and since when it is the last
        self._known: dict[int, tuple[str, int]] = {}  # machine and process of each rank
        self._stop = threading.Event()

    @property
    def rank(self) -> int:
        """The number of this process."""
        return self.place.rank

    @property
    def others(self) -> list[int]:
        """All others."""
        return [rank for rank in range(self.place.size) if rank != self.rank]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Give signs of life, and look after the others, until the end of the block."""
        self.store.set(f"who/{self.rank}", f"{socket.gethostname()} {os.getpid()}")
        self._look()
        thread = threading.Thread(target=self._watch, daemon=True, name="company")
        thread.start()
        before = signal.signal(signal.SIGTERM, self._told)
        try:
            yield
            signal.signal(signal.SIGTERM, before)  # else it is deaf to the end, since it has something to say
        finally:
            self._linger()
            self._stop.set()
            thread.join()

    def tell(self, what: str, value: str = "1") -> None:
        """Let the others know of something."""
        self.store.set(what, value)

    def hear(self, what: str) -> str:
        """What was told, once it is. Raises Lost when a rank is no more."""
        self.wait([what])
        return self.store.get(what).decode()

    def end(self, why: str = DONE) -> None:
        """This rank has done its work, or has given up; it can no longer be told to end."""
        self._ends = True
        with suppress(Lost):  # if there is nobody to tell, so be it
            self.store.set(f"end/{self.rank}", why)

    def check(self) -> None:
        """Raises Lost when a rank is no more."""
        if self._lost:
            raise self._lost

    def wait(self, keys: list[str], meanwhile: Callable[[], None] = lambda: None) -> None:
        """Until all have been told. Raises Lost when a rank is no more."""
        while not self.store.check(keys):
            self.check()
            meanwhile()
            time.sleep(LOOK / 5)
        self.check()

    def wait_for_all(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Until all others have done their work. Raises Lost when one is no more, or has given up."""
        self.wait([f"end/{rank}" for rank in self.others], meanwhile)
        self._look_again()
        self.check()

    def answered_by_all(self) -> int:
        """Answers of all ranks, as far as is known."""
        return self.answered + sum(int(sign.split()[1]) for sign, _ in list(self._signs.values()))

    def who_died(self) -> Lost | None:
        """The rank with which it began, if that can be found out in a moment; else one that ended since another did."""
        follower, self._last_words = self._lost, True
        if follower and follower.why in FOLLOWING:
            self._lost = None
        until = time.monotonic() + LAST_WORDS
        while time.monotonic() < until and not self._lost:
            self._look_again()
            time.sleep(LOOK / 10)
        if follower and (self._lost is None or self._lost.rank == follower.rank):  # whose own words they are
            self._lost = follower
        return self._lost

    def speaks(self) -> bool:
        """Whether it is this rank's part to tell of the end: the first does. Where that died without a word the second
        does, and the first of every other machine, since the second's may be gone too."""
        if self._lost is not None and self._lost.rank == 0 and not self._lost.said:
            return self.rank == 1 or self.place.local == 0
        return self.rank == 0

    def named(self, rank: int) -> str:
        """A rank for a person: `rank 1 of 2 (process 4242 on here)`."""
        host, pid = self._known.get(rank, ("", 0))
        return f"rank {rank} of {self.place.size}" + (f" (process {pid} on {host})" if host else "")

    def _linger(self) -> None:
        """Let the others hear of the end before the first rank goes, and the store, perhaps, with it."""
        others = [rank for rank in self.others if self._lost is None or rank != self._lost.rank]
        until = time.monotonic() + LAST_WORDS
        with suppress(Lost):
            while self.rank == 0 and time.monotonic() < until and not self.store.check([f"end/{r}" for r in others]):
                time.sleep(LOOK / 10)

    def _told(self, number: int, frame: FrameType | None) -> None:
        if not self._ends:
            raise Told

    def _watch(self) -> None:
        while not self._stop.wait(LOOK) and not self._lost:
            self._look_again()

    def _look_again(self) -> None:
        """Look; that there is nothing to look at any more is an answer too."""
        try:
            self._look()
        except Lost as lost:
            host, pid = self._known.get(0, ("", 0))
            self._lost = Lost(0, KILLED) if host == socket.gethostname() and not lives(pid) else lost

    def _look(self) -> None:
        """Give a sign, and look for those of the others: the first rank at all, the others at the first, or in the end
        at all."""
        now = time.monotonic()
        self.store.set(f"sign/{self.rank}", f"{now} {self.answered}")
        for rank in self.others if self.rank == 0 or self._last_words else [0]:
            if self._lost is None and (lost := self._gone(rank, now)):
                self._lost = None if self._last_words and lost.why in FOLLOWING else lost

    def _gone(self, rank: int, now: float) -> Lost | None:
        """That a rank will not go on, and why; None if it lives, has done its work, or has not come yet."""
        if self.store.check([f"end/{rank}"]):
            why = self.store.get(f"end/{rank}").decode()
            return None if why == DONE else Lost(rank, why, said=True)
        if not self.store.check([f"sign/{rank}"]):
            return None
        sign = self.store.get(f"sign/{rank}").decode()
        last, since = self._signs.get(rank, ("", now))
        self._signs[rank] = (sign, since if sign == last else now)
        host, pid = self._who(rank)
        if host == socket.gethostname():
            return None if lives(pid) else Lost(rank, KILLED)
        silent = now - self._signs[rank][1]
        return None if silent < PATIENCE else Lost(rank, f"no sign of life for {silent:.0f} seconds")

    def _who(self, rank: int) -> tuple[str, int]:
        if rank not in self._known:
            host, pid = self.store.get(f"who/{rank}").decode().split()
            self._known[rank] = host, int(pid)
        return self._known[rank]


def lives(pid: int) -> bool:
    """Whether there is a process of that number on this machine that has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    with suppress(OSError, IndexError):  # no such files, as on a Mac, or it has just ended
        return stat.read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()[0] != "Z"
    return True
