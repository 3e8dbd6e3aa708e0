"""Driving lmms-eval from Python: load its tasks, let it ask, score and aggregate, and keep it quiet meanwhile."""

from __future__ import annotations

import argparse
import hashlib
import logging
import math
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from atp_eval import task_files
from atp_eval.benchmarks import Benchmark, Suite, sample_score
from atp_eval.errors import TaskFailure
from atp_eval.records import one_line

if TYPE_CHECKING:
    from lmms_eval.api.task import Task

    from atp_eval.backend import Answering


class Scored(NamedTuple):
    """What lmms-eval made of one method's answers.

    score: the headline metric in its unit. metrics: every finite number. samples: score in [0, 1] by document.
    """

    score: float
    metrics: dict[str, float]
    samples: dict[int, float]


@contextmanager
def quiet() -> Iterator[None]:
    """Send what lmms-eval prints to nowhere: its bars and tables would tear ours, and its errors are raised anyway."""
    with ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(redirect_stdout(nowhere))
        stack.enter_context(redirect_stderr(nowhere))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        import lmms_eval.models  # noqa: F401 -- adds a sink on standard output at import, removed below
        from loguru import logger

        logger.remove()
        logging.getLogger("lmms-eval").setLevel(logging.ERROR)
        yield


def load_tasks(benchmarks: list[Benchmark], suite: Suite) -> dict[str, Task]:
    """lmms-eval's task objects by our benchmark name, their data loaded. Raises TaskFailure that names the task."""
    with quiet():
        from lmms_eval.tasks import TaskManager, get_task_dict

        manager = TaskManager(include_path=str(task_files.task_folder(suite)), include_defaults=False)
        tasks = {}
        for benchmark in benchmarks:
            name = benchmark.task(suite)
            try:
                tasks[benchmark.name] = get_task_dict([name], manager, "simple")[name]
            except Exception as error:  # datasets and hub errors of many kinds
                raise TaskFailure(
                    f"cannot load {benchmark.name} ({name}): {one_line(error)}. "
                    f"Its data is {benchmark.dataset} on the hub; docs/real-models.md says how to get it."
                ) from error
            if documents(tasks[benchmark.name], None) == 0:
                raise TaskFailure(f"{benchmark.name} ({name}) has no documents; look at its data.")
    return tasks


def documents(task: Task, limit: int | None) -> int:
    """How many documents a run will ask about."""
    found = len(task.eval_docs_no_media)
    return min(found, limit) if limit else found


def task_hash(task: Task) -> str:
    """A hash of a task's configuration, its number of documents and the text of three; not of where its files lie."""
    docs = task.eval_docs_no_media
    config = {k: v for k, v in task.dump_config().items() if k not in ("dataset_kwargs", "dataset_path")}
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(sorted(config.items(), key=lambda item: item[0])))
    state = [text, len(docs)]
    digest = hashlib.sha256(repr(state).encode())
    for i in {0, len(docs) // 2, len(docs) - 1}:
        digest.update(repr(sorted(dict(docs[i]).items())).encode())
    return digest.hexdigest()[:16]


@contextmanager
def listening(benchmark: Benchmark, task: Task) -> Iterator[list[float | None]]:
    """The score in [0, 1] of each document that the task scores inside the block, in their order; None for none."""
    heard: list[float | None] = []
    process = task.process_results

    def listened(doc: Any, results: Any, **options: Any) -> Any:
        metrics = process(doc, results, **options)
        heard.append(sample_score(benchmark, metrics))
        return metrics

    task.process_results = listened
    try:
        yield heard
    finally:
        del task.process_results


def evaluate(
    view: Answering, benchmark: Benchmark, task: Task, *, limit: int | None, seed: int, output: Path
) -> Scored:
    """Ask, score and aggregate one benchmark with one method; lmms-eval's submission files go to `output`.

    Raises TaskFailure when answering or lmms-eval's scoring fails, or no document counts for the headline metric.
    """
    with quiet(), listening(benchmark, task) as heard:
        from lmms_eval.evaluator import simple_evaluate

        try:
            found = simple_evaluate(
                model=view,
                tasks=[task],
                task_manager=argparse.Namespace(),
                limit=limit,
                log_samples=False,  # half of its time, and kilobytes a sample in memory: `listening` has the scores
                bootstrap_iters=0,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                process_docs_parallel=1,
                cli_args=argparse.Namespace(output_path=str(output), process_with_media=False, reasoning_tags=None),
            )
        except (TaskFailure, KeyboardInterrupt):
            raise
        except Exception as error:  # scoring code of many tasks, wrapped in RetryError
            reason = error.__cause__ or error
            raise TaskFailure(
                f"{benchmark.name} with {view.method} failed: {type(reason).__name__}: {one_line(reason)}. "
                "What was answered is kept; the same command goes on from there."
            ) from error
    (metrics,) = found["results"].values()
    numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    numbers = {k: v for k, v in numbers.items() if math.isfinite(v)}  # a spread of one sample, say, is none
    headline = f"{benchmark.metric},{benchmark.filter}"
    if headline not in numbers:
        raise TaskFailure(
            f"{benchmark.name} with {view.method}: none of the documents asked counts for {benchmark.metric}. "
            "The answers are kept; raise --limit, or leave it out."
        )
    asked = documents(task, limit)
    scores = dict(zip(range(asked), heard[-asked:], strict=True))  # the last filter's, where there are several
    return Scored(numbers[headline], numbers, {i: s for i, s in scores.items() if s is not None})
