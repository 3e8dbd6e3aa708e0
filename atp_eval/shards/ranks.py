"""`torchrun --nproc_per_node N -m atp_eval run ...`: every rank answers a share of the batches, the first scores."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

import torch
from rich.console import Console
from rich.markup import escape

from atp_eval.config import RunConfig
from atp_eval.errors import TaskFailure, UserError
from atp_eval.parts import gather, lend
from atp_eval.records import MANIFEST, read_run
from atp_eval.run import Finished, check_names, evaluate, load, progress_bar, start_over
from atp_eval.shards.asking import Asking
from atp_eval.shards.company import Company, Lost, Told
from atp_eval.shards.crews import check_device
from atp_eval.shards.run import settle
from atp_eval.shards.together import part_of
from atp_eval.shares import Share
from atp_eval.writer import RunWriter

KEPT = "What was answered is kept; the same command goes on, with as many ranks as you like"
READY = "ready"  # told by the first rank once the folder is in order


def evaluate_as_rank(config: RunConfig, company: Company, console: Console | None = None) -> Finished | None:
    """What `run.evaluate` does, by all ranks together; None for all but the first, which has scored.

    Raises what it raises in the first rank, and there, or in the first that lives, TaskFailure with the name of a rank
    that died; the others end without a word.
    """
    with company.watching():
        try:
            return _evaluate(config, company, console)
        except Lost as lost:
            raise _end(company, lost) from None
        except Told:
            raise _end(company, company.who_died()) from None
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
    here, began = _placed(config, company), time.perf_counter()
    folder, first = config.run_folder(), company.rank == 0
    console = console or Console(file=sys.stderr, quiet=not first)
    with ExitStack() as stack:
        before = 0.0
        if first:
            before = _put_in_order(stack.enter_context(RunWriter(folder)), config, company)
            company.tell(READY)
        with console.status(f"Loading {escape(config.model)} ..."):
            bundle = load(here)
        company.wait([READY])
        with console.status("Starting lmms-eval, loading the benchmarks ..."):
            asking = Asking(here, bundle, say=_noted(company))
        with progress_bar(console, asking.total) as (bar, _):

            def show() -> None:
                bar.update(bar.task_ids[0], completed=company.answered_by_all())

            def advance(count: int) -> None:
                company.answered += count
                company.check()
                show()

            asking.answerer.progress = advance
            for benchmark in asking.benchmarks:
                asking.answer(benchmark, Share(company.rank, company.place.size), part_of(config, _part(company.rank)))
            if not first:
                company.end()
                return None
            company.wait_for_all(show)
        gather(folder)
    done = evaluate(here.model_copy(update={"resume": True}), console, bundle=bundle)
    with RunWriter(folder) as writer:
        seconds = before + time.perf_counter() - began
        settle(writer, config, f"{company.place.size} ranks", finished=not done.failures, seconds=seconds)
    return done


def _put_in_order(writer: RunWriter, config: RunConfig, company: Company) -> float:
    """Take in what an earlier run has left, and make each rank's part; the seconds that it took so far."""
    folder = writer.path
    gather(folder)
    if not config.resume:
        start_over(writer, config)
    for rank in range(company.place.size):
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

    def say(line: str) -> None:
        Console(file=sys.stderr).print(f"[yellow]note[/yellow] rank {company.rank}: {escape(line)}", highlight=False)

    return say


def _part(rank: int) -> str:
    return f"rank-{rank}"


def _end(company: Company, lost: Lost | None) -> BaseException:
    """What ends this process: the error, in the rank that tells it."""
    company.end("ended since another rank died")
    if lost is None:
        return TaskFailure(f"rank {company.rank} was told to end (SIGTERM). {KEPT}.")
    if not company.speaks():
        return SystemExit(1)
    return TaskFailure(f"{company.named(lost.rank)} died: {lost.why.rstrip('.')}. {KEPT}.")
