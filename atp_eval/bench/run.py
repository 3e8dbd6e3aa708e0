"""Measure a plan's cells in rounds, each in rotating order, and keep every measurement at once: a bench that was
stopped goes on with the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import torch
from filelock import FileLock, Timeout

import atp_eval
from atp_eval.bench.machine import find_machine, machine_name, versions
from atp_eval.bench.plan import Plan
from atp_eval.bench.records import (
    BENCH,
    MEASURED,
    Bench,
    Cell,
    Measured,
    not_run_line,
    read_bench,
    round_line,
    survey_line,
)
from atp_eval.bench.stages import Clock, encode, survey, timed
from atp_eval.bench.subject import Subject, make_subject, weight_bytes
from atp_eval.bench.untrained import fitted_atp
from atp_eval.errors import TaskFailure, UserError
from atp_eval.methods import Method
from atp_eval.models import DTYPES
from atp_eval.models.llava import encoded_already
from atp_eval.writer import repair, write_atomically

NO_MEMORY = "it ran out of memory; take a smaller --batch or fewer --layers"
OTHERWISE = "start over in it with --no-resume, or name another folder with --output"


def run_bench(
    plan: Plan,
    output: Path,
    *,
    resume: bool = True,
    say: Callable[[str], None] = lambda what: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Measure whatever the folder lacks; its path.

    resume: go on with what it holds; else start over. say: told what is being done. progress: runs done, of how many.

    Raises UserError where the folder holds another bench or one of another machine, other libraries or weights, another
    process writes it, or it cannot be written; TaskFailure where no cell could be measured.
    """
    with ExitStack() as stack:
        try:
            output.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(output / ".lock", timeout=0))
        except Timeout:
            raise UserError(f"{output} is in use by another process; wait for it, or name another --output") from None
        except OSError as error:
            raise UserError(f"cannot write to {output}: {error.strerror}; name another folder with --output") from None
        if not resume:
            for name in (BENCH, MEASURED):
                (output / name).unlink(missing_ok=True)
        known = _known(plan, output)
        if known and not _missing(plan, known[1]):
            return output
        say(f"Making {plan.sentence()}")
        subject = make_subject(plan)
        if known:
            if subject.weights != known[0].weights:
                raise UserError(f"{output} was measured with other weights of {plan.settings.model}; {OTHERWISE}")
            if (output / MEASURED).exists():
                repair(output / MEASURED)
        else:
            (output / MEASURED).unlink(missing_ok=True)  # rows of nobody knows what
            say("Measuring the machine")
            manifest = _manifest(plan, subject)
            with disk(output):
                write_atomically(output / BENCH, manifest.model_dump_json(indent=1) + "\n")
            known = read_bench(output)
        with torch.inference_mode():
            Rounds(plan, subject, known[1], output / MEASURED, say, progress).run()
        say("Measuring the machine again")
        _look_again(plan, known[0], output)
    found = read_bench(output)[1]
    if not any(measured.rounds for measured in found):
        raise TaskFailure(f"nothing could be measured: {found[0].not_run}")
    return output


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """Inside the block, what the disk refuses is a UserError that says what to do."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror}. What was measured is kept; make room and run the same "
            "command again"
        ) from None


def _known(plan: Plan, output: Path) -> tuple[Bench, list[Measured]] | None:
    """What the folder holds of this plan; None where it is new. Raises UserError for another bench."""
    if not (output / BENCH).exists():
        return None
    bench, found = read_bench(output)
    here, there = plan.settings.model_dump(), bench.settings.model_dump()
    if differs := [key for key in here if here[key] != there[key]]:
        raise UserError(f"{output} holds a bench of other settings ({', '.join(differs)} differ); {OTHERWISE}")
    machine = machine_name(plan.device)
    if machine != bench.machine.device:
        raise UserError(f"{output} was measured on {bench.machine.device}, this is {machine}; {OTHERWISE}")
    old = {"atp-eval": bench.atp_eval, **bench.machine.versions}
    new = {"atp-eval": atp_eval.__version__, **versions(plan.device)}
    if differs := [name for name in {**old, **new} if old.get(name) != new.get(name)]:
        raise UserError(f"{output} was measured with another version of {', '.join(differs)}; {OTHERWISE}")
    return bench, found


def _missing(plan: Plan, known: list[Measured]) -> bool:
    """Whether any run of a cell that can run is still to be made."""
    return any(not known[place].survey or len(known[place].rounds) < plan.settings.rounds for place in plan.todo)


def _manifest(plan: Plan, subject: Subject) -> Bench:
    vision, language = weight_bytes(subject.model)
    sizes = asdict(subject.geometry)
    return Bench(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        atp_eval=atp_eval.__version__,
        settings=plan.settings,
        weights=subject.weights,
        geometry={**sizes, "place": None},
        full_layers=plan.full_layers,
        vision_bytes=vision,
        language_bytes=language,
        clock=Clock(plan.device).name,
        machine=find_machine(plan.device, DTYPES[plan.settings.dtype]),
    )


def _look_again(plan: Plan, bench: Bench, output: Path) -> None:
    """The machine's best of before and after: what else it did must not make its limits look low."""
    now = find_machine(plan.device, DTYPES[plan.settings.dtype])
    flops, bandwidth = max(now.flops, bench.machine.flops), max(now.bandwidth, bench.machine.bandwidth)
    best = bench.machine.model_copy(update={"flops": flops, "bandwidth": bandwidth})
    with disk(output):
        write_atomically(output / BENCH, bench.model_copy(update={"machine": best}).model_dump_json(indent=1) + "\n")


