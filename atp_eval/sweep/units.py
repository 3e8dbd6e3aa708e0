"""What is left of a sweep in units of work, small enough to balance: some methods on a benchmark each."""

from __future__ import annotations

import math

from atp_eval.benchmarks import get_benchmark
from atp_eval.shards.together import part_of
from atp_eval.shards.units import WholeUnit, questions
from atp_eval.sweep.planning import Planned, finished

MOST = 8  # methods of a unit: a picture is encoded once for all of them, which costs as much as some of them answering
EACH = 4  # units a worker at least, so that none waits long for the last of the others


def units(planned: Planned, workers: int) -> list[WholeUnit]:
    """What is left of a plan in units, a benchmark after the other; each has about as many methods as the others, dealt
    out in turn, since neighbours cost alike."""
    folder, run = planned.run.run_folder(), planned.run
    done = finished([folder], planned.infos)
    left = {task: [method for method in run.methods if (method, task) not in done] for task in run.tasks}
    size = max(1, min(MOST, sum(map(len, left.values())) // (EACH * workers)))
    found = []
    for task, methods in left.items():
        groups = math.ceil(len(methods) / size)
        for number in range(groups):
            name, some = f"{task}-{number + 1}", methods[number::groups]
            part = part_of(run, name)
            config = run.model_copy(update={"tasks": [task], "methods": some, "output": part})
            answers = len(some) * questions(get_benchmark(task), run)
            found.append(WholeUnit(name, (task,), tuple(some), answers, part, config))
    return found
