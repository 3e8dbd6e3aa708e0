"""Run folders without a model: answers drawn at random, written through RunWriter as a real run writes them."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from atp_eval.benchmarks import MINI_MME, aggregate, get_benchmark
from atp_eval.cost import ModelGeometry, VisionGeometry
from atp_eval.records import BenchmarkInfo, Manifest, Result, Run, SampleRecord, asked_text, read_run
from atp_eval.trace import KeepTrace, Stage
from atp_eval.writer import RunWriter

LAYERS, SIDE = 8, 24
GEOMETRY = ModelGeometry(LAYERS, (SIDE, SIDE), 128, 4, 4, 32, 384, 304, VisionGeometry(4, 192, 6, 768, 336, 14, -1))
PROTOCOL = {"model": "tiny", "weights": "1a2b3c4d", "suite": "mini", "dtype": "float32", "prompt": "hf", "seed": 0}
Picture = Callable[[str], Image.Image]


@dataclass(frozen=True)
class FakeMethod:
    """skill: probability of a right answer. stages: (layer, tokens or a range of them that samples differ in).
    prefill: its share of `seconds`; None as in runs of older versions."""

    skill: float
    stages: Sequence[tuple[int, int | tuple[int, int]]] = ()
    seconds: float = 0.02
    errors: float = 0.0
    invalid: float = 0.0
    merged: int = 0
    prefill: float | None = None
    peak_bytes: int | None = None


METHODS = {
    "upper_bound": FakeMethod(0.92),
    "fastv@144": FakeMethod(0.86, [(2, 1)], 0.013),
    "random@144": FakeMethod(0.74, [(2, 1)], 0.012),
    "grid@144": FakeMethod(0.78, [(0, 144)], 0.011),
}


@dataclass(frozen=True)
class Texts:
    """What is asked and answered; tests put hostile text here."""

    question: Callable[[str, int], str] = field(default=lambda benchmark, i: f"What color is thing {i} of {benchmark}?")
    right: str = "blue"
    wrong: str = "red"


def write_run(
    path: Path,
    *,
    methods: dict[str, FakeMethod] = METHODS,
    benchmarks: Sequence[str] = ("gqa", "mme", "pope"),
    documents: int = 24,
    questions_per_image: int = 2,
    pictures: Picture | None = None,
    keep_images: int = 24,
    texts: Texts = Texts(),
    protocol: dict[str, Any] | None = None,
    skip: Sequence[tuple[str, str]] = (),
    seed: int = 0,
) -> Run:
    """Write a run folder and open it. skip: (method, benchmark) pairs that were not finished."""
    infos = {
        b: BenchmarkInfo(
            task=get_benchmark(b).task("mini"),
            hash="0" * 16,
            documents=documents,
            metric=get_benchmark(b).metric,
            scale=get_benchmark(b).scale_of("mini"),
            aggregation=get_benchmark(b).aggregation,
        )
        for b in benchmarks
    }
    manifest = Manifest(
        created="2026-11-21T09:00:00+00:00",
        atp_eval="0.1.0",
        versions={"lmms-eval": "0.7.3", "torch": "2.15.0"},
        model={"id": "tiny", "weights": "1a2b3c4d", "geometry": asdict(GEOMETRY)},
        protocol=PROTOCOL | (protocol or {}),
        config={"tasks": list(benchmarks), "methods": list(methods), "model": "tiny", "seed": 0, "limit": None},
        benchmarks=infos,
        methods={m: {"label": m, "spec": m} for m in methods},
        device="cpu",
        finished=not skip,
        seconds=12.5,
    )
    with RunWriter(path) as writer:
        writer.write_manifest(manifest)
        for b in benchmarks:
            for label, method in methods.items():
                if (label, b) not in skip:
                    _write_cell(writer, b, label, method, documents, questions_per_image, texts, seed)
            for i in range(min(documents, keep_images) if pictures else 0):
                image_id = f"{b}-{i // questions_per_image}"
                writer.keep_image(image_id, lambda name=image_id: webp(pictures(name)))
    return read_run(path)


def _write_cell(
    writer: RunWriter, b: str, label: str, method: FakeMethod, documents: int, per_image: int, texts: Texts, seed: int
) -> None:
    luck = random.Random(f"{b}/{seed}")  # one difficulty a question, whoever answers: methods are paired
    own = random.Random(f"{b}/{label}/{seed}")
    records, scores = [], {}
    for i in range(documents):
        difficulty = luck.random() + own.gauss(0, 0.08)
        error, invalid = own.random() < method.errors, own.random() < method.invalid
        right = difficulty < method.skill and not error and not invalid
        answer = "I cannot tell" if invalid else texts.right if right else texts.wrong
        category = MINI_MME[(i // 2) % len(MINI_MME)] if b == "mme" else "color"
        seconds = method.seconds * (1 + 0.1 * random.Random(f"{b}{i // 4}").random())
        records.append(
            SampleRecord(
                method=label,
                benchmark=b,
                doc_id=i,
                image_id=f"{b}-{i // per_image}",
                question=texts.question(b, i),
                prompt=texts.question(b, i) + "\nAnswer with one word.",
                target=texts.right,
                category=category,
                group=f"{category}/{i // 2}" if b == "mme" else str(i) if b == "mmb" else None,
                kind="color",
                level=("coarse", "middle", "fine")[i % 3],
                objects=4 + i // per_image % 5,
                asked_cells=i % 7,
                asked_map=asked_text(random.Random(f"{b}/{i}").sample(range(SIDE * SIDE), i % 7)),
                response=None if error else answer,
                error="out of memory at batch size 1" if error else None,
                invalid=invalid and not error,
                prompt_tokens=600,
                new_tokens=0 if error else 2,
                seconds=0.0 if error else seconds,
                prefill_seconds=None if error or method.prefill is None else method.prefill * seconds,
                peak_bytes=method.peak_bytes,
                vision_seconds=0.004,
                batch=i // 4,
                batch_size=4,
                warm=i >= 4,
                trace=trace(method, own).to_json(),
            )
        )
        scores[i] = float(right)
    writer.append(records)
    benchmark = get_benchmark(b)
    score = aggregate(benchmark, list(scores.values()), [r.category for r in records], [r.group for r in records])
    writer.finish(
        Result(
            method=label,
            benchmark=b,
            task=benchmark.task("mini"),
            metric=benchmark.metric,
            score=score,
            scale=benchmark.scale_of("mini"),
            samples=len(records),
            errors=sum(r.error is not None for r in records),
            invalid=sum(r.invalid for r in records),
        ),
        scores,
    )


def trace(method: FakeMethod, rng: random.Random) -> KeepTrace:
    """Cells kept at random, each stage among the survivors of the one before."""
    keep = np.ones(SIDE * SIDE, dtype=bool)
    stages = []
    for layer, count in method.stages:
        wanted = count if isinstance(count, int) else rng.randint(*count)
        alive = np.flatnonzero(keep)
        keep = np.zeros_like(keep)
        keep[rng.sample(alive.tolist(), max(0, wanted - method.merged))] = True
        stages.append(Stage(layer, keep, method.merged))
    return KeepTrace((SIDE, SIDE), LAYERS, tuple(stages))


def plain_picture(name: str) -> Image.Image:
    """A small picture of one colour."""
    return Image.new("RGB", (48, 48), tuple(random.Random(name).choices(range(256), k=3)))  # type: ignore[arg-type]


def webp(image: Image.Image) -> bytes:
    """As a run encodes the pictures that it keeps."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=88)
    return buffer.getvalue()
