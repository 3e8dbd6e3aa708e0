"""`torchrun --nproc_per_node N -m atp_eval run ...`: every rank answers a share of the batches, and scores some."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext

import torch
from rich.console import Console
from rich.markup import escape

from atp_eval.config import RunConfig
from atp_eval.errors import TaskFailure, UserError
from atp_eval.parts import gather, lend
from atp_eval.records import MANIFEST, read_run
from atp_eval.rounds import rounds
from atp_eval.run import Finished, check_names, evaluate, load, progress_bar, start_over, told
from atp_eval.shards.asking import Asking
from atp_eval.shards.company import FOLLOWED, TOLD, Company, Lost, Told
from atp_eval.shards.crews import check_device
from atp_eval.shards.run import scoring, settle
from atp_eval.shards.together import part_of
from atp_eval.shares import Share
from atp_eval.writer import RunWriter

KEPT = "What was answered is kept; the same command goes on, with as many ranks as you like"
READY, ANSWERED, SCORE, FAILED = "ready", "answered", "score", "failed"  # what ranks tell each other


def evaluate_as_rank(config: RunConfig, company: Company, console: Console | None = None) -> Finished | None:
    """What `run.evaluate` does, by all ranks together; None for all but the first.

    Raises what it raises in the first rank, and there, or in the first that lives, TaskFailure with the name of a rank
    that died; the others end without a word.
    """
    with company.watching():
        try:
            return _evaluate(config, company, console)
        except Lost:
            raise _end(company, FOLLOWED) from None
        except Told:
            raise _end(company, TOLD) from None
        except (UserError, TaskFailure) as error:
            company.end(str(error))
            if company.rank == 0:
                raise
            raise SystemExit(1) from None  # the first rank tells it
        except BaseException as error:
            company.end(f"{type(error).__name__}: {' '.join(str(error).split())}")
            raise


def _evaluate(config: RunConfig, company: Company, console: Console | None) -> Finished | None:
    check_names(config)
    given, began, size = config, time.perf_counter(), company.place.size
    folder, first = config.run_folder(), company.rank == 0
    console = console or Console(file=sys.stderr, quiet=not first)
    config = _placed(config, company)
    with ExitStack() as stack:
        before = 0.0
        if first:
            writer = stack.enter_context(RunWriter(folder))
            before = _put_in_order(writer, config, size)
            company.tell(READY)
        config = config.model_copy(update={"resume": True})
        with console.status(f"Loading {escape(config.model)} ..."):
            bundle = load(config)
        company.hear(READY)
        with console.status("Starting lmms-eval, loading the benchmarks ..."):
            asking = Asking(config, bundle, say=_noted(company), processes=company.place.local_size)
        with progress_bar(console, asking.total) if first else nullcontext() as shown:

            def show() -> None:
                if shown:
                    shown[0].update(shown[0].task_ids[0], completed=company.answered_by_all())

            def advance(count: int) -> None:
                company.answered += count
                company.check()
                show()

            asking.answerer.progress = advance
            for names in rounds(config):
                asking.answer(names, Share(company.rank, size), part_of(config, _part(company.rank)))
            company.tell(f"{ANSWERED}/{company.rank}")
            company.wait([f"{ANSWERED}/{rank}" for rank in range(size)] if first else [], show)
        units = scoring(config, size)
        if first:
            gather(folder)
            for unit in units:
                lend(folder, unit.name, unit.cells)
            company.tell(SCORE)
        company.hear(SCORE)
        failures = []
        with console.status("Scoring ..."):
            for unit in units[company.rank :: size]:
                failures += evaluate(unit.run, Console(quiet=True), bundle=bundle, say=_noted(company)).failures
                company.check()
            company.tell(f"{FAILED}/{company.rank}", json.dumps(failures))
            if not first:
                company.end()
                return None
            company.wait_for_all()
        failures = [line for rank in range(size) for line in json.loads(company.hear(f"{FAILED}/{rank}"))]
        gather(folder)
        seconds = before + time.perf_counter() - began
        settle(writer, given, f"{size} ranks", finished=not failures, seconds=seconds)
        company.end()
    return Finished(given.run_folder(), failures)


def _put_in_order(writer: RunWriter, config: RunConfig, ranks: int) -> float:
    """Take in what an earlier run has left, and make each rank's part; the seconds that it took so far."""
    folder = writer.path
    gather(folder)
    if not config.resume:
        start_over(writer, config)
    for rank in range(ranks):
        lend(folder, _part(rank), ())
    return read_run(folder).manifest.seconds if (folder / MANIFEST).exists() else 0.0


def _placed(config: RunConfig, company: Company) -> RunConfig:
    """The settings with this rank's GPU, where there are GPUs. Raises UserError for more ranks than GPUs."""
    place, gpus = company.place, torch.cuda.device_count() if config.device in ("auto", "cuda") else 0
    if not gpus:
        check_device(config, place.local_size)
        return config
    if place.local_size > gpus:
        raise UserError(f"{place.local_size} ranks on a machine with {gpus} GPUs: write --nproc_per_node {gpus}")
    return config.model_copy(update={"device": f"cuda:{place.local}"})


def _noted(company: Company) -> Callable[[str], None]:
    """Lines for whoever waits, from any rank."""
    console = Console(file=sys.stderr)
    return lambda line: told(console, f"rank {company.rank}: {line}")


def _part(rank: int) -> str:
    return f"rank-{rank}"


def _end(company: Company, why: str) -> BaseException:
    """What ends this process after another one died, or this one was told to end: in one of the ranks, the error."""
    company.end(why)
    lost = company.who_died()
    if not company.speaks():
        return SystemExit(1)
    if lost is None:
        return TaskFailure(f"rank {company.rank} was told to end (SIGTERM). {KEPT}.")
    return TaskFailure(f"{company.named(lost.rank)} died: {lost.why.rstrip('.')}. {KEPT}.")
