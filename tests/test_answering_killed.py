"""Answering that was interrupted, torn or killed goes on to the same records."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from asked import METHODS, answerer, outcomes, questions

from atp_eval.writer import RunWriter


def test_progress_counts_every_pair_once_and_nothing_that_was_done_before(tmp_path: Path) -> None:
    for pairs in (12 * len(METHODS), 0):
        counts: list[int] = []
        with RunWriter(tmp_path) as writer:
            found = answerer(progress=counts.append, writer=writer)
            found.answer(questions())
            found.answer(questions())
            assert all(found.documents(method, "gqa") == set(range(12)) for method in METHODS)
        assert sum(counts) == pairs


class Stop(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("after", [1, 4, 7, 11])
def test_an_interrupted_run_goes_on_to_the_same_records(
    tmp_path: Path, after: int, unbroken: dict[str, list[tuple[Any, ...]]]
) -> None:
    calls = 0

    def stop(count: int) -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            raise Stop

    with RunWriter(tmp_path) as writer, pytest.raises(Stop):
        answerer(writer=writer, progress=stop).answer(questions())
    with RunWriter(tmp_path) as writer:
        found = answerer(writer=writer)
        found.answer(questions())
        assert outcomes(found) == unbroken
        for method in METHODS:  # nothing twice on the disk either
            path = writer.folder(method, "gqa") / "samples.jsonl"
            assert len(path.read_text(encoding="utf-8").splitlines()) == 12


def test_a_batch_torn_in_the_middle_is_completed_and_no_row_is_written_twice(
    tmp_path: Path, unbroken: dict[str, list[tuple[Any, ...]]]
) -> None:
    with RunWriter(tmp_path) as writer:
        answerer(writer=writer).answer(questions())
        path = writer.folder("fastv@18", "gqa") / "samples.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    with RunWriter(tmp_path) as writer:
        found = answerer(writer=writer)
        found.answer(questions())
    assert outcomes(found) == unbroken
    assert len(path.read_text(encoding="utf-8").splitlines()) == 12


KILLED = """
import sys
from pathlib import Path
from atp_eval.writer import RunWriter
from asked import answerer, questions
with RunWriter(Path(sys.argv[1])) as writer:
    print("ready", flush=True)
    answerer(writer=writer).answer(questions())
"""


def test_sigkill_at_a_random_moment_loses_nothing_that_was_flushed(
    tmp_path: Path, unbroken: dict[str, list[tuple[Any, ...]]]
) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    process = subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(random.uniform(0.0, 0.4))
    process.send_signal(signal.SIGKILL)
    process.wait()
    with RunWriter(tmp_path) as writer:  # the lock died with the process
        found = answerer(writer=writer)
        found.answer(questions())
    assert outcomes(found) == unbroken
