"""Units of a run, shared out over workers that may be killed, and a person who waits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import NamedTuple, cast

from rich.console import Console

from atp_eval.config import RunConfig
from atp_eval.errors import UserError
from atp_eval.parts import PARTS, gather
from atp_eval.shards.crews import actors, processes
from atp_eval.shards.units import Unit
from atp_eval.shards.watch import Display
from atp_eval.workers import TRIES, Crew, share_out
from atp_eval.workers.on_ray import Where


class Workers(NamedTuple):
    """How many workers, and on which Ray cluster: none, one of this machine, or the one that runs."""

    number: int | None = None
    ray: Where | None = None

    @classmethod
    def of(cls, number: int | None, ray: str | None) -> Workers | None:
        """What --workers and --ray say; None where neither is given. Raises UserError for another --ray."""
        if ray not in (None, "local", "auto"):
            raise UserError(
                f"--ray {ray}: write --ray local, a cluster of this machine, or --ray auto, the one that runs"
            )
        return cls(number, cast("Where | None", ray)) if number or ray else None

    def __str__(self) -> str:
        many = "" if self.number is None else f"{self.number} "
        return f"{many}processes" if self.ray is None else f"{many}Ray actors"


@contextmanager
def crew_of(workers: Workers, config: RunConfig) -> Iterator[Crew]:
    """Workers for a run whose folder this process holds; in the end they are gone, and what they wrote is in it.

    Raises UserError for workers that cannot be.
    """
    if workers.ray is None:
        crew = processes(config, workers.number or 1)
    else:
        crew = actors(config, workers.ray, workers.number)
    try:
        yield crew
    finally:
        crew.close()
        gather(config.run_folder().resolve())


class Worked(NamedTuple):
    """failures: a line for each, a unit of which every worker died among them. given_up: those units."""

    failures: list[str]
    given_up: list[Unit]


def work_through(
    units: Sequence[Unit], crew: Crew, console: Console, back: Callable[[Unit], None] = lambda unit: None
) -> Worked:
    """Have all units done; `back` is called with each that is.

    Raises what a worker raised that ends all (a full disk, missing data).
    """
    # Ray tells standard output of every worker that died, in many words; the display says it in few.
    with (
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        Display(console, units, crew.size, back) as display,
    ):
        given_up = share_out(units, crew, display, tries=TRIES)
    lines = [
        f"{units[number].said} failed: {TRIES} workers died of it, the last: {why}. What was answered is kept; "
        "if memory is short, fewer workers need less"
        for number, why in given_up.items()
    ]
    return Worked([*display.failures, *lines], [units[number] for number in given_up])


def part_of(config: RunConfig, name: str) -> Path:
    """The part of a run's folder that a unit fills; absolute, since workers may run elsewhere."""
    return config.run_folder().resolve() / PARTS / name
