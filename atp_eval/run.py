"""One evaluation: a model, some methods, some benchmarks; lmms-eval asks and scores, the run folder remembers."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import transformers
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from atp_eval import driver
from atp_eval.answering import Answerer
from atp_eval.batch_size import settled
from atp_eval.benchmarks import Benchmark, get_benchmark, whole_groups
from atp_eval.config import RunConfig
from atp_eval.engine.decode import decodable
from atp_eval.errors import TaskFailure, UserError
from atp_eval.features import feature_store
from atp_eval.manifest import make_manifest, method_info
from atp_eval.methods import Method, get_method
from atp_eval.models import Bundle, find_device, load_model
from atp_eval.parts import gather
from atp_eval.records import MANIFEST, Manifest, Result, read_run
from atp_eval.rounds import FOLDER, asker, plan_batches, rounds
from atp_eval.rows import Answer
from atp_eval.writer import RunWriter

if TYPE_CHECKING:
    from lmms_eval.api.task import Task


class Finished(NamedTuple):
    """A run folder, and one line for each benchmark and method that could not be scored."""

    folder: Path
    failures: list[str]


def plan(config: RunConfig) -> dict[str, Any]:
    """What a run would do: model, methods with their solved parameters, benchmarks, and what is done already."""
    benchmarks, specs = check_names(config)
    bundle = load(config)
    folder = config.run_folder()
    done = read_run(folder).manifest if (folder / MANIFEST).exists() else None
    return {
        "model": bundle.model_id,
        "device": str(bundle.device),
        "dtype": str(bundle.dtype).removeprefix("torch."),
        "suite": config.resolved_suite,
        "methods": {m.label: method_info(m.solve(bundle.geometry)) for m in specs},
        "benchmarks": [{"name": b.name, "task": b.task(config.resolved_suite), "metric": b.metric} for b in benchmarks],
        "limit": config.limit,
        "output": str(folder),
        "already": {"methods": list(done.methods), "benchmarks": list(done.benchmarks)} if done else None,
    }


def evaluate(
    config: RunConfig,
    console: Console | None = None,
    *,
    bundle: Bundle | None = None,
    say: Callable[[str], None] | None = None,
) -> Finished:
    """Answer and score whatever the run folder does not hold yet.

    bundle: the model of the configuration where it is loaded already. say: takes a line for whoever waits; the console
    does by default.

    Raises UserError for settings that cannot work and TaskFailure when nothing could go on (a full disk, missing
    data); a benchmark whose scoring fails is reported in `Finished.failures`, the others are finished.
    """
    console = console or Console(file=sys.stderr)  # the stream itself: lmms-eval's output is redirected meanwhile
    _, specs = check_names(config)
    began = time.perf_counter()
    if bundle is None:
        with console.status(f"Loading {escape(config.model)} ..."):
            bundle = load(config)
    for spec in specs:
        spec.solve(bundle.geometry)  # what does not fit the model is said before anything is begun
    config = settled(config, bundle, say or (lambda line: told(console, line)))
    with RunWriter(config.run_folder()) as writer:
        gather(writer.path)
        with console.status("Starting lmms-eval, loading the benchmarks ..."):
            setup = set_up(config, bundle)
        manifest = setup.manifest(writer.path)
        writer.write_manifest(manifest)
        if not config.resume:
            start_over(writer, config)
        failures: list[str] = []
        with progress_bar(console, setup.total) as (bar, advance):
            note = say or (lambda line: told(bar.console, line))
            answerer = setup.answerer(say=note, progress=advance, writer=writer)
            for names in rounds(config):
                bar.update(bar.task_ids[0], description=names[0] if len(names) == 1 else "all at once")
                answer_first(setup, answerer, names, writer.path)
                for b in (b for b in setup.benchmarks if b.name in names):
                    bar.update(bar.task_ids[0], description=b.title)
                    reasons = (score(setup, answerer, writer, b, method) for method in setup.methods)
                    failures += [reason for reason in reasons if reason is not None]
        seconds = manifest.seconds + time.perf_counter() - began
        writer.write_manifest(manifest.model_copy(update={"finished": not failures, "seconds": seconds}))
    return Finished(config.run_folder(), failures)


def told(console: Console, line: str) -> None:
    """A line for whoever waits."""
    console.print(f"[yellow]note[/yellow] {escape(line)}", highlight=False)


def answer_first(setup: Setup, answerer: Answerer, benchmarks: Sequence[str], folder: Path) -> None:
    """Answer a round's questions before lmms-eval asks any of them; it then finds them answered. What goes wrong is
    left for the benchmark's turn to name."""
    try:
        with driver.quiet():
            setup.answer(answerer, benchmarks, folder)
    except TaskFailure:  # a full disk
        raise
    except Exception:  # raised again, with the benchmark's name
        return


def score(setup: Setup, answerer: Answerer, writer: RunWriter, benchmark: Benchmark, method: str) -> str | None:
    """Have lmms-eval ask what is not answered yet, and score a method's answers; why it could not, if so.

    Raises TaskFailure when the disk is full.
    """
    from atp_eval.backend import Answering

    try:
        found = driver.evaluate(
            Answering(answerer, method),
            benchmark,
            setup.tasks[benchmark.name],
            limit=setup.limits[benchmark.name],
            seed=setup.config.seed,
            output=writer.folder(method, benchmark.name),
        )
    except TaskFailure as failure:
        if writer.broken:
            raise
        return str(failure)
    answers = answerer.kept.answers(method, benchmark.name)
    scored = [answers[i] for i in found.samples]
    writer.finish(make_result(setup.config, benchmark, method, found, scored), found.samples)
    return None


