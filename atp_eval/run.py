"""One evaluation: a model, some methods, some benchmarks; lmms-eval asks and scores, the run folder remembers."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import transformers
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import atp_eval
from atp_eval.benchmarks import Benchmark, get_benchmark, whole_groups
from atp_eval.config import RunConfig
from atp_eval.errors import TaskFailure, UserError
from atp_eval.methods import Method, get_method
from atp_eval.models import Bundle, load_model
from atp_eval.records import MANIFEST, BenchmarkInfo, Manifest, Result, read_run
from atp_eval.writer import RunWriter

if TYPE_CHECKING:
    from lmms_eval.api.task import Task

PACKAGES = ("lmms-eval", "torch", "transformers", "datasets", "numpy", "pillow")


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


def evaluate(config: RunConfig, console: Console | None = None) -> Finished:
    """Answer and score whatever the run folder does not hold yet.

    Raises UserError for settings that cannot work and TaskFailure when nothing could go on (a full disk, missing
    data); a benchmark whose scoring fails is reported in `Finished.failures`, the others are finished.
    """
    console = console or Console(file=sys.stderr)  # the stream itself: lmms-eval's output is redirected meanwhile
    benchmarks, specs = check_names(config)
    began = time.perf_counter()
    with console.status(f"Loading {escape(config.model)} ..."):
        bundle = load(config)
    methods = {spec.label: spec.solve(bundle.geometry) for spec in specs}
    with RunWriter(config.run_folder()) as writer:
        with console.status("Starting lmms-eval, loading the benchmarks ..."):
            from atp_eval import driver
            from atp_eval.answering import Answerer
            from atp_eval.backend import Answering

            tasks = driver.load_tasks(benchmarks, config.resolved_suite)
        limits = {b.name: whole_groups(b, config.limit) for b in benchmarks}
        manifest = make_manifest(config, bundle, methods, benchmarks, tasks, writer.path)
        writer.write_manifest(manifest)
        if not config.resume:
            for m in methods:
                for b in benchmarks:
                    writer.forget(m, b.name)
        failures: list[str] = []
        total = len(methods) * sum(driver.documents(tasks[b.name], limits[b.name]) for b in benchmarks)
        with progress_bar(console, total) as (bar, advance):
            answerer = Answerer(
                bundle,
                methods,
                batch_size=config.batch_size,
                writer=writer,
                keep_images=config.keep_images,
                say=lambda line: bar.console.print(f"[yellow]note[/yellow] {escape(line)}", highlight=False),
                progress=advance,
            )
            for b in benchmarks:
                bar.update(bar.task_ids[0], description=b.title)
                for method in methods:
                    try:
                        found = driver.evaluate(
                            Answering(answerer, method),
                            b,
                            tasks[b.name],
                            limit=limits[b.name],
                            seed=config.seed,
                            output=writer.folder(method, b.name),
                        )
                    except TaskFailure as failure:
                        if writer.broken:
                            raise
                        failures.append(str(failure))
                        continue
                    records = [answerer.recorded(method, b.name)[i] for i in found.samples]
                    writer.finish(
                        Result(
                            method=method,
                            benchmark=b.name,
                            task=b.task(config.resolved_suite),
                            metric=b.metric,
                            score=found.score,
                            scale=b.scale_of(config.resolved_suite),
                            samples=len(records),
                            errors=sum(r.error is not None for r in records),
                            invalid=sum(r.invalid for r in records),
                            metrics=found.metrics,
                        ),
                        found.samples,
                    )
        seconds = manifest.seconds + time.perf_counter() - began
        writer.write_manifest(manifest.model_copy(update={"finished": not failures, "seconds": seconds}))
    return Finished(config.run_folder(), failures)


def check_names(config: RunConfig) -> tuple[list[Benchmark], list[Method]]:
    """Benchmarks and methods by name, each once; a wrong name is found before anything heavy is loaded."""
    benchmarks = [get_benchmark(name) for name in dict.fromkeys(config.tasks)]
    for b in benchmarks:
        b.task(config.resolved_suite)
    return benchmarks, [get_method(spec) for spec in dict.fromkeys(config.methods)]


def load(config: RunConfig) -> Bundle:
    """The model of a configuration; transformers' own bar would tear the status line."""
    transformers.utils.logging.disable_progress_bar()
    return load_model(
        config.model,
        device=config.device,
        dtype=config.dtype,
        attention=config.attention,
        image=config.image,
        prompt=config.prompt,
    )


def method_info(method: Method) -> dict[str, Any]:
    """A solved method for people and for the manifest."""
    return {"solved": str(method), "prune_layers": list(method.prune_layers)}


def make_manifest(
    config: RunConfig,
    bundle: Bundle,
    methods: dict[str, Method],
    benchmarks: list[Benchmark],
    tasks: dict[str, Task],
    folder: Path,
) -> Manifest:
    """The manifest of a run, together with what the folder holds already.

    Raises UserError when the folder was made under another protocol, and names what differs.
    """
    from atp_eval import driver

    protocol = {
        **config.protocol_options(),
        "model": bundle.model_id,
        "weights": bundle.weight_hash,
        "dtype": str(bundle.dtype).removeprefix("torch."),
    }
    infos = {
        b.name: BenchmarkInfo(
            task=b.task(config.resolved_suite),
            hash=driver.task_hash(tasks[b.name]),
            documents=driver.documents(tasks[b.name], whole_groups(b, config.limit)),
            metric=b.metric,
            scale=b.scale_of(config.resolved_suite),
            aggregation=b.aggregation,
        )
        for b in benchmarks
    }
    manifest = Manifest(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        atp_eval=atp_eval.__version__,
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
        model={"id": bundle.model_id, "weights": bundle.weight_hash, "geometry": asdict(bundle.geometry)},
        protocol=protocol,
        config=config.model_dump(mode="json"),
        benchmarks=infos,
        methods={label: method_info(m) for label, m in methods.items()},
        device=device_name(bundle),
        git_commit=git_commit(),
    )
    if not (folder / MANIFEST).exists():
        return manifest
    old = read_run(folder).manifest
    changed = [k for k in protocol if old.protocol.get(k) != protocol[k]]
    changed += [
        f"{k} (its data or prompts)" for k in infos if k in old.benchmarks and old.benchmarks[k].hash != infos[k].hash
    ]
    if changed:
        raise UserError(
            f"{folder} holds a run of another protocol: {', '.join(changed)} differ. "
            "Choose another folder with --output, or delete that one."
        )
    return manifest.model_copy(
        update={
            "created": old.created,
            "benchmarks": {**old.benchmarks, **infos},
            "methods": {**old.methods, **manifest.methods},
            "seconds": old.seconds,
        }
    )


def device_name(bundle: Bundle) -> str:
    """The device with the name of the card or processor."""
    if bundle.device.type == "cuda":
        return f"{bundle.device} ({torch.cuda.get_device_name(bundle.device)})"
    return f"{bundle.device} ({platform.machine()}, {torch.get_num_threads()} threads)"


def git_commit() -> str | None:
    """The commit of the working folder, when it is a checkout."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


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
