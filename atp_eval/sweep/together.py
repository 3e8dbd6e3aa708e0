"""Answer what a sweep lacks with several workers at once."""

from __future__ import annotations

import os
from contextlib import redirect_stdout
from typing import NamedTuple

from rich.console import Console

from atp_eval.sweep.crews import Where, actors, processes
from atp_eval.sweep.parts import PARTS, gather, lend, take_back
from atp_eval.sweep.planning import Planned
from atp_eval.sweep.units import Unit, units
from atp_eval.sweep.watch import Display
from atp_eval.workers import TRIES, share_out


class Workers(NamedTuple):
    """How many workers, and on which Ray cluster: none, one of this machine, or the one that runs."""

    number: int | None = None
    ray: Where | None = None

    def __str__(self) -> str:
        many = "" if self.number is None else f"{self.number} "
        return f"{many}processes" if self.ray is None else f"{many}Ray actors"


def answer_together(planned: Planned, workers: Workers, console: Console) -> list[str]:
    """Have workers answer; they fill the plan's run folder, which this process has to hold, through parts of it. One
    line for each failure, a unit of which every worker died among them.

    Raises UserError for workers that cannot be, and what a worker raised that ends all (a full disk, missing data).
    """
    folder = planned.run.run_folder().resolve()
    if not planned.open_tasks:
        return []
    if workers.ray is None:
        crew = processes(planned.run, workers.number or 1)
    else:
        crew = actors(planned.run, workers.ray, workers.number)

    def back(unit: Unit) -> None:
        take_back(folder, unit.run.run_folder())

    try:
        work = units(planned, folder / PARTS, crew.size)
        for unit in work:
            lend(folder, unit.name, unit.cells)
        # Ray tells standard output of every worker that died, in many words; the display says it in few.
        with (
            open(os.devnull, "w") as nowhere,
            redirect_stdout(nowhere),
            Display(console, work, crew.size, back) as display,
        ):
            given_up = share_out(work, crew, display, tries=TRIES)
    finally:
        crew.close()
        gather(folder)
    return display.failures + [
        f"{work[number].said} failed: {TRIES} workers died of it, the last: {why}. What was answered is kept; "
        "if memory is short, fewer workers need less"
        for number, why in given_up.items()
    ]
