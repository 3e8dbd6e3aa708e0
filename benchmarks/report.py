"""How long does a page take, and how much memory? Build the report of synthetic answers, as many as VQAv2 has.

    python benchmarks/report.py                              # 214,354 samples x 8 methods, 32 layers
    python benchmarks/report.py --samples 20000 --json report.json

The answers are drawn at random and say nothing about any method; their shape is that of a real run: 5.3 questions a
picture, soft scores, three prune points with masks of their own for each sample, pictures kept for the first documents.
Time is of the whole `atp-eval report` command; memory is its peak resident set.
"""

from __future__ import annotations

import argparse
import base64
import json
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

from atp_eval.benchmarks import get_benchmark
from atp_eval.cost import KNOWN
from atp_eval.records import IMAGES, MANIFEST, PARQUET, RESULT, BenchmarkInfo, Manifest, Result, asked_text, slug

MODEL = "llava-hf/llava-1.5-7b-hf"
BENCHMARK, SAMPLES, PER_PICTURE = "vqav2", 214_354, 214_354 / 40_504
# Tokens from each prune layer on (a range where samples differ), and how often the method is right.
METHODS: dict[str, tuple[dict[int, tuple[int, int]], float]] = {
    "upper_bound": ({}, 0.78),
    "atp@144": ({4: (90, 160), 14: (60, 116), 24: (10, 30)}, 0.764),
    "fastv@144": ({2: (115, 115)}, 0.70),
    "sparsevlm@144": ({2: (225, 225), 6: (150, 150), 15: (90, 90)}, 0.74),
    "pyramiddrop@144": ({2: (230, 230), 8: (130, 130), 16: (60, 60)}, 0.735),
    "visionzip@144": ({0: (144, 144)}, 0.755),
    "divprune@144": ({0: (144, 144)}, 0.75),
    "random@144:seed=1": ({0: (144, 144)}, 0.70),
}
KINDS = ("color", "count", "where", "yes or no", "what")


def make_run(folder: Path, samples: int, pictures: int) -> None:
    """Write a finished run folder."""
    benchmark, geometry = get_benchmark(BENCHMARK), KNOWN[MODEL]
    info = BenchmarkInfo(
        task=benchmark.task("real"), hash="0" * 16, documents=samples, metric=benchmark.metric,
        scale=benchmark.scale, aggregation=benchmark.aggregation,
    )  # fmt: skip
    manifest = Manifest(
        created="2026-11-21T09:00:00+00:00",
        atp_eval="synthetic",
        versions={},
        model={"id": MODEL, "weights": "synthetic", "geometry": asdict(geometry)},
        protocol={"model": "synthetic", "weights": "synthetic", "suite": "real", "dtype": "bfloat16"},
        config={"tasks": [BENCHMARK], "methods": list(METHODS)},
        benchmarks={BENCHMARK: info},
        methods={label: {"solved": label, "prune_layers": list(stages)} for label, (stages, _) in METHODS.items()},
        device="none (synthetic)",
        finished=True,
    )
    (folder / IMAGES).mkdir(parents=True)
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    rng = np.random.default_rng(0)
    for i in range(pictures):
        noise = Image.fromarray(rng.integers(0, 255, (14, 14, 3), dtype=np.uint8), "RGB")
        noise.resize((336, 336), Image.Resampling.BICUBIC).save(folder / IMAGES / f"{picture(i)}.webp", quality=88)
    shared = documents(samples)
    for label, (stages, right) in METHODS.items():
        rows = answers(shared, label, stages, right, geometry.num_layers, np.random.default_rng(len(label)))
        place = folder / slug(label) / BENCHMARK
        place.mkdir(parents=True)
        parquet.write_table(pa.Table.from_pandas(rows, preserve_index=False), place / PARQUET)
        result = Result(
            method=label, benchmark=BENCHMARK, task=info.task, metric=info.metric, score=float(rows["score"].mean()),
            scale=info.scale, samples=samples, errors=0, invalid=int(rows["invalid"].sum()),
        )  # fmt: skip
        (place / RESULT).write_text(result.model_dump_json())


def picture(number: int) -> str:
    """A picture's id, as long as a real one."""
    return f"{number:016x}"


