"""Work for tests of workers: sums, and ways to come to an end. Light to import, since every worker does."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

from atp_eval.errors import TaskFailure, UserError


class Job(NamedTuple):
    """A number to double, and what happens first: how often the worker dies of it, or which error it raises."""

    number: int
    deaths: int = 0
    error: str | None = None
    seconds: float = 0.0


class Doubling:
    """Returns (twice the number, the process, how many jobs this object has done); what happened is kept in `folder`,
    since workers that die remember nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.done = folder, 0

    def __call__(self, job: Job) -> Any:
        with (self.folder / f"{job.number}.tries").open("a") as f:
            f.write(f"{os.getpid()}\n")
        time.sleep(job.seconds)
        if len((self.folder / f"{job.number}.tries").read_text().split()) <= job.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        if job.error == "user":
            raise UserError("no such method 'x'; name another")
        if job.error == "task":
            raise TaskFailure("the disk is full")
        if job.error == "bug":
            raise ZeroDivisionError("division\nby zero")
        self.done += 1
        return 2 * job.number, os.getpid(), self.done
