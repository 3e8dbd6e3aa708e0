"""Ranks of torchrun: their answers are those of one process; a dead one is named, soon, and loses nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from bundles import small_checkpoint
from rich.console import Console

from atp_eval.config import make_config
from atp_eval.parts import PARTS
from atp_eval.records import IMAGES, read_run
from atp_eval.run import evaluate
from shards.made import ROWS, Launched, answers, command, kill_when_it_answers, settings, written


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("ranks") / "model")


@pytest.fixture(scope="module")
def alone(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert not evaluate(make_config(**settings(model, folder)), Console(quiet=True)).failures
    return folder


def test_two_ranks_answer_as_one_process_does(model: Path, alone: Path, tmp_path: Path) -> None:
    launched = Launched(2, command(model, tmp_path / "run"), tmp_path / "logs")
    assert launched.codes() == [0, 0], launched.said(0) + launched.said(1)
    run, one = read_run(tmp_path / "run"), read_run(alone)
    assert len(answers(alone)) == ROWS
    assert answers(run.path) == answers(alone)
    assert run.results() == one.results()
    assert (run.manifest.methods, run.manifest.benchmarks) == (one.manifest.methods, one.manifest.benchmarks)
    assert run.manifest.finished and run.manifest.config.pop("workers") == "2 ranks"
    assert {p.name for p in (run.path / IMAGES).iterdir()} == {p.name for p in (alone / IMAGES).iterdir()}
    assert not (run.path / PARTS).exists()
    assert "report.html" in launched.said(0) and launched.said(1) == ""


def test_a_dead_rank_is_named_and_another_number_of_ranks_goes_on(model: Path, alone: Path, tmp_path: Path) -> None:
    run, killed = tmp_path / "run", list[int]()
    killer = threading.Thread(target=kill_when_it_answers, args=(run, "rank-2", killed), daemon=True)
    killer.start()
    launched = Launched(3, command(model, run), tmp_path / "first")
    codes = launched.codes()
    killer.join(1)
    said = launched.said(0) + launched.said(1)
    assert killed and codes == [1, 1, -signal.SIGKILL], said
    (line,) = (line for line in said.splitlines() if line.startswith("atp-eval:"))
    assert f"rank 2 of 3 (process {killed[0]} on " in line and line in launched.said(0)
    assert "it was killed" in line and "What was answered is kept" in line
    assert "Traceback" not in said
    there = written(run)
    assert 0 < there < ROWS

    asked = Launched(2, command(model, run), tmp_path / "second")
    assert asked.codes() == [0, 0], asked.said(0)
    assert answers(run) == answers(alone)  # in which no document is twice
    assert read_run(run).results() == read_run(alone).results()


def test_the_first_rank_that_lives_tells_of_the_death_of_the_first(model: Path, tmp_path: Path) -> None:
    run, killed = tmp_path / "run", list[int]()
    killer = threading.Thread(target=kill_when_it_answers, args=(run, "rank-0", killed), daemon=True)
    killer.start()
    launched = Launched(2, command(model, run), tmp_path / "logs")
    codes = launched.codes()
    assert codes[0] == -signal.SIGKILL and codes[1] == 1
    said = [line for line in launched.said(1).splitlines() if line.startswith("atp-eval:")]
    assert len(said) == 1 and "died" in said[0] and "What was answered is kept" in said[0]
    assert written(run) > 0


def test_what_a_rank_cannot_do_is_told_once(model: Path, tmp_path: Path) -> None:
    """Every rank finds the wrong name; one says so."""
    argv = command(model, tmp_path / "run")
    argv[argv.index("gqa,mme")] = "gqb"
    launched = Launched(2, argv, tmp_path / "logs")
    assert launched.codes() == [2, 1]
    assert "unknown benchmark 'gqb'" in launched.said(0) and launched.said(1) == ""


def test_torchrun_ends_with_the_name_of_the_dead_rank(model: Path, tmp_path: Path) -> None:
    """Its agent tells the others to end when it sees one dead: they have a moment to say who."""
    run, killed = tmp_path / "run", list[int]()
    killer = threading.Thread(target=kill_when_it_answers, args=(run, "rank-1", killed), daemon=True)
    killer.start()
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "atp_eval",
    ]
    done = subprocess.run(
        [*torchrun, *command(model, run)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert killed and done.returncode == 1
    assert len(re.findall(r"^atp-eval: rank 1 of 2 .*died: .*What was answered is kept", done.stderr, re.M)) == 1
    assert written(run) > 0


def test_ranks_agree_on_a_batch_size(model: Path, alone: Path, tmp_path: Path) -> None:
    launched = Launched(2, command(model, tmp_path / "run", "--batch-size", "auto"), tmp_path / "logs")
    assert launched.codes() == [0, 0], launched.said(0) + launched.said(1)
    run = read_run(tmp_path / "run")
    assert run.manifest.config["batch_size"] in (1, 2, 4, 8, 16)
    mine, theirs = answers(run.path), answers(alone)
    assert {key: row["response"] for key, row in mine.items()} == {key: row["response"] for key, row in theirs.items()}


def test_workers_under_torchrun_are_refused(model: Path, tmp_path: Path) -> None:
    launched = Launched(2, command(model, tmp_path / "run", "--workers", "2"), tmp_path / "logs")
    assert launched.codes() == [2, 2]
    assert "leave them out under torchrun" in launched.said(0)