def documents(samples: int) -> pd.DataFrame:
    """What all methods were asked."""
    rng = np.random.default_rng(1)
    number = np.arange(samples)
    asked = [rng.choice(576, size=rng.integers(1, 60), replace=False).tolist() for _ in range(512)]
    maps = np.array([asked_text(cells) for cells in asked])[rng.integers(512, size=samples)]
    return pd.DataFrame(
        {
            "schema_version": 1,
            "method": "",
            "benchmark": BENCHMARK,
            "doc_id": number,
            "image_id": [picture(i) for i in (number / PER_PICTURE).astype(int)],
            "question": [f"What is thing number {i} of this picture made of?" for i in number],
            "prompt": [f"What is thing number {i} of this picture made of?\nAnswer with one word." for i in number],
            "target": "wood",
            "category": np.array(KINDS)[rng.integers(len(KINDS), size=samples)],
            "group": None,
            "kind": np.array(KINDS)[rng.integers(len(KINDS), size=samples)],
            "level": np.array(["coarse", "middle", "fine"])[rng.integers(3, size=samples)],
            "objects": (number / PER_PICTURE).astype(int) % 9 + 1,
            "asked_cells": rng.integers(1, 60, size=samples),
            "asked_map": maps,
            "difficulty": rng.random(samples),
        }
    )


def answers(
    shared: pd.DataFrame, label: str, stages: dict[int, tuple[int, int]], right: float, layers: int, rng: Any
) -> pd.DataFrame:
    """A method's rows."""
    samples = len(shared)
    luck = shared["difficulty"].to_numpy() + rng.normal(0, 0.06, samples)
    score = np.where(luck < right, 1.0, np.where(luck < right + 0.05, 0.6, 0.0))
    batch = np.arange(samples) // 16
    share = 1.0 if not stages else 0.45
    rows = shared.drop(columns="difficulty").assign(
        method=label,
        response=np.where(score > 0, "wood", "metal"),
        error=pd.Series([None] * samples, dtype=object),
        invalid=luck > 0.995,
        prompt_tokens=620 + np.arange(samples) % 17,
        new_tokens=2 + np.arange(samples) % 3,
        seconds=share * 0.05 * (1 + 0.1 * rng.random(batch[-1] + 1))[batch],
        vision_seconds=0.004,
        batch=batch,
        batch_size=16,
        warm=batch > 0,
        trace=traces(samples, stages, layers, rng),
        score=score,
    )
    return rows


def traces(samples: int, stages: dict[int, tuple[int, int]], layers: int, rng: Any) -> list[str]:
    """Keep masks drawn at random, each stage among the survivors of the one before."""
    found: list[str] = []
    for start in range(0, samples, 4096):
        size = min(4096, samples - start)
        order = rng.random((size, 576)).argsort(axis=1).argsort(axis=1)  # a cell's turn to stay
        packed = [(layer, masks(order, low, high, rng)) for layer, (low, high) in stages.items()]
        for i in range(size):
            parts = [[layer, 0, mask[i]] for layer, mask in packed]
            found.append(json.dumps({"grid": [24, 24], "layers": layers, "stages": parts}))
    return found


def masks(order: NDArray[Any], low: int, high: int, rng: Any) -> list[str]:
    """Of each sample the first cells in `order`, between low and high of them, as traces hold them."""
    counts = rng.integers(low, high + 1, size=len(order))
    return [base64.b64encode(row.tobytes()).decode() for row in np.packbits(order < counts[:, None], axis=1)]


def main() -> None:
    """Make the answers, unless they are there, and build their page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=SAMPLES, help="questions")
    parser.add_argument("--pictures", type=int, default=200, help="pictures kept for the gallery")
    parser.add_argument("--folder", type=Path, default=Path("build/benchmarks/report"), help="where all of it lies")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    run = options.folder / f"run-{options.samples}"
    if not (run / MANIFEST).exists():
        shutil.rmtree(run, ignore_errors=True)
        print(f"Making {options.samples:,} answers of {len(METHODS)} methods in {run} ...", flush=True)
        make_run(run, options.samples, options.pictures)
    page = options.folder / "page"
    shutil.rmtree(page, ignore_errors=True)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "atp_eval", "report", str(run), "-o", str(page)], check=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    index = page / "index.html" if page.is_dir() else page
    figures = {
        "samples": options.samples,
        "methods": len(METHODS),
        "seconds": round(seconds, 1),
        "peak_bytes": peak,
        "page_bytes": index.stat().st_size,
        "records_bytes": sum(path.stat().st_size for path in run.glob(f"*/*/{PARQUET}")),
    }
    print(
        f"{options.samples:,} samples x {len(METHODS)} methods: {seconds:.1f} s, peak memory {peak / 1e9:.2f} GB, "
        f"page {figures['page_bytes'] / 1e6:.1f} MB, records {figures['records_bytes'] / 1e9:.2f} GB"
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
