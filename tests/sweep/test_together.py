"""`atp-eval sweep --workers` and `--ray`: the answers are those of a single process, whoever is killed on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from bundles import small_checkpoint
from rich.console import Console

from atp_eval.answering import Answerer
from atp_eval.config import make_config
from atp_eval.errors import TaskFailure, UserError
from atp_eval.parts import PARTS, lend
from atp_eval.records import SAMPLES, read_run, read_samples
from atp_eval.shards import crews, together
from atp_eval.shards.together import Workers
from atp_eval.shards.units import Outcome, Unit, UnitWorker
from atp_eval.shards.watch import Display, Lines
from atp_eval.sweep import plan, run_sweep
from atp_eval.sweep.settings import Sweep, load_sweep
from atp_eval.sweep.units import units
from atp_eval.workers.on_ray import Resources
from sweep.files import write

FAMILIES = [
    {"panel": "before", "name": "random", "spec": "random", "grid": {"layer": [0, 1]}, "seeds": [0, 1]},
    {"panel": "inside", "name": "FastV", "spec": "fastv"},
]
TIMES = {"seconds", "vision_seconds", "prefill_seconds", "decode_seconds", "peak_bytes"}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A sweep of a small model of random weights."""
    home = tmp_path_factory.mktemp("together")
    run = {"suite": "mini", "batch_size": 2}
    model = str(small_checkpoint(home / "model"))
    return load_sweep(write(home, families=FAMILIES, budgets=[18], model=model, tasks=["gqa", "mme"], limit=6, run=run))