class Setup(NamedTuple):
    """What every process of a run needs before it asks: solved methods by label, and the benchmarks with their tasks
    and limits by name."""

    config: RunConfig
    bundle: Bundle
    methods: dict[str, Method]
    benchmarks: list[Benchmark]
    tasks: dict[str, Task]
    limits: dict[str, int | None]

    @property
    def total(self) -> int:
        """Answers of all methods to all questions."""
        return len(self.methods) * sum(driver.documents(self.tasks[name], limit) for name, limit in self.limits.items())

    def answerer(
        self, *, say: Callable[[str], None], progress: Callable[[int], None], writer: RunWriter | None = None
    ) -> Answerer:
        """What answers, as the settings say."""
        config = self.config
        return Answerer(
            self.bundle,
            self.methods,
            batch_size=int(config.batch_size),
            share_pictures=config.share_pictures,
            decode=None if config.decode == "plain" else config.decode,
            loaders=config.loaders,
            store=feature_store(config, self.bundle, say),
            writer=writer,
            keep_images=config.keep_images,
            say=say,
            progress=progress,
        )

    def answer(self, answerer: Answerer, benchmarks: Sequence[str], folder: Path) -> None:
        """Answer a round (`rounds`), in batches that are kept in a run folder, if anything of it is missing."""
        from atp_eval.backend import Answering
        from atp_eval.questions import Questions

        view = Answering(answerer, next(iter(self.methods)))
        questions = {name: Questions(view, self.tasks[name], self.limits[name]) for name in benchmarks}
        done = {name: [answerer.documents(method, name) for method in self.methods] for name in benchmarks}
        if answerer.share.number == 0:  # what is there already is there for all shares
            answerer.progress(sum(len(found) for some in done.values() for found in some))
        missing = {n: [i for i in range(len(questions[n])) if any(i not in f for f in done[n])] for n in benchmarks}
        if not any(missing.values()):
            return
        data = [driver.task_hash(self.tasks[name]) for name in benchmarks]
        planned = plan_batches(folder, questions, missing, answerer.batch_size, data)
        answerer.answer_batches(planned, asker(questions))

    def manifest(self, folder: Path) -> Manifest:
        """The manifest, with what `folder` holds already. Raises UserError for another protocol's."""
        return make_manifest(self.config, self.bundle, self.methods, self.benchmarks, self.tasks, folder)


def set_up(config: RunConfig, bundle: Bundle) -> Setup:
    """Solve the methods for the model and load the benchmarks. Raises UserError and TaskFailure as `evaluate` does."""
    benchmarks, specs = check_names(config)
    methods = {spec.label: spec.solve(bundle.geometry) for spec in specs}
    tasks = driver.load_tasks(benchmarks, config.resolved_suite)
    limits = {b.name: whole_groups(b, config.limit) for b in benchmarks}
    return Setup(config, bundle, methods, benchmarks, tasks, limits)


def start_over(writer: RunWriter, config: RunConfig) -> None:
    """Forget what an earlier run has answered, and its batches, as --no-resume asks."""
    benchmarks, specs = check_names(config)
    shutil.rmtree(writer.path / FOLDER, ignore_errors=True)
    for method in specs:
        for b in benchmarks:
            writer.forget(method.label, b.name)


def make_result(
    config: RunConfig, benchmark: Benchmark, method: str, found: driver.Scored, answers: Sequence[Answer]
) -> Result:
    """A method's score on a benchmark, as results.json keeps it; `answers` are those to the scored documents."""
    return Result(
        method=method,
        benchmark=benchmark.name,
        task=benchmark.task(config.resolved_suite),
        metric=benchmark.metric,
        score=found.score,
        scale=benchmark.scale_of(config.resolved_suite),
        samples=len(answers),
        errors=sum(a.error is not None for a in answers),
        invalid=sum(a.invalid for a in answers),
        metrics=found.metrics,
    )


def check_names(config: RunConfig) -> tuple[list[Benchmark], list[Method]]:
    """Benchmarks and methods by name, each once; a wrong name is found before anything heavy is loaded."""
    benchmarks = [get_benchmark(name) for name in dict.fromkeys(config.tasks)]
    for b in benchmarks:
        b.task(config.resolved_suite)
    methods = [get_method(spec) for spec in dict.fromkeys(config.methods)]
    for m in methods:
        if "asked" in m.needs and config.resolved_suite != "mini":
            raise UserError(
                f"{m.label} reads where in the picture the answer lies, which only the embedded suite knows; "
                "leave it out, or add --suite mini"
            )
    return benchmarks, methods


def load(config: RunConfig) -> Bundle:
    """The model of a configuration; transformers' own bar would tear the status line."""
    transformers.utils.logging.disable_progress_bar()
    device = find_device(config.device)
    if config.decode == "graph" and device.type != "cuda":
        raise UserError(f"--decode graph records CUDA graphs, and the device is {device}; leave it out, or use a GPU")
    if config.decode != "plain" and config.attention != "sdpa":
        raise UserError(f"--decode {config.decode} takes attention sdpa, not {config.attention}")
    bundle = load_model(
        config.model,
        device=config.device,
        dtype=config.dtype,
        attention=config.attention,
        image=config.image,
        prompt=config.prompt,
    )
    if config.decode != "plain" and not decodable(bundle.model):
        raise UserError(f"--decode {config.decode} does not know how to decode {config.model}; leave it out")
    return bundle


@contextmanager
def progress_bar(console: Console, total: int) -> Iterator[tuple[Progress, Any]]:
    """A bar over (question, method) pairs, and the function that moves it."""
    columns = (
        TextColumn("[bold]{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("answers"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as bar:
        bar.add_task("", total=total)
        yield bar, lambda count: bar.advance(bar.task_ids[0], count)
