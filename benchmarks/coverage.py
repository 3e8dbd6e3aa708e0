"""Do intervals hold the truth as often as they say, and do tests cry wolf as seldom? Simulated, with the code that
tables and pages use.

    python benchmarks/coverage.py                                # all shapes, minutes on one core
    python benchmarks/coverage.py --shapes 'MME' --datasets 500  # some of them, by a part of their names
    python benchmarks/coverage.py --json docs/coverage.json --docs docs/statistics.md

A shape is a population of pictures. Of each picture a question is answered right by the upper bound with a probability
of its own, and of the right answers a method loses, of the wrong ones it gains a share that is the picture's own too:
three beta distributions with a common intraclass correlation. So answers hang together within pictures and methods are
paired; what is true follows from the distributions' moments. Every dataset is a new sample of pictures. It goes through
`analysis.retention.retain` as a benchmark of a run does, thousands of datasets as so many pairs of methods, a block at
a time; the datasets of a block share the draws of the bootstrap.

coverage: share of the intervals that hold the truth, of those that are bounded (where no two answers differ there is
none); percentile: the same of the plain percentile interval, from the same draws; ±: 1.96 standard errors of a share
near 95 %. wrong: share of true nulls that are rejected at 5 %, by the p that tables show (McNemar's with pictures
exchanged), by exact McNemar on questions as if none shared a picture, by Durkalski's and by the bootstrap.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from populations import Shape, frames
from scipy import stats

from atp_eval.analysis.comparisons import of_scores
from atp_eval.analysis.mcnemar import Answers
from atp_eval.analysis.retention import Retained, average, retain
from atp_eval.analysis.significance import Interval, percentile_interval

BLOCK = 125  # datasets that share draws
RESAMPLES = 2000  # fewer than in tables: the quantiles' own noise costs less than 0.2 points of coverage


@dataclass
class Tally:
    """What came of a shape, in per cent but for counts and seconds."""

    shape: Shape
    datasets: int = 0
    truth: float = 0.0
    unbounded: float = 0.0
    coverage: float = 0.0
    below: float = 0.0
    above: float = 0.0
    percentile: float = 0.0
    error: float = 0.0
    differing: float = 0.0
    width: float = 0.0
    wrong: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def block(shape: Shape, datasets: int, seed: int, resamples: int) -> Iterator[tuple[Retained, Retained]]:
    """Pairs of upper bound and method, measured; of several benchmarks the first pair, with the average retention."""
    many = []
    for number in range(shape.benchmarks):
        rows = frames(shape, datasets, np.random.default_rng([seed, number]))
        references = {label: label.replace("pruned", "upper") for label in rows if label.startswith("pruned")}
        aggregation = shape.kind if shape.kind in ("mme", "mmbench") else "mean"
        form = {"f1": "yes_no", "soft": "open"}.get(shape.kind, "choice")
        many.append(
            retain(
                rows,
                references,
                benchmark=f"{number}",
                aggregation=aggregation,
                scale=1.0,
                form=form,  # type: ignore[arg-type]
                resamples=resamples,
                seed=seed,
            )
        )
    for number in range(datasets):
        pruned = [found[f"pruned {number}"] for found in many]
        if shape.benchmarks > 1:
            one = Retained(pruned[0].score, average(pruned), 0, 0, shape.pictures, sum(p.differing for p in pruned))
            yield one, one
        else:
            yield many[0][f"upper {number}"], pruned[0]


# ------------------------------------------------------------------ what is counted


def measure(shape: Shape, datasets: int = 2000, seed: int = 0, resamples: int = RESAMPLES) -> Tally:
    """Simulate a shape."""
    began, truth = time.perf_counter(), shape.truth
    intervals, plain, differing, p_values = [], [], [], []
    for start in range(0, datasets, BLOCK):
        for upper, pruned in block(shape, min(BLOCK, datasets - start), seed * 10**6 + start, resamples):
            differing.append(pruned.differing)
            if shape.kind == "f1":
                interval = pruned.extra["F1"].retention
                assert interval is not None
                intervals.append(interval)
                continue
            assert pruned.kept is not None
            intervals.append(pruned.kept.interval)
            plain.append(percentile_interval(pruned.kept.value, pruned.kept.draws))
            if abs(truth - 100) < 1e-9:
                p_values.append(tests(upper, pruned))
    bounded = [i for i in intervals if i.bounded]
    hits = holds(bounded, truth)
    return Tally(
        shape=shape,
        datasets=len(intervals),
        truth=truth,
        unbounded=100 * (1 - len(bounded) / len(intervals)),
        coverage=100 * hits,
        below=100 * float(np.mean([i.high < truth for i in bounded])),
        above=100 * float(np.mean([i.low > truth for i in bounded])),
        percentile=100 * holds([p for p, i in zip(plain, intervals, strict=False) if i.bounded], truth),
        error=196 * math.sqrt(0.95 * 0.05 / len(bounded)),
        differing=float(np.median(differing)),
        width=float(np.median([i.high - i.low for i in bounded])),
        wrong={k: 100 * float(np.mean([p[k] <= 0.05 for p in p_values])) for k in (p_values[0] if p_values else ())},
        seconds=time.perf_counter() - began,
    )


def holds(intervals: Sequence[Interval], truth: float) -> float:
    """The share that holds the truth; NaN of none."""
    return float(np.mean([i.low - 1e-9 <= truth <= i.high + 1e-9 for i in intervals])) if intervals else math.nan


def tests(upper: Retained, pruned: Retained) -> dict[str, float]:
    """Every p-value there is of a method being as good as the upper bound."""
    assert pruned.kept is not None
    found = {"bootstrap": pruned.kept.p_value(100.0)}
    if pruned.answers is not None and upper.answers is not None:
        shown = of_scores(pruned, upper, pruned.kept, 100.0)
        assert shown.p_questions is not None
        found |= {"shown": shown.p, "questions": shown.p_questions}
        found["durkalski"] = durkalski(pruned.answers, upper.answers)
    return found


def durkalski(first: Answers, second: Answers) -> float:
    """The p of Durkalski et al. (2003): sum(d / n)^2 / sum((d / n)^2), for d more right answers to n questions."""
    mean = np.bincount(first.cluster, first.right.astype(float) - second.right) / np.bincount(first.cluster)
    squares = float((mean**2).sum())
    return float(stats.chi2.sf(mean.sum() ** 2 / squares, 1)) if squares else 1.0


# ------------------------------------------------------------------ what is run

HIGH, LOW = {"loss": 0.03, "gain": 0.02}, {"loss": 0.35, "gain": 0.05}
NULL = {"loss": 0.06, "gain": 0.14}
F1 = {"kind": "f1", "right": 0.80, "no_right": 0.88, "no_loss": 0.05}
SHAPES: tuple[Shape, ...] = (
    *(Shape(f"{n} pictures x 5", n) for n in (10, 20, 50, 100, 500)),
    *(Shape(f"{n} pictures x 5, high retention", n, **HIGH) for n in (20, 50, 100, 500)),  # type: ignore[arg-type]
    *(Shape(f"{n} pictures x 5, low retention", n, **LOW) for n in (20, 100)),  # type: ignore[arg-type]
    *(Shape(f"{n} pictures x 1", n, (1, 1), icc=0.0) for n in (50, 200, 1000)),
    *(Shape(f"{n} pictures x 1-20", n, (1, 20)) for n in (20, 50, 200)),
    Shape("100 pictures x 5, alike within pictures", 100, icc=0.5),
    Shape("100 pictures x 5, soft scores", 100, kind="soft"),
    Shape("average of 3 benchmarks of 50 pictures x 5", 50, benchmarks=3),
    *(Shape(f"MME, {n} pairs", n, (2, 2), kind="mme") for n in (60, 200, 500)),
    *(Shape(f"MMBench, {n} groups of 4", n, (4, 4), kind="mmbench") for n in (50, 200, 1000)),
    *(Shape(f"POPE's F1, {n} pictures x 6", n, (6, 6), **F1) for n in (20, 50, 300)),  # type: ignore[arg-type]
    *(Shape(f"null: {n} pictures x 5", n, **NULL) for n in (20, 100, 300)),  # type: ignore[arg-type]
    Shape("null: 100 pictures x 1-20", 100, (1, 20), **NULL),  # type: ignore[arg-type]
    Shape("null: 200 pictures x 1", 200, (1, 1), icc=0.0, **NULL),  # type: ignore[arg-type]
    Shape("null: 100 pictures x 5, alike within pictures", 100, icc=0.5, **NULL),  # type: ignore[arg-type]
)


def markdown(found: Sequence[Tally | dict[str, Any]]) -> str:
    """The two tables of docs/statistics.md."""
    rows = [t if isinstance(t, dict) else asdict(t) for t in found]
    lines = [
        "| simulated | truth, % | coverage, % | ± | plain percentile, % | no interval, % | pictures that differ |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for t in rows:
        plain = "–" if t["percentile"] is None or t["percentile"] != t["percentile"] else f"{t['percentile']:.1f}"
        lines.append(
            f"| {t['shape']['name']} | {t['truth']:.1f} | {t['coverage']:.1f} | {t['error']:.1f} | {plain} | "
            f"{t['unbounded']:.1f} | {t['differing']:.0f} |"
        )
    names = ("shown", "questions", "durkalski", "bootstrap")
    lines += [
        "",
        "| true nulls rejected at 5 % | pictures exchanged (shown), % | questions, % | Durkalski, % | bootstrap, % |",
        "|---|--:|--:|--:|--:|",
    ]
    for t in rows:
        if t["wrong"]:
            cells = " | ".join(f"{t['wrong'][name]:.1f}" for name in names)
            lines.append(f"| {t['shape']['name'].removeprefix('null: ')} | {cells} |")
    return "\n".join(lines) + "\n"


MARK = "<!-- coverage -->"


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="", metavar="TEXT", help="only shapes whose name holds this")
    parser.add_argument("--datasets", type=int, default=2000, help="of each shape")
    parser.add_argument("--resamples", type=int, default=RESAMPLES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--docs", type=Path, metavar="FILE", help=f"put the tables there, between two {MARK}")
    args = parser.parse_args(arguments)
    chosen = [shape for shape in SHAPES if args.shapes in shape.name]
    if not chosen:
        parser.error(f"no shape's name holds {args.shapes!r}; there are: {', '.join(s.name for s in SHAPES)}")
    before = args.docs.read_text(encoding="utf-8").split(MARK) if args.docs else [""] * 3
    if len(before) != 3:
        parser.error(f"{args.docs} has {len(before) - 1} of the two lines {MARK} that the tables go between")
    if args.datasets < 1 or args.resamples < 2:
        parser.error("--datasets takes at least 1, --resamples at least 2")
    found = []
    for shape in chosen:
        found.append(measure(shape, args.datasets, args.seed, args.resamples))
        last = found[-1]
        print(f"{shape.name}: {last.coverage:.1f} % in {last.seconds:.0f} s {last.wrong or ''}", file=sys.stderr)
    print(markdown(found), end="")
    if args.json:
        settings = {"datasets": args.datasets, "resamples": args.resamples, "seed": args.seed}
        shapes = [asdict(t) | {"percentile": None if math.isnan(t.percentile) else t.percentile} for t in found]
        for shape in shapes:
            del shape["seconds"]  # of this machine, on this day
        args.json.write_text(json.dumps({**settings, "shapes": shapes}, indent=1) + "\n", encoding="utf-8")
    if args.docs:
        text = f"{before[0]}{MARK}\n\n{markdown(found)}\n{MARK}{before[2]}"
        args.docs.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
