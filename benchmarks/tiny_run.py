"""`atp-eval run` on the embedded model: how long it takes, what it spends the time on, and that of another checkout.

    python benchmarks/tiny_run.py --json tiny.json --figure figures
    python benchmarks/tiny_run.py --against ../main-of-yesterday --rounds 3 --json tiny.json --figure figures

Each round runs the whole command in new processes, one checkout after the other, and the next round the other way
round; seven benchmarks and the default methods, from the first import to the written page, take minutes. The ratio is
taken within rounds. What the time is spent on comes from the stack of the main thread, which a second thread looks at
200 times a second. Answers, kept tokens and scores of both checkouts are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

EVERY = 0.005  # seconds between looks
OTHER = "everything else"
RULES: tuple[tuple[str, frozenset[str] | None, str], ...] = tuple(
    (file, frozenset(functions.split()) if functions else None, part)
    for file, functions, part in (
        ("importlib._bootstrap>", "", "imports"),
        ("atp_eval/models/__init__.py", "load_model", "loading the model"),
        ("atp_eval/driver.py", "load_tasks", "loading the benchmarks"),
        ("atp_eval/driver.py", "evaluate requests", "asking and scoring (lmms-eval)"),
        ("atp_eval/manifest.py", "", "loading the benchmarks"),
        ("atp_eval/answering.py", "", "between the batches"),
        ("atp_eval/backend.py", "_ask _document asks", "asking and scoring (lmms-eval)"),
        ("atp_eval/asks.py", "load", "decoding pictures"),
        ("atp_eval/loading.py", "", "waiting for pictures"),
        ("atp_eval/models/llava.py", "pixels", "decoding pictures"),
        ("atp_eval/models/llava.py", "inputs tokens prompt", "tokenising"),
        ("atp_eval/models/llava.py", "encode encode_pixels", "vision tower"),
        ("atp_eval/models/llava.py", "generate", "around the model"),
        ("atp_eval/engine/decode.py", "_read", "LLM: reading prompts"),
        ("atp_eval/engine/decode.py", "step", "LLM: new tokens"),
        ("transformers/generation/utils.py", "_prefill", "LLM: reading prompts"),
        ("transformers/generation/utils.py", "_sample", "LLM: new tokens"),
        ("atp_eval/engine/prefill.py", "_ask prune prune_early", "scores and decisions"),
        ("atp_eval/writer.py", "", "writing records"),
        ("atp_eval/recorded.py", "", "writing records"),
        ("atp_eval/rows.py", "", "writing records"),
        ("atp_eval/records.py", "", "writing records"),
        ("atp_eval/report_commands.py", "write_report", "page, tables and figures"),
    )
)
"""A file, some of its functions (or all) and what they are about: the innermost frame that is named decides."""
COMPARED = ["method", "benchmark", "doc_id", "response", "error", "new_tokens", "trace", "score"]
PARTS = (*dict.fromkeys(part for *_, part in RULES), OTHER)


class Once(NamedTuple):
    """One run of the command. seconds: of the clock; cpu: of all its threads; parts: of the clock, by what it did."""

    seconds: float
    cpu: float
    parts: dict[str, float]


# ------------------------------------------------------------------ in the process that is measured


def part_of(frame: FrameType | None) -> str:
    """What the main thread is at."""
    while frame is not None:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        for end, functions, part in RULES:
            if (file.endswith(end) or end in file) and (functions is None or name in functions):
                return part
        frame = frame.f_back
    return OTHER


def measured(command: Sequence[str], to: Path) -> None:
    """Run `atp-eval COMMAND` here, with a thread that looks at what it does, and write what it took."""
    began, seen, done = time.perf_counter(), Counter[str](), threading.Event()
    main = threading.main_thread().ident

    def look() -> None:
        while not done.wait(EVERY):
            seen[part_of(sys._current_frames().get(main or 0))] += 1

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    sys.argv = ["atp-eval", *command]
    try:
        from atp_eval.cli import main as cli

        cli()
    except SystemExit as stop:
        if stop.code:
            raise
    done.set()
    watcher.join()
    seconds, looks = time.perf_counter() - began, sum(seen.values())
    parts = {part: seconds * count / looks for part, count in seen.items()}
    to.write_text(json.dumps(Once(seconds, time.process_time(), parts)._asdict()), encoding="utf-8")


# ------------------------------------------------------------------ in the process that measures


def once(checkout: Path, options: argparse.Namespace, folder: Path) -> Once:
    """The command in a checkout, into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    result = folder.with_suffix(".json")
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", str(result), "run", "--output", str(folder)]
    for name in ("tasks", "methods", "limit"):
        if (value := getattr(options, name)) is not None:
            command += [f"--{name}", str(value)]
    found = {**os.environ, "PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"}
    if options.threads:
        found["OMP_NUM_THREADS"] = str(options.threads)
    ended = subprocess.run(command, cwd=checkout, env=found, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if ended.returncode:
        raise SystemExit(f"{checkout}: {ended.stderr.decode(errors='replace')[-2000:]}")
    return Once(**json.loads(result.read_text(encoding="utf-8")))


def differing(one: Path, other: Path) -> tuple[int, int]:
    """Answers that differ in text, kept tokens or score, and how many there are."""
    import pandas as pd

    first, second = (
        pd.concat([pd.read_parquet(path, columns=COMPARED) for path in sorted(folder.glob("*/*/samples.parquet"))])
        .sort_values(COMPARED[:3])
        .reset_index(drop=True)
        for folder in (one, other)
    )
    if first[COMPARED[:3]].to_numpy().tolist() != second[COMPARED[:3]].to_numpy().tolist():
        raise SystemExit("the two checkouts answered other questions")
    for frame in (first, second):
        frame["trace"] = [
            None if text is None else json.dumps(json.loads(text), sort_keys=True) for text in frame["trace"]
        ]
    same = (first == second) | (first.isna() & second.isna())
    return int((~same.all(axis=1)).sum()), len(first)


def medians(runs: Sequence[Once]) -> dict[str, float]:
    """Seconds of each part, median over rounds."""
    import numpy as np

    return {part: float(np.median([run.parts.get(part, 0.0) for run in runs])) for part in PARTS}


def table(parts: Mapping[str, Mapping[str, float]]) -> str:
    """The medians as a table in Markdown, the largest first."""
    names = list(parts)
    ordered = sorted(PARTS, key=lambda part: -max(parts[name][part] for name in names))
    lines = [f"| seconds spent on | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]
    lines += [f"| {part} | {' | '.join(f'{parts[name][part]:.1f}' for name in names)} |" for part in ordered]
    return "\n".join(lines)


def chart(parts: Mapping[str, Mapping[str, float]], totals: Mapping[str, float]) -> Any:
    """Bars side by side: seconds of each part."""
    import pandas as pd
    from matplotlib.figure import Figure

    from atp_eval.plotting import INK, PAGE, Chart, Margins, colour, plot_area

    names = list(parts)
    ordered = [
        p for p in sorted(PARTS, key=lambda p: max(parts[n][p] for n in names)) if max(parts[n][p] for n in names)
    ]
    data = pd.DataFrame([{"checkout": n, "part": p, "seconds": parts[n][p]} for n in names for p in ordered])
    height = 0.24 * len(names) * len(ordered) + 0.8

    def draw(figure: Figure) -> None:
        axes = plot_area(figure, Margins(2.2, 0.5, 0.5, 0.2))
        thick = 0.8 / len(names)
        for i, name in enumerate(names):
            places = [row + thick * (len(names) / 2 - i - 0.5) for row in range(len(ordered))]
            values = [parts[name][p] for p in ordered]
            axes.barh(places, values, thick, color=colour(i + 1), label=f"{name}: {totals[name]:.0f} s in all")
            for place, value in zip(places, values, strict=True):
                axes.text(value, place, f" {value:.1f}", va="center", fontsize=7.5, color=INK)
        axes.set_yticks(range(len(ordered)), ordered)
        axes.set_xlabel("seconds of one run, median over rounds")
        axes.legend(loc="lower right")
        axes.grid(visible=False, axis="y")

    said = "; ".join(f"{n}: {totals[n]:.0f} s, most on {max(PARTS, key=lambda p: parts[n][p])}" for n in names)
    return Chart(
        "tiny-run", f"What one run of the embedded model spends its time on. {said}.", data, draw, (PAGE, height)
    )


def target(ratio: Sequence[float | None], options: argparse.Namespace) -> Any:
    """How much faster the whole run is to be than the other checkout's, which is named by its commit."""
    from targets import Target

    git = ["git", "-C", str(options.against), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "another checkout"
    given = {"--threads": options.threads, "--tasks": options.tasks, "--methods": options.methods}
    more = [str(x) for name, value in {**given, "--limit": options.limit}.items() if value for x in (name, value)]
    rounds = "one round" if options.rounds == 1 else f"{options.rounds} rounds"
    what = f"{options.tasks or 'seven benchmarks'}, {options.methods or 'default methods'}"
    return Target(
        f"`atp-eval run`, embedded model, {what}",
        f"commit {commit}, {rounds}",
        2.0,
        ratio,
        command=shlex.join(
            ["python", "benchmarks/tiny_run.py", "--against", "CHECKOUT", "--rounds", str(options.rounds), *more]
        ),
    )


def main() -> None:
    """Run the rounds, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout, to be compared with")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each checkout  [default: 1]")
    parser.add_argument("--threads", type=int, help="of torch (OMP_NUM_THREADS)  [default: as it is]")
    parser.add_argument("--tasks", help="as of atp-eval run  [default: all seven]")
    parser.add_argument("--methods", help="as of atp-eval run  [default: its own]")
    parser.add_argument("--limit", type=int, help="documents of each benchmark  [default: all]")
    parser.add_argument("--json", type=Path, help="write every round to this file")
    parser.add_argument("--figure", type=Path, metavar="FOLDER", help="write the figure (PDF, PNG) and its data there")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    here = Path(__file__).resolve().parents[1]
    checkouts = {"this checkout": here}
    if options.against:
        if not (options.against / "atp_eval").is_dir():
            parser.error(f"--against {options.against} is no checkout: it has no folder atp_eval")
        checkouts["the other"] = options.against.resolve()
    from side_by_side import shown, spread
    from targets import to_json

    runs: dict[str, list[Once]] = {name: [] for name in checkouts}
    answers = None
    with tempfile.TemporaryDirectory() as top:
        folders = {name: Path(top) / f"run-{i}" for i, name in enumerate(checkouts)}
        for number in range(options.rounds):
            names = list(checkouts)
            for name in names if number % 2 else reversed(names):
                runs[name].append(found := once(checkouts[name], options, folders[name]))
                sys.stderr.write(f"round {number + 1}, {name}: {found.seconds:.1f} s, CPU {found.cpu:.1f} s\n")
        if options.against:
            answers = differing(*folders.values())
    parts = {name: medians(found) for name, found in runs.items()}
    totals = {name: spread([run.seconds for run in found]) for name, found in runs.items()}
    print(table(parts))
    for name, seconds in totals.items():
        print(f"{name}: {shown(seconds, '.1f')} s")
    ratio = cpu = None
    if options.against:
        this, other = runs.values()
        ratio = spread([b.seconds / a.seconds for a, b in zip(this, other, strict=True)])
        cpu = spread([b.cpu / a.cpu for a, b in zip(this, other, strict=True)])
        print(f"this checkout is {shown(ratio)} times as fast (CPU time: {shown(cpu)})")
        print(f"{answers[0]} of {answers[1]} answers differ")
    if options.json:
        found = {
            "rounds": {name: [run._asdict() for run in each] for name, each in runs.items()},
            "parts": parts, "seconds": totals, "ratio": ratio, "cpu_ratio": cpu,
            "differing": answers and answers[0], "answers": answers and answers[1],
            "threads": options.threads or os.environ.get("OMP_NUM_THREADS"), "cores": os.cpu_count(),
            "targets": to_json([target(ratio, options)] if ratio else []),
        }  # fmt: skip
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if options.figure:
        from atp_eval.plotting import write_chart

        middles = {name: float(seconds[0] or 0) for name, seconds in totals.items()}
        for path in write_chart(chart(parts, middles), options.figure):
            print(path)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measured(sys.argv[3:], Path(sys.argv[2]))
    else:
        main()