@pytest.fixture(scope="module")
def serial(sweep: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the sweep by one process, with one thread as workers have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    _, where = run_sweep(sweep, "mine", tmp_path_factory.mktemp("serial"), console=Console(quiet=True))
    torch.set_num_threads(threads)
    return where.parent / "run-6"


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers have a thread each, however many cores there are."""
    monkeypatch.setattr(crews, "share", lambda cores, workers: 1)
    monkeypatch.setattr(crews, "cores", lambda: 2)
    yield


def answers(run: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Every record without what is measured by the clock, or hangs on which batch of a process it was."""
    return {
        (r.method, r.benchmark, r.doc_id): r.model_dump(exclude=TIMES | {"batch", "warm"})
        for path in sorted(run.glob(f"*/*/{SAMPLES}"))
        for r in read_samples(path)
    }


def kill_one(run: Path, killed: list[int]) -> None:
    """Kill the first worker that has answered anything, in the middle of its unit."""
    for _ in range(12_000):
        for samples in (run / PARTS).glob(f"*/*/*/{SAMPLES}"):
            if samples.stat().st_size:
                pid = int((samples.parents[2] / ".owner").read_text())
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return
        time.sleep(0.005)


@pytest.mark.parametrize("workers", [Workers(2)], ids=["processes"])  # with Ray: tests/shards
def test_workers_answer_as_one_process_does_though_one_is_killed(
    sweep: Sweep, serial: Path, tmp_path: Path, workers: Workers, one_core: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atp_eval.sweep.units.EACH", 2)  # four units: each begins with seconds of loading
    killed: list[int] = []
    killer = threading.Thread(target=kill_one, args=(tmp_path / "run-6", killed), daemon=True)
    killer.start()
    console = Console(record=True, width=200, force_terminal=False, file=(tmp_path / "said").open("w"))
    table, where = run_sweep(sweep, "mine", tmp_path, workers=workers, console=console)
    killer.join(1)
    said = console.export_text()
    assert killed and "a worker died of" in said and "tried again" in said

    run, alone = read_run(tmp_path / "run-6"), read_run(serial)
    assert answers(run.path) == answers(serial)
    assert len(answers(serial)) == 6 * 2 * 6
    assert run.results() == alone.results()
    assert list(run.manifest.methods.items()) == list(alone.manifest.methods.items())
    assert run.manifest.benchmarks == alone.manifest.benchmarks
    assert (run.manifest.protocol, run.manifest.finished) == (alone.manifest.protocol, True)
    assert run.manifest.config["tasks"] == alone.manifest.config["tasks"] == ["gqa", "mme"]
    assert run.manifest.config.pop("workers") == str(workers) and "workers" not in alone.manifest.config
    assert not (run.path / PARTS).exists()
    mine, theirs = (json.loads((path / "mine-6.json").read_text())["rows"] for path in (tmp_path, serial.parent))
    assert mine == theirs
    assert where == tmp_path / "mine-6" and table.to_json()["rows"] == mine


def test_what_stopped_workers_have_answered_is_not_asked_again(
    sweep: Sweep, serial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(serial, tmp_path / "run-6")
    run = tmp_path / "run-6"
    cell = run / "fastv@18" / "gqa"
    (cell / "results.json").unlink()
    lines = (cell / SAMPLES).read_text().splitlines(keepends=True)
    (cell / SAMPLES).write_text("".join(lines[:2]))
    lend(run, "gqa-1", [("fastv@18", "gqa"), ("upper_bound", "gqa")])  # as a parent that was killed leaves them
    planned = plan(sweep, tmp_path)
    assert planned.recorded == 6 * 2 * 6 - 4

    asked: list[int] = []
    answer = Answerer._answer_batch
    monkeypatch.setattr(
        Answerer, "_answer_batch", lambda self, batch: (asked.append(len(batch.loaded)), answer(self, batch))
    )
    run_sweep(sweep, "mine", tmp_path, console=Console(quiet=True))
    assert sum(asked) == 4
    assert answers(run) == answers(serial)


class Dying(UnitWorker):
    """Answers gqa; dies of mme."""

    def __call__(self, unit: Unit) -> Any:
        if "mme" in unit.benchmarks:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(unit)


def test_a_unit_that_kills_its_workers_is_named_in_the_end_and_the_rest_is_there(
    sweep: Sweep, serial: Path, tmp_path: Path, one_core: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crews, "UnitWorker", Dying)
    monkeypatch.setattr(together, "TRIES", 1)
    monkeypatch.setattr("atp_eval.sweep.units.MOST", 99)
    monkeypatch.setattr("atp_eval.sweep.units.EACH", 1)
    with pytest.raises(TaskFailure) as caught:
        run_sweep(sweep, "mine", tmp_path, workers=Workers(1), console=Console(quiet=True))
    assert str(caught.value).startswith("mme with upper_bound and 5 more failed: 1 workers died of it")
    assert "killed by SIGKILL" in str(caught.value)
    expected = {key: value for key, value in answers(serial).items() if key[1] == "gqa"}
    assert answers(tmp_path / "run-6") == expected
    manifest = read_run(tmp_path / "run-6").manifest
    assert not manifest.finished
    assert json.loads((tmp_path / "mine-6.json").read_text())["benchmarks"] == ["gqa"]


def test_units_hold_every_open_cell_once_and_few_methods_each(sweep: Sweep, tmp_path: Path) -> None:
    planned = plan(sweep, tmp_path)
    for workers in (1, 2, 5, 100):
        found = units(planned, workers)
        cells = [cell for unit in found for cell in unit.cells]
        assert sorted(cells) == sorted((m, t) for m in planned.run.methods for t in planned.run.tasks)
        assert len(found) >= min(len(cells), 4 * workers)
        assert len({unit.run.run_folder() for unit in found}) == len(found)
        assert sum(unit.answers for unit in found) == planned.answers
        assert all(unit.run.tasks == list(unit.benchmarks) and unit.run.methods == list(unit.methods) for unit in found)


def test_units_leave_out_what_is_finished(sweep: Sweep, serial: Path) -> None:
    planned = plan(sweep, serial.parent)
    assert units(planned, 2) == []


def test_lines_are_counted_as_they_come(tmp_path: Path) -> None:
    lines = Lines([tmp_path / "a", tmp_path / "b"])
    assert lines.count() == 0
    (tmp_path / "a").write_text("1\n2\nto")
    assert lines.count() == 2
    with (tmp_path / "a").open("a") as file:
        file.write("rn\n")
    (tmp_path / "b").write_text("x\n")
    assert lines.count() == 4
    assert lines.count() == 4


def test_a_terminal_sees_a_bar_for_each_worker(sweep: Sweep, tmp_path: Path) -> None:
    console = Console(record=True, width=120, force_terminal=True, file=(tmp_path / "said").open("w"))
    one, two, *_ = found = units(plan(sweep, tmp_path), 2)
    done: list[Unit] = []
    with Display(console, found, 2, done.append) as display:
        display.started(0, one)
        display.started(1, two)
        path = one.files()[0]
        path.parent.mkdir(parents=True)
        path.write_text("{}\n" * 3)
        display.look()
        bars = {task.description: task for task in display._bars.tasks}
        assert bars["2 workers"].completed == 3
        assert bars[f"  1 {one.said}"].completed == 3
        display.ended(0, one, Outcome(["gqa failed"], ["a note"]))
        assert display.failures == ["gqa failed"] and done == [one]
        display.look()
        assert bars["2 workers"].completed == one.answers
        display.died(1, two, "killed by SIGKILL", 3)
    said = console.export_text()
    assert "given up" in said and "a note" in said


@pytest.mark.parametrize(
    ("device", "gpus", "workers", "said"),
    [
        ("auto", 2, 3, "--workers 3: there are 2 GPUs, for a model each; --workers 2 uses all"),
        ("cuda:1", 2, 2, "--device cuda:1 with 2 workers: they cannot share it"),
        ("mps", 0, 2, "--device mps with 2 workers"),
    ],
)
def test_workers_that_would_share_a_gpu_are_refused(
    device: str, gpus: int, workers: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(UserError, match=said):
        crews.processes(make_config(device=device), workers)


def test_each_worker_has_a_gpu_or_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    def works(crew: Any) -> list[tuple[str | None, int | None]]:
        return [(work.device, work.threads) for work in crew._works]

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(crews, "cores", lambda: 8)
    assert works(crews.processes(make_config(device="auto"), 2)) == [("cuda:0", None), ("cuda:1", None)]
    assert works(crews.processes(make_config(device="cpu"), 3)) == [(None, 2)] * 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert works(crews.processes(make_config(device="auto"), 16)) == [(None, 1)] * 16


def test_nothing_is_started_where_nothing_is_left(sweep: Sweep, serial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "processes", lambda *args: pytest.fail("workers were started"))
    run_sweep(sweep, "mine", serial.parent, workers=Workers(2), console=Console(quiet=True))


@pytest.mark.parametrize(
    ("device", "machines", "workers", "each", "threads", "sharing"),
    [
        ("cpu", [(8, 0)], 2, (4, 0), 4, 2),
        ("cpu", [(3, 0), (1, 0)], 2, (1, 0), 1, 2),  # not two cores each: no machine has room for a second
        ("cpu", [(4, 0), (2, 0)], 3, (2, 0), 2, 2),
        ("cpu", [(1, 0), (1, 0)], 2, (1, 0), 1, 1),
        ("cpu", [(2, 0)], 3, (0, 0), 1, 3),
        ("auto", [(4, 1), (4, 1)], None, (1, 1), None, 1),
        ("auto", [(8, 0), (0, 2)], None, (0, 1), None, 1),
    ],
)
def test_every_actor_has_room_on_a_machine_of_the_cluster(
    device: str,
    machines: list[tuple[int, int]],
    workers: int | None,
    each: tuple[int, int],
    threads: int | None,
    sharing: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crews, "connect", lambda where: [Resources(*machine) for machine in machines])
    monkeypatch.setattr(crews, "Actors", lambda works, each: (works, each))
    works, taken = cast(Any, crews.actors(make_config(device=device), "auto", workers))
    assert taken == each and len(works) == (workers or sum(gpus for _, gpus in machines))
    assert {(work.threads, work.processes) for work in works} == {(threads, sharing)}
