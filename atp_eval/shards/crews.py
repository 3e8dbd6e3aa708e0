"""Which workers a run gets: processes or actors of a Ray cluster, one a GPU, or sharing the processor's cores."""

from __future__ import annotations

import os
from collections.abc import Sequence

from atp_eval.config import RunConfig
from atp_eval.errors import UserError
from atp_eval.shards.units import UnitWorker
from atp_eval.workers import Crew, Processes
from atp_eval.workers.on_ray import Actors, Resources, Where, connect, room


def processes(run: RunConfig, workers: int) -> Crew:
    """So many processes of this machine. Raises UserError for more than there are GPUs, if those are used."""
    import torch

    gpus = torch.cuda.device_count() if run.device in ("auto", "cuda") else 0
    if gpus:
        check_gpus(workers, gpus)
        return Processes([UnitWorker(f"cuda:{i}") for i in range(workers)])
    check_device(run, workers)
    return Processes([UnitWorker(threads=share(cores(), workers), processes=workers) for _ in range(workers)])


def actors(run: RunConfig, where: Where, workers: int | None) -> Crew:
    """So many actors of a Ray cluster; by default one a GPU, or without GPUs one a core. Raises UserError as
    `processes` does, and where there is no Ray or no cluster."""
    machines = connect(where)
    cpus = sum(machine.cpus for machine in machines)
    gpus = sum(machine.gpus for machine in machines) if run.device in ("auto", "cuda") else 0
    count = workers or gpus or max(1, cpus)
    if gpus:
        check_gpus(count, gpus)
        each = fitting(machines, count, Resources(1, 1))
        return Actors([UnitWorker("cuda")] * count, each)  # Ray shows an actor its own GPU only
    check_device(run, count)
    each = fitting(machines, count, Resources(share(cpus, count), 0))
    here = max(room([machine], each, count) for machine in machines) if each.cpus else -(-count // len(machines))
    return Actors([UnitWorker(threads=max(1, each.cpus), processes=here)] * count, each)


def fitting(machines: Sequence[Resources], count: int, each: Resources) -> Resources:
    """What each of so many actors takes, with so few cores that there is room for all, none if need be."""
    tries = (each._replace(cpus=cpus) for cpus in range(each.cpus, 0, -1))
    return next((one for one in tries if room(machines, one, count) == count), each._replace(cpus=0))


def check_gpus(workers: int, gpus: int) -> None:
    """Raise UserError for two models on one GPU."""
    if workers > gpus:
        raise UserError(f"--workers {workers}: there are {gpus} GPUs, for a model each; --workers {gpus} uses all")


def check_device(run: RunConfig, workers: int) -> None:
    """Raise UserError where several workers would share what `--device` names."""
    if workers > 1 and run.device not in ("auto", "cpu"):
        raise UserError(f"--device {run.device} with {workers} workers: they cannot share it; write --device auto")


def share(cores: int, workers: int) -> int:
    """Threads of each of so many workers on so many cores."""
    return max(1, cores // workers)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
