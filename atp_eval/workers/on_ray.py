"""Workers as actors of a Ray cluster, of this machine or one that is running (https://docs.ray.io)."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from atp_eval.errors import TaskFailure, UserError
from atp_eval.workers.crew import Ended, Work
from atp_eval.workers.processes import crash

Where = Literal["local", "auto"]
STORE = 100 * 2**20  # bytes; tasks and what they return are small, and a container's /dev/shm often is too


class Resources(NamedTuple):
    """Whole cores and GPUs that a machine has, or an actor takes."""

    cpus: int
    gpus: int


class _Actor:
    """A worker. What it raises for a person travels as a value, since Ray would wrap it."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def born(self) -> None:
        """Tells that there is one."""

    def do(self, task: Any) -> tuple[Any, Exception | None, str | None]:
        """What the work returned; a UserError or TaskFailure; or another error, after which a new actor goes on."""
        try:
            return self.work(task), None, None
        except (UserError, TaskFailure) as error:
            return None, error, None
        except Exception as error:
            return None, None, crash(error)


def connect(where: Where, cpus: int | None = None) -> list[Resources]:
    """Start a cluster on this machine (`local`, with `cpus` cores, all by default), or join the one that runs
    (`auto`); what each of its machines has.

    Ray reports nothing to anybody, opens no dashboard, and a local cluster listens on this machine only. Raises
    UserError where Ray is not installed, or no cluster runs.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise UserError(
            "--ray needs Ray, which is not installed: pip install 'atp-eval[sweep]'. --workers does without"
        ) from None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if where == "local":
        ray.init(
            address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=STORE,
            _node_ip_address="127.0.0.1", **quiet,
        )  # fmt: skip
    else:
        try:
            ray.init(address="auto", **quiet)
        except ConnectionError:
            raise UserError(
                "--ray auto: no Ray cluster runs here, or it lets nobody in without its token (RAY_AUTH_MODE=token); "
                "start one with `ray start --head`, or use --ray local"
            ) from None
    return machines_of(ray)


def machines_of(ray: Any) -> list[Resources]:
    """What each machine has that is there by now."""
    found = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return [Resources(int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in found]


def room(machines: Sequence[Resources], each: Resources, most: int) -> int:
    """How many actors the machines have room for, `most` at most; an actor lies on one of them."""
    counts = (
        min((has // takes for has, takes in zip(machine, each, strict=True) if takes), default=most)
        for machine in machines
    )
    return min(most, sum(counts))


class Actors:
    """An actor for each of `works`, with cores and GPUs of its own. Call `connect` first."""

    def __init__(self, works: Sequence[Work], each: Resources) -> None:
        import ray

        self._ray = ray
        self._kind = ray.remote(num_cpus=each.cpus, num_gpus=each.gpus, max_restarts=0)(_Actor)
        self._works, self._each = list(works), each
        self._actors: dict[int, Any] = {}
        self._unborn: dict[int, Any] = {}  # by place, what is told when the actor has started
        self._busy: dict[Any, int] = {}

    @property
    def size(self) -> int:
        """How many actors there are at most."""
        return len(self._works)

    def places(self) -> Sequence[int]:
        """Those with an actor, and as many empty ones as the cluster has room for by now."""
        empty = [place for place in range(self.size) if place not in self._actors]
        return sorted([*self._actors, *empty[: max(0, self._room() - len(self._actors))]] if empty else self._actors)

    def give(self, place: int, task: Any) -> None:
        """Start a task; see `Crew`."""
        if place not in self._actors:
            self._actors[place] = self._kind.remote(self._works[place])
            self._unborn[place] = self._actors[place].born.remote()
        self._busy[self._actors[place].do.remote(task)] = place

    def wait(self, seconds: float) -> list[Ended]:
        """What has ended; see `Crew`."""
        ready, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=seconds)
        return [self._hear(self._busy.pop(one), one) for one in ready] or self._never_born()

    def _never_born(self) -> list[Ended]:
        """Of actors that wait for a machine, those for which there is none any more: Ray would let them wait."""
        if not self._unborn:
            return []
        born, _ = self._ray.wait(list(self._unborn.values()), num_returns=len(self._unborn), timeout=0)
        self._unborn = {place: one for place, one in self._unborn.items() if one not in born}
        if not self._unborn or self._room() >= len(self._actors):
            return []
        place = next(iter(self._unborn))
        self._busy = {one: busy for one, busy in self._busy.items() if busy != place}
        self._end(place)
        return [Ended(place, died="the machine on which it was to start is gone")]

    def _room(self) -> int:
        """How many actors the machines of the cluster have room for."""
        return room(machines_of(self._ray), self._each, self.size)

    def _end(self, place: int) -> None:
        self._unborn.pop(place, None)
        self._ray.kill(self._actors.pop(place))

    def _hear(self, place: int, one: Any) -> Ended:
        """What an actor says, or that it no longer can."""
        try:
            found, error, died = self._ray.get(one)
        except self._ray.exceptions.RayError as gone:
            found, error, died = None, None, _cause(gone)
        if died is None:
            return Ended(place, found, error)
        self._end(place)
        return Ended(place, died=died)

    def close(self) -> None:
        """End all actors, and a cluster that `connect` started; one that ran before goes on."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()
        self._busy.clear()
        self._ray.shutdown()


def _cause(gone: BaseException) -> str:
    """Why an actor is no more, in one of the many lines that Ray has to say: of one that could not start the last."""
    first, *more = [line.strip() for line in str(gone).splitlines() if line.strip()] or ["no reason given"]
    return more[-1] if more and "creation task" in first else f"{type(gone).__name__}: {first}"
