"""Runs of a small model for tests of shares, and ranks that start without importing everything again."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from atp_eval.parts import PARTS
from atp_eval.records import SAMPLES, read_samples

TIMES = {"seconds", "vision_seconds", "prefill_seconds", "peak_bytes"}  # by the clock
WHOSE = {"batch", "warm"}  # which batch of a process it was
METHODS, LIMIT = ("upper_bound", "fastv@18"), 12
ROWS = len(METHODS) * 2 * LIMIT
HEAVY = ["atp_eval.cli", "atp_eval.run", "atp_eval.backend", "atp_eval.shards.ranks", "lmms_eval.evaluator"]
FORKS = multiprocessing.get_context("forkserver")  # whose processes need not import again what takes seconds
FORKS.set_forkserver_preload(HEAVY)


def settings(model: Path, output: Path) -> dict[str, Any]:
    """Two benchmarks, two methods, six batches each."""
    return {
        "model": str(model), "suite": "mini", "tasks": ["gqa", "mme"], "methods": list(METHODS), "limit": LIMIT,
        "batch_size": 2, "output": output, "keep_images": 2,
    }  # fmt: skip


def command(model: Path, output: Path, *more: str) -> list[str]:
    """The same as a command line."""
    return [
        *("run", "--model", str(model), "--suite", "mini", "--tasks", "gqa,mme", "--methods", ",".join(METHODS)),
        *("--limit", str(LIMIT), "--batch-size", "2", "--keep-images", "2", "--output", str(output), *more),
    ]


def answers(run: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Every record without what is measured by the clock; fails where a document is there twice."""
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for path in sorted(run.glob(f"*/*/{SAMPLES}")):
        for record in read_samples(path):
            key = (record.method, record.benchmark, record.doc_id)
            assert key not in found
            found[key] = record.model_dump(exclude=TIMES | WHOSE)
    return found


def written(run: Path) -> int:
    """Rows of a run folder and of its parts."""
    paths = [*run.glob(f"*/*/{SAMPLES}"), *(run / PARTS).glob(f"*/*/*/{SAMPLES}")]
    return sum(path.read_bytes().count(b"\n") for path in paths)


def owner_of(run: Path, part: str) -> int | None:
    """The process that writes a part, once it has answered something; None before."""
    for samples in (run / PARTS).glob(f"{part}/*/*/{SAMPLES}"):
        with suppress(OSError, ValueError):  # it is being taken back
            if samples.stat().st_size:
                return int((samples.parents[2] / ".owner").read_text())
    return None


def kill_when_it_answers(run: Path, part: str, killed: list[int]) -> None:
    """Kill whoever writes a part, in the middle of its work."""
    for _ in range(30_000):
        if pid := owner_of(run, part):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            return
        time.sleep(0.002)


class Launched:
    """Ranks of a launcher without an agent: nobody ends the others when one dies."""

    def __init__(self, size: int, argv: list[str], logs: Path) -> None:
        self.logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.processes: list[BaseProcess] = []
        for rank in range(size):
            place = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            environment = {key: str(value) for key, value in {**place, **where}.items()}
            self.processes.append(FORKS.Process(target=_rank, args=(argv, environment, logs / str(rank))))
            self.processes[-1].start()

    def codes(self, seconds: float = 240.0) -> list[int | None]:
        """How all have ended; those that have not are ended, and None."""
        until = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.1, until - time.monotonic()))
        found = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        return found

    def said(self, rank: int) -> str:
        """What a rank has printed."""
        return (self.logs / str(rank)).read_text(encoding="utf-8")


def _rank(argv: list[str], environment: dict[str, str], log: Path) -> None:
    os.environ.update(environment)
    with log.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.argv = ["atp-eval", *argv]
        from atp_eval.cli import main

        main()