class Rounds:
    """The loop. Every cell is surveyed first, which warms up too; then each round measures all of them in turn."""

    def __init__(
        self,
        plan: Plan,
        subject: Subject,
        known: list[Measured],
        path: Path,
        say: Callable[[str], None],
        progress: Callable[[int, int], None],
    ) -> None:
        self.plan, self.subject, self.known, self.path = plan, subject, known, path
        self.say, self.progress = say, progress
        self.clock = Clock(subject.device)
        self.failed: set[int] = set()
        self.methods: dict[tuple[str, int, int], Method] = {}
        self.done = 0

    def run(self) -> None:
        """All that is missing, a line for each run."""
        cells, todo = self.plan.settings.cells, self.plan.todo
        for place, why in self.plan.refused.items():
            if self.known[place].not_run != why:
                self._keep(not_run_line(place, why))
        for place in todo:
            self.say(f"warming up: {cells[place]}")
            self._measure(place, None)
        for number in range(self.plan.settings.rounds):
            turn = number % len(todo)
            for place in todo[turn:] + todo[:turn]:
                if number not in self.known[place].rounds and place not in self.failed:
                    self.say(f"round {number + 1}: {cells[place]}")
                    self._measure(place, number)
                self._step()

    def _measure(self, place: int, number: int | None) -> None:
        """One run of a cell, or its survey; a cell that needs more memory than there is is left out from then on."""
        cell = self.plan.settings.cells[place]
        try:
            method = self._ready(cell)
            if number is not None:
                self._keep(round_line(place, number, timed(self.subject, method, cell, self.clock)))
                return
            found = survey(self.subject, method, cell)
            if not self.known[place].survey:
                self._keep(survey_line(place, found))
            if self.subject.device.type == "cuda":  # kernels are chosen, and memory taken, for the backend itself
                timed(self.subject, method, cell, self.clock)
        except torch.OutOfMemoryError:
            self._give_up(place)
        except RuntimeError as error:
            if "can't allocate memory" not in str(error):  # what torch says of a CPU
                raise
            self._give_up(place)
        finally:
            if number is None:
                self._step()

    def _give_up(self, place: int) -> None:
        self.failed.add(place)
        self._keep(not_run_line(place, NO_MEMORY))
        if self.subject.device.type == "cuda":
            torch.cuda.empty_cache()

    def _ready(self, cell: Cell) -> Method:
        """The model set to a cell, and its method; modules that are made up are fitted to the cell's own prompts."""
        self.subject.set_side(cell.side)
        self.subject.set_attention(cell.attention)
        way, key = self.plan.ways[cell.method, cell.side], (cell.method, cell.side, cell.batch)
        if way.stages is None:
            assert way.method is not None
            return way.method
        if key not in self.methods:
            sample = self.subject.sample(cell.side, cell.batch)
            features, states = encode(self.subject.model, sample.pixels)

            def read() -> None:
                with encoded_already(self.subject.model):
                    self.subject.model(
                        input_ids=sample.ids, attention_mask=sample.mask, pixel_values=features, logits_to_keep=1
                    )

            given = {"sample_ids": sample.names, "vision": states}
            self.methods[key] = fitted_atp(self.subject.model, way.stages, cell.method, read, **given)
        return self.methods[key]

    def _keep(self, line: str) -> None:
        with disk(self.path.parent), self.path.open("a", encoding="utf-8") as file:
            file.write(line)

    def _step(self) -> None:
        self.done += 1
        self.progress(self.done, len(self.plan.todo) * (self.plan.settings.rounds + 1))
