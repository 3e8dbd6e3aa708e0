"""Workers of both kinds: all work is done, by those that keep what they have; deaths are survived, and counted."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atp_eval.errors import TaskFailure, UserError
from atp_eval.workers import TRIES, Crew, Processes, Watcher, on_ray, share_out
from workers.jobs import Doubling, Job

Start = Callable[[int], Crew]
ONE_CORE = on_ray.Resources(1, 0)


class Seen(Watcher[Job]):
    """Everything that was told."""

    def __init__(self) -> None:
        self.found: dict[int, Any] = {}
        self.deaths: list[tuple[int, int]] = []
        self.places: set[int] = set()
        self.causes: list[str] = []

    def started(self, place: int, task: Job) -> None:
        self.places.add(place)

    def ended(self, place: int, task: Job, found: Any) -> None:
        assert task.number not in self.found
        self.found[task.number] = found

    def died(self, place: int, task: Job, why: str, tries: int) -> None:
        self.deaths.append((task.number, tries))
        self.causes.append(why)


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[on_ray.Resources]]:
    """A Ray cluster of this machine with two cores, whose workers find the modules of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        found = on_ray.connect("local", cpus=2)
    yield found
    import ray

    ray.shutdown()


@pytest.fixture(params=["processes", "ray"])
def start(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Makes a crew; it is closed in the end. Tests of Ray share a cluster."""
    crews: list[Crew] = []

    def make(size: int) -> Crew:
        works = [Doubling(tmp_path) for _ in range(size)]
        if request.param == "processes":
            crews.append(Processes(works))
        else:
            assert [machine.cpus for machine in request.getfixturevalue("cluster")] == [2]
            crews.append(on_ray.Actors(works, ONE_CORE))
            monkeypatch.setattr("ray.shutdown", lambda: None)
        return crews[-1]

    yield make
    for crew in crews:
        crew.close()


def test_all_is_done_once_by_workers_that_stay(start: Start) -> None:
    seen = Seen()
    crew = start(2)
    assert share_out([Job(i, seconds=0.05) for i in range(8)], crew, seen) == {}
    assert {n: twice for n, (twice, _, _) in seen.found.items()} == {i: 2 * i for i in range(8)}
    processes = [pid for _, pid, _ in seen.found.values()]
    assert seen.places == {0, 1} and len(set(processes)) == 2 and os.getpid() not in processes
    assert max(done for _, _, done in seen.found.values()) == max(map(processes.count, processes))


def test_a_task_whose_worker_is_killed_is_done_by_another(start: Start) -> None:
    seen = Seen()
    assert share_out([Job(0, deaths=1), Job(1), Job(2)], start(2), seen) == {}
    assert set(seen.found) == {0, 1, 2}
    assert seen.deaths == [(0, 1)]


def test_a_task_that_kills_every_worker_is_given_up_and_the_others_are_done(start: Start) -> None:
    seen = Seen()
    given_up = share_out([Job(0), Job(1, deaths=99), Job(2), Job(3)], start(2), seen)
    assert set(seen.found) == {0, 2, 3}
    assert seen.deaths == [(1, i + 1) for i in range(TRIES)]
    assert list(given_up) == [1]
    assert given_up[1] == seen.causes[-1]


def test_an_unexpected_error_costs_the_worker_and_says_where(start: Start, tmp_path: Path) -> None:
    given_up = share_out([Job(0, error="bug"), Job(1)], start(1), Watcher())
    assert given_up[0].startswith("ZeroDivisionError: division by zero (") and "jobs.py:" in given_up[0]
    assert len(set((tmp_path / "0.tries").read_text().split())) == TRIES  # a new process each time


@pytest.mark.parametrize(("error", "kind"), [("user", UserError), ("task", TaskFailure)])
def test_an_error_for_a_person_ends_everything(start: Start, error: str, kind: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(kind, match=r"no such method 'x'; name another|the disk is full"):
        share_out([Job(0, error=error), Job(1), Job(2)], start(1), Watcher())
    assert not (tmp_path / "1.tries").exists()


def test_closing_ends_workers_in_the_middle_of_their_work(start: Start, tmp_path: Path) -> None:
    crew = start(1)
    crew.give(0, Job(0, seconds=600))
    while not (tmp_path / "0.tries").exists() or not (tmp_path / "0.tries").read_text().strip():
        assert crew.wait(0.05) == []
    crew.close()
    assert gone(int((tmp_path / "0.tries").read_text()))


def test_a_signal_is_named(tmp_path: Path) -> None:
    crew, seen = Processes([Doubling(tmp_path)]), Seen()
    share_out([Job(0, deaths=1)], crew, seen)
    crew.close()
    assert seen.causes == ["killed by SIGKILL"]


def test_a_worker_that_dies_between_tasks_is_replaced_before_the_next(tmp_path: Path) -> None:
    crew = Processes([Doubling(tmp_path)])
    seen = Seen()
    share_out([Job(0)], crew, seen)
    os.kill(seen.found[0][1], signal.SIGKILL)
    assert gone(seen.found[0][1])
    share_out([Job(1)], crew, seen)
    crew.close()
    assert seen.found[1][0] == 2 and seen.found[1][1] != seen.found[0][1] and seen.deaths == []


def test_ray_is_named_where_it_is_missing_or_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'atp-eval\[sweep\]'"):
        on_ray.connect("local")


def gone(pid: int) -> bool:
    """Whether a process ends within seconds; one that nobody has waited for yet is at its end."""
    for _ in range(200):
        try:
            if f"/proc/{pid}" and Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


class Shrinking:
    """What Actors use of Ray, on a cluster whose machines can go; actors start where there is room, and do nothing."""

    def __init__(self, *cpus: int) -> None:
        self.cpus, self.killed = list(cpus), 0  # of each machine; 0 once it is gone

    def remote(self, **options: Any) -> Any:
        def kind(cls: type) -> Any:
            return SimpleNamespace(remote=lambda work: self.actor())

        return kind

    def actor(self) -> Any:
        answers = SimpleNamespace(remote=lambda task=None: object())
        return SimpleNamespace(do=answers, born=answers)

    def wait(self, ones: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return [], ones

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": count > 0, "Resources": {"CPU": float(count or 9), "memory": 1e9}} for count in self.cpus]

    def kill(self, actor: Any) -> None:
        self.killed += 1


def test_places_go_with_their_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Shrinking(2, 2)
    monkeypatch.setitem(sys.modules, "ray", ray)
    crew = on_ray.Actors([Doubling(Path())] * 3, ONE_CORE)
    assert list(crew.places()) == [0, 1, 2]
    crew.give(1, Job(1))
    ray.cpus[1] = 0
    assert list(crew.places()) == [0, 1]
    assert crew.wait(0) == []  # it has no machine yet, but there is one
    ray.cpus[0] = 0
    assert list(crew.places()) == [1]
    (ended,) = crew.wait(0)
    assert ended.place == 1 and "machine" in (ended.died or "") and ray.killed == 1
    assert list(crew.places()) == [] and crew.wait(0) == []


def test_when_no_machine_is_left_the_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", Shrinking(0))
    with pytest.raises(TaskFailure, match="no room for any worker any more"):
        share_out([Job(0)], on_ray.Actors([Doubling(Path())], ONE_CORE), Watcher())


def test_an_actor_has_room_on_one_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", Shrinking(3, 1))
    crew = on_ray.Actors([Doubling(Path())] * 2, on_ray.Resources(2, 0))
    assert list(crew.places()) == [0]  # four cores, but three on one machine and one on the other
    two_gpus = [on_ray.Resources(8, 1), on_ray.Resources(0, 1)]
    assert on_ray.room(two_gpus, on_ray.Resources(1, 1), 9) == 1
    assert on_ray.room(two_gpus, on_ray.Resources(0, 1), 9) == 2
