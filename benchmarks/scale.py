"""200,000 questions the whole way: does memory stay flat, how fast are records written, how soon does a run go on?

    python benchmarks/scale.py --json scale.json --figure figures     # 9 to 20 minutes on 2 cores
    python benchmarks/scale.py --samples 20000                        # a quick look

The questions are synthetic VQAv2 rows, the model is a LLaVA of random weights that takes about a millisecond a question
(`stub_run.py`); all the rest is `atp-eval run` as it is: lmms-eval's task and scoring, batches, records, parquet, page.

- memory: anonymous memory of the process, twice a second. The slope is fitted over the answers, the first tenth left
  out; peaks are given for each stage, since lmms-eval holds all its requests while it scores. A fifth as many questions
  about one picture show the slope without the cache of encoded pictures, which is bounded (1 GiB).
- records: `RunWriter.append` with records as a 7B model with three prune points leaves them, in batches of 16.
- going on: the same command after the last answers were cut off, as a kill leaves a run; until the first new record is
  written. Beside it the same start with 64 questions in an empty folder, which is what Python and its packages take.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from stub_run import write_model, write_questions

from atp_eval.asks import Ask, load
from atp_eval.documents import DocInfo
from atp_eval.models import load_model
from atp_eval.plotting import SERIES, SOFT, Chart, write_chart
from atp_eval.records import PARQUET, RESULT, SAMPLES, SampleRecord, slug
from atp_eval.shards.watch import Lines
from atp_eval.trace import KeepTrace, Stage
from atp_eval.writer import RunWriter

METHOD, BENCHMARK = "fastv@12", "vqav2"
STAGES = ("start", "answers", "scores", "page")
CUT = 1000  # answers that a kill is taken to have cost
MEGA = 2**20


class Seen(NamedTuple):
    """A process at a moment: seconds since its start, records written, bytes of anonymous memory, and its stage."""

    seconds: float
    records: int
    memory: int
    stage: str


def command(folder: Path, output: Path, *more: str) -> list[str]:
    """The run."""
    return [
        *(sys.executable, "-m", "atp_eval", "run", "--model", str(folder / "model"), "--suite", "real"),
        *("--tasks", BENCHMARK, "--methods", METHOD, "--batch-size", "64", "--output", str(output), "--json", *more),
    ]


def watched(folder: Path, output: Path, *more: str, until: int | None = None) -> list[Seen]:
    """What a run looks like from outside; it is killed once it has written so many new records, if that is asked."""
    cell = output / slug(METHOD) / BENCHMARK
    lines, seen, start = Lines([cell / SAMPLES]), list[Seen](), time.perf_counter()
    before, enough = lines.count(), False
    environment = {**os.environ, "ATP_EVAL_DATA": str(folder / "data"), "HF_HUB_OFFLINE": "1"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command(folder, output, *more), env=environment, stdout=log, stderr=log)
    try:
        while not enough and process.poll() is None:
            records, moment = lines.count(), time.perf_counter() - start
            stage = "page" if (cell / RESULT).exists() else "answers" if records > before else "start"
            seen.append(Seen(moment, records, anonymous(process.pid), stage))
            enough = until is not None and records >= before + until
            time.sleep(0.02 if until is not None else 0.5)
    finally:
        process.kill()
        process.wait()
    if not enough and (until is not None or process.returncode):
        sys.exit(f"the run failed:\n{(folder / 'log').read_text()[-2000:]}")
    scoring = (one.stage == "answers" and one.records == seen[-1].records for one in seen)  # all is answered
    return [one._replace(stage="scores") if scores else one for one, scores in zip(seen, scoring, strict=True)]


def anonymous(pid: int) -> int:
    """Bytes of memory that are no file's; 0 where the process has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def whole(folder: Path, samples: int) -> dict[str, Any]:
    """The run from its first to its last step."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    seen = watched(folder, folder / "run")
    answering = [one for one in seen if one.stage == "answers" and one.records > samples / 10]
    records, memory = (np.array([getattr(one, name) for one in answering]) for name in ("records", "memory"))
    slope, _ = np.polyfit(records / 10_000, memory / MEGA, 1)
    took = {stage: [one.seconds for one in seen if one.stage == stage] for stage in STAGES}
    cell = folder / "run" / slug(METHOD) / BENCHMARK
    return {
        "samples": samples,
        "seconds": seen[-1].seconds,
        "stages": {
            stage: {
                "seconds": max(times) - min(times) if times else 0.0,
                "peak_mb": max((one.memory for one in seen if one.stage == stage), default=0) / MEGA,
            }
            for stage, times in took.items()
        },
        "answers_a_second": (records[-1] - records[0]) / (answering[-1].seconds - answering[0].seconds),
        "slope_mb_per_10k": float(slope),
        "growth_mb": float((memory[-5:].mean() - memory[:5].mean()) / MEGA),
        "bytes_a_sample": {
            "samples.jsonl": (cell / SAMPLES).stat().st_size / samples,
            "samples.parquet": (cell / PARQUET).stat().st_size / samples,
        },
        "seen": [one._asdict() for one in seen],
    }


def going_on(folder: Path) -> dict[str, Any]:
    """Seconds until the first new record of a run that has nearly all, and of one that has nothing to do but start."""
    path = folder / "run" / slug(METHOD) / BENCHMARK / SAMPLES
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-CUT]))
    seen = watched(folder, folder / "run", until=1)
    shutil.rmtree(folder / "empty", ignore_errors=True)
    empty = watched(folder, folder / "empty", "--limit", "64", until=1)
    return {"records_there": len(lines) - CUT, "seconds": seen[-1].seconds, "empty_seconds": empty[-1].seconds}


def writing(folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """Records a second of `RunWriter.append`, and their bytes as JSON and as parquet."""
    rng, rates = np.random.default_rng(0), []
    traces = [trace(rng).to_json() for _ in range(256)]
    for number in range(rounds):
        with RunWriter(folder / f"written-{number}") as writer:
            start = time.perf_counter()
            for first in range(0, count, 16):
                writer.append([record(i, traces[i % len(traces)]) for i in range(first, min(count, first + 16))])
            rates.append(count / (time.perf_counter() - start))
    size = (folder / "written-0" / slug(METHOD) / BENCHMARK / SAMPLES).stat().st_size
    return {"records_a_second": statistics.median(rates), "rates": rates, "bytes_a_record": size / count}


def trace(rng: np.random.Generator) -> KeepTrace:
    """576 tokens, 32 layers, three prune points."""
    kept, stages = np.ones(576, dtype=bool), []
    for layer, count in ((4, 120), (14, 88), (24, 20)):
        alive = np.flatnonzero(kept)
        kept = np.zeros_like(kept)
        kept[rng.choice(alive, count, replace=False)] = True
        stages.append(Stage(layer, kept))
    return KeepTrace((24, 24), 32, tuple(stages))


def record(number: int, kept: dict[str, Any]) -> SampleRecord:
    """An answer to a question of VQAv2."""
    return SampleRecord(
        method=METHOD, benchmark=BENCHMARK, doc_id=number, image_id=f"{number // 5:016x}",
        question="What color is the umbrella of the person on the left?",
        prompt="What color is the umbrella of the person on the left?\nAnswer the question using a single word or "
        "phrase.",
        target="black and white", category="other", kind="what color is the", response="black", prompt_tokens=640,
        new_tokens=2, seconds=0.0513241, prefill_seconds=0.0342352, vision_seconds=0.0042342, batch=number // 16,
        batch_size=16, trace=kept,
    )  # fmt: skip


def picturing(count: int) -> float:
    """Milliseconds of a core for a picture of 640 x 480: decoded, told apart, and made what the tower is shown."""
    bundle, rng = load_model("tiny", device="cpu"), np.random.default_rng(0)
    files = []
    for _ in range(count):
        noise = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).resize((640, 480))
        noise.save(data := io.BytesIO(), "JPEG", quality=90)
        files.append(data.getvalue())
    times = []
    for data in files:
        ask = Ask(BENCHMARK, 0, "", lambda data=data: [Image.open(io.BytesIO(data))], {}, DocInfo("", ""))
        start = time.perf_counter()
        bundle.pixels([load(ask).image])
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def figure(result: dict[str, Any]) -> Chart:
    """Memory over the run, stage after stage."""
    seen, run = pd.DataFrame(result["whole"]["seen"]), result["whole"]
    alt = (
        f"Anonymous memory of a run over {run['samples']:,} questions: {run['slope_mb_per_10k']:+.1f} MB per 10,000 "
        f"answers; peaks: " + ", ".join(f"{name} {stage['peak_mb']:,.0f} MB" for name, stage in run["stages"].items())
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, stage in enumerate(STAGES):
            rows = seen[seen["stage"] == stage]
            axes.plot(rows["seconds"] / 60, rows["memory"] / MEGA, color=SERIES[number], label=stage)
        axes.set(xlabel="minutes", ylabel="MB of anonymous memory", ylim=(0, None))
        axes.legend(ncols=2, loc="lower right")
        title = f"{run['samples']:,} questions: {run['slope_mb_per_10k']:+.1f} MB per 10,000 answers"
        axes.set_title(title, color=SOFT, fontsize=8.5)

    return Chart("scale", alt, seen, draw)


def table(result: dict[str, Any]) -> str:
    """The result in words."""
    run, one, lines = result["whole"], result["one_picture"], []
    if run:
        stages = "; ".join(f"{n} {s['seconds']:.0f} s, peak {s['peak_mb']:,.0f} MB" for n, s in run["stages"].items())
        lines += [
            f"{run['samples']:,} questions in {run['seconds']:.0f} s ({stages})",
            f"memory while answering: {run['slope_mb_per_10k']:+.2f} MB per 10,000 answers, {run['growth_mb']:+.0f} MB "
            f"from the first tenth to the end; {run['answers_a_second']:,.0f} answers/s",
        ]
        lines.append(
            f"with one picture: {one['slope_mb_per_10k']:+.2f} MB per 10,000 answers, {one['growth_mb']:+.0f} MB over "
            f"{one['samples']:,}"
        )
    if on := result["going_on"]:
        lines.append(
            f"a run with {on['records_there']:,} records goes on after {on['seconds']:.1f} s; "
            f"an empty one starts in {on['empty_seconds']:.1f} s"
        )
    if picture := result["picture_ms"]:
        lines.append(f"a picture of 640 x 480, decoded and preprocessed: {picture:.1f} ms of a core")
    if w := result["writing"]:
        lines.append(f"records written: {w['records_a_second']:,.0f}/s, {w['bytes_a_record']:,.0f} bytes each")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200_000, help="questions [200000]")
    parser.add_argument("--written", type=int, default=50_000, help="records of a round of writing [50000]")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of writing [5]")
    parser.add_argument("--only", choices=["run", "writing"], help="one of the two")
    parser.add_argument("--work", type=Path, help="folder for data and run, kept [a temporary one]")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--figure", type=Path, help="write the figure to this folder")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.work or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        result: dict[str, Any] = {
            "machine": machine(),
            "whole": None,
            "going_on": None,
            "writing": None,
            "picture_ms": None,
            "one_picture": None,
        }
        if options.only != "run":
            with tempfile.TemporaryDirectory(dir=folder) as written:
                result["writing"] = writing(Path(written), options.written, options.rounds)
        if options.only != "writing":
            result["picture_ms"] = picturing(50)
            write_model(folder / "model")
            write_questions(folder / "data", options.samples)
            result["whole"] = whole(folder, options.samples)
            result["going_on"] = going_on(folder)
            write_model(folder / "one" / "model")
            write_questions(folder / "one" / "data", options.samples // 5, options.samples)
            result["one_picture"] = whole(folder / "one", options.samples // 5)
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    if options.figure and result["whole"]:
        write_chart(figure(result), options.figure)
    return 0


def machine() -> dict[str, Any]:
    """Where it was measured."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
    }


if __name__ == "__main__":
    sys.exit(main())
