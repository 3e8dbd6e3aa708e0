"""Rounds of a bench: in turn, written as they end, gone on with, and refused elsewhere."""

from __future__ import annotations

import errno
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from locks import held

from atp_eval.bench import machine, run
from atp_eval.bench.records import BENCH, MEASURED, Cell, read_bench
from atp_eval.bench.run import run_bench
from atp_eval.bench.stages import Clock
from atp_eval.bench.subject import Subject
from atp_eval.errors import TaskFailure, UserError
from bench.small import lines, small_plan


def test_rounds_take_turns_and_a_stopped_bench_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small_plan(tmp_path, methods=["grid@9", "fastv@9"], rounds=3)
    asked: list[str] = []
    plain = run.timed

    def dying(subject: Subject, method: Any, cell: Cell, clock: Clock) -> Any:
        asked.append(cell.method)
        if len(asked) == 6:
            raise KeyboardInterrupt
        return plain(subject, method, cell, clock)

    monkeypatch.setattr(run, "timed", dying)
    with pytest.raises(KeyboardInterrupt):
        run_bench(plan, tmp_path / "bench")
    assert asked == ["upper_bound", "grid@9", "fastv@9", "grid@9", "fastv@9", "upper_bound"]
    with (tmp_path / "bench" / MEASURED).open("a") as file:
        file.write('{"cell": 0, "rou')  # killed while writing
    before = lines_of_rounds(tmp_path / "bench")
    said: list[tuple[int, int]] = []
    run_bench(plan, tmp_path / "bench", progress=lambda done, total: said.append((done, total)))
    after = lines(tmp_path / "bench")
    counted = Counter((line["cell"], line["round"]) for line in after if "round" in line)
    assert counted == Counter({(cell, number): 1 for cell in range(3) for number in range(3)})
    assert after[: len(before)] == before and len(before) == 8  # three surveys, five runs
    assert said[-1] == (12, 12)
    assert Counter("survey" in line for line in after)[True] == 3


def lines_of_rounds(folder: Path) -> list[dict[str, Any]]:
    """Whole lines."""
    return [json.loads(x) for x in (folder / MEASURED).read_text().splitlines(keepends=True) if x.endswith("\n")]


def test_rows_without_their_bench_do_not_count(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, methods=["grid@9"], rounds=1)
    folder = run_bench(plan, tmp_path / "bench")
    before = (folder / MEASURED).read_text()
    (folder / BENCH).unlink()
    run_bench(plan, folder)
    assert len(lines(folder)) == before.count("\n") and (folder / MEASURED).read_text() != before


def test_a_finished_bench_loads_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small_plan(tmp_path, methods=["grid@9"], rounds=1)
    run_bench(plan, tmp_path / "bench")
    monkeypatch.setattr(run, "make_subject", lambda plan: pytest.fail("it was made again"))
    run_bench(plan, tmp_path / "bench")


def test_the_machines_limits_are_its_best_of_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = iter([5.0, 9.0])
    monkeypatch.setattr(machine, "matmul_peak", lambda device, dtype: next(speeds))
    monkeypatch.setattr(machine, "bandwidth", lambda device: 7.0)
    found = read_bench(run_bench(small_plan(tmp_path, methods=["grid@9"], rounds=1), tmp_path / "bench"))[0].machine
    assert (found.flops, found.bandwidth) == (9.0, 7.0)


def test_another_bench_and_another_machine_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_bench(small_plan(tmp_path, methods=["grid@9"], rounds=1), tmp_path / "bench")
    other = small_plan(tmp_path, methods=["grid@9"], rounds=2)
    with pytest.raises(UserError, match="other settings"):
        run_bench(other, tmp_path / "bench")
    run_bench(other, tmp_path / "bench", resume=False)
    assert len(read_bench(tmp_path / "bench")[1][0].rounds) == 2
    monkeypatch.setattr(run, "versions", lambda device: {**machine.versions(device), "torch": "1.0"})
    with pytest.raises(UserError, match=r"another version of torch; start over in it with --no-resume"):
        run_bench(other, tmp_path / "bench")
    monkeypatch.setattr(run, "machine_name", lambda device: "elsewhere")
    with pytest.raises(UserError, match="this is elsewhere"):
        run_bench(other, tmp_path / "bench")


def test_a_cell_that_runs_out_of_memory_is_marked_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run.survey

    def full(subject: Subject, method: Any, cell: Cell) -> Any:
        if cell.method == "grid@9":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(subject, method, cell)

    monkeypatch.setattr(run, "survey", full)
    plan = small_plan(tmp_path, methods=["grid@9", "fastv@9"], rounds=1)
    found = read_bench(run_bench(plan, tmp_path / "bench"))[1]
    assert [bool(m.rounds) for m in found] == [True, False, True] and "out of memory" in str(found[1].not_run)
    monkeypatch.setattr(run, "survey", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with pytest.raises(TaskFailure, match="nothing could be measured: it ran out of memory"):
        run_bench(plan, tmp_path / "none")


def test_other_errors_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "survey", lambda *_: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        run_bench(small_plan(tmp_path, methods=["grid@9"]), tmp_path / "bench")


def test_two_processes_do_not_write_one_folder(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    with held(tmp_path / "bench" / ".lock"), pytest.raises(UserError, match="in use"):
        run_bench(small_plan(tmp_path, methods=["grid@9"]), tmp_path / "bench")
    assert not (tmp_path / "bench" / BENCH).exists()


def test_other_weights_than_those_that_were_measured_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = small_plan(tmp_path, methods=["grid@9"], rounds=1)
    run_bench(plan, tmp_path / "bench")
    (tmp_path / "bench" / MEASURED).unlink()
    plain = run.make_subject
    monkeypatch.setattr(run, "make_subject", lambda plan: replace(plain(plan), weights="0" * 64))
    with pytest.raises(UserError, match=r"other weights of .*; start over in it with --no-resume"):
        run_bench(plan, tmp_path / "bench")
    run_bench(plan, tmp_path / "bench", resume=False)


@pytest.mark.parametrize("name", [BENCH, MEASURED])
def test_a_full_disk_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Path.open

    def full(path: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        if name in path.name and mode in ("w", "a"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(path, mode, *args, **more)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UserError, match=r"No space left on device\. What was measured is kept; make room") as caught:
        run_bench(small_plan(tmp_path, methods=["grid@9"], rounds=1), tmp_path / "bench")
    assert "\n" not in str(caught.value)
