"""Answer what a sweep lacks with several workers at once."""

from __future__ import annotations

from rich.console import Console

from atp_eval.parts import lend, take_back
from atp_eval.shards.together import Workers, crew_of, work_through
from atp_eval.shards.units import Unit
from atp_eval.sweep.planning import Planned
from atp_eval.sweep.units import units


def answer_together(planned: Planned, workers: Workers, console: Console) -> list[str]:
    """Have workers answer; they fill the plan's run folder, which this process has to hold, through parts of it. One
    line for each failure, a unit of which every worker died among them.

    Raises UserError for workers that cannot be, and what a worker raised that ends all (a full disk, missing data).
    """
    if not planned.open_tasks:
        return []
    folder = planned.run.run_folder().resolve()

    def back(unit: Unit) -> None:
        take_back(folder, unit.part)

    with crew_of(workers, planned.run) as crew:
        work = units(planned, crew.size)
        for unit in work:
            lend(folder, unit.name, unit.cells)
        return work_through(work, crew, console, back).failures
