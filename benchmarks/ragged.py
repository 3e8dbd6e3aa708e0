"""What does packing save where samples keep unequal numbers of tokens? Prefill at LLaVA-1.5-7B's geometry.

    python benchmarks/ragged.py                                # batch 8, 8 of 32 layers, bf16: minutes, 6 GB of memory
    python benchmarks/ragged.py --longest 1.1 2 3 --repeats 7
    python benchmarks/ragged.py --json docs/speed/ragged.json --figure docs/images

An ATP with untrained modules reads a batch; behind its scores and thresholds the numbers of tokens are set: the
paper's 126, 88 and 20 (Tab. 2) as means over the batch; the longest sample keeps `--longest` times the mean, the others
fall off evenly on a logarithmic scale. Once the engine packs the batch, once every sample is padded to the longest, in
turn. The paper gives no spread of its counts; in batches of the embedded model's trained ATP the longest sample has 1.1
times the mean.

Weights are random: time does not depend on them. Layers are scaled to the depth, as are those that it prunes before.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from random_llava import Size, build, prompts
from scipy.optimize import brentq
from side_by_side import Bar, add_options, bars, described, in_turn, setting, shown, spread, times_faster, typed, write
from targets import Target, to_json

from atp_eval.bench.machine import wait
from atp_eval.bench.untrained import Stages, fitted_atp, paper_stages
from atp_eval.cost import KNOWN, ModelGeometry
from atp_eval.cost import flops as closed
from atp_eval.engine import model_geometry, packed, prune
from atp_eval.methods import Decision
from atp_eval.methods.atp import ATP
from atp_eval.methods.budget import scale_layer
from atp_eval.methods.decision import keep_top
from atp_eval.models.llava import encoded_already

LAYERS, KEEP = paper_stages(144, KNOWN["llava-hf/llava-1.5-7b-hf"])  # of 32 layers: 4, 14, 24; 126, 88, 20
TARGET, AT = 1.25, 2.0


def shares(batch: int, longest: float) -> list[float]:
    """Factors with mean 1 whose largest is `longest`, evenly spaced on a logarithmic scale.

    >>> shares(3, 1.0)
    [1.0, 1.0, 1.0]
    """
    if longest == 1 or batch == 1:
        return [1.0] * batch

    def made(smallest: float) -> Any:
        return np.geomspace(smallest, longest, batch)

    return [float(x) for x in made(brentq(lambda smallest: made(smallest).mean() - 1, 1e-6, 1))]


@dataclass(frozen=True, kw_only=True)
class Uneven(ATP):
    """An ATP at its full cost, and then as many tokens of each sample as it is told: counts[point][sample]."""

    counted: tuple[tuple[int, ...], ...] = ()

    def decide(self, point: Any) -> Decision:
        """The best by their own attention, as many as the sample is to keep."""
        super().decide(point)
        counts = self.counted[self.prune_layers.index(point.layer)]
        best = keep_top(point.self_score(), max(counts)).keep
        rank = point.self_score().masked_fill(~best, -torch.inf).argsort(dim=1, descending=True).argsort(dim=1)
        return Decision(rank < torch.tensor(counts, device=rank.device)[:, None])


@contextmanager
def padded() -> Iterator[None]:
    """Inside the block nothing is packed."""
    worth, packed.WORTH = packed.WORTH, 0.0
    try:
        yield
    finally:
        packed.WORTH = worth


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time both ways for each spread, in turn."""
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    where = setting(device, dtype=options.dtype, repeats=options.repeats, layers=options.layers, batch=options.batch)
    size = Size(options.layers, options.distinct, options.batch, options.text, device, dtype, "sdpa")
    model = build(size)
    geometry = model_geometry(model.config)
    inputs = prompts(geometry, size)
    names = range(options.batch)
    cuts = tuple(scale_layer(layer, options.layers) for layer in LAYERS)
    with encoded_already(model):
        plain = fitted_atp(model, Stages(cuts, KEEP), "atp@144", lambda: model(**inputs), sample_ids=names)
    methods = {longest: uneven(plain, options.batch, longest) for longest in options.longest}

    def work(longest: float, packs: bool) -> Callable[[], object]:
        def run() -> None:
            with prune(model, methods[longest], sample_ids=names):
                if packs:
                    model(**inputs)
                else:
                    with padded():
                        model(**inputs)

        return run

    def clock() -> float:
        wait(device)
        return time.perf_counter()

    works = {f"{longest:g} {way}": work(longest, way == "packed") for longest in options.longest for way in WAYS}
    with encoded_already(model):
        check_equal(model, inputs, methods[options.longest[-1]], names)
        seconds = in_turn(works, options.repeats, clock)
    rows = []
    for longest in options.longest:
        lengths = np.array(tokens_of(methods[longest], options, geometry.cells)) + options.text
        longest_ones = np.broadcast_to(lengths.max(1, keepdims=True), lengths.shape)
        rows.append(
            {
                "longest": longest,
                "tokens": {"mean": lengths.mean(1).tolist(), "longest": lengths.max(1).tolist()},
                "padding_share": 1 - lengths.sum() / longest_ones.sum(),
                "seconds": {way: spread(seconds[f"{longest:g} {way}"]) for way in WAYS},
                "ratio": times_faster(seconds, f"{longest:g} packed", f"{longest:g} padded"),
                "by_operations": operations(geometry, longest_ones) / operations(geometry, lengths),
                "target": TARGET if longest >= AT else None,
            }
        )
    about = f"batch {options.batch}, {options.layers} layers, {options.dtype}"
    targets = [
        Target(
            f"ragged batch of `atp@144`, longest {row['longest']:g} times the mean; {about}",
            "the same batch padded",
            TARGET,
            row["ratio"],
            command=typed("ragged.py", sys.argv[1:]),
            by_operations=row["by_operations"],
        )
        for row in rows
        if row["target"]
    ]
    return {"rows": rows, "setting": where, "targets": to_json(targets)}


WAYS = ("packed", "padded")


def uneven(plain: ATP, batch: int, longest: float) -> Uneven:
    """The same modules, with numbers of tokens from outside."""
    counts = [[max(1, round(keep * share)) for share in shares(batch, longest)] for keep in KEEP]
    return Uneven(
        adapter=plain.adapter,
        layers=plain.layers,
        trained=plain.trained,
        asked="uneven",
        counted=tuple(tuple(row) for row in counts),
    )


def tokens_of(method: Uneven, options: argparse.Namespace, cells: int) -> list[list[int]]:
    """Visual tokens that enter each layer, [layers][samples]."""
    found = []
    for layer in range(options.layers):
        stage = sum(cut <= layer for cut in method.prune_layers)
        found.append(list(method.counted[stage - 1]) if stage else [cells] * options.batch)
    return found


def operations(geometry: ModelGeometry, lengths: NDArray[np.int64]) -> int:
    """FLOPs of reading prompts of which lengths [layers, samples] tokens enter each layer; choosing is left out."""
    full = int(lengths[0, 0])
    return sum(closed.engine_prefill(geometry, one, full, early=True).total for one in lengths.T.tolist())


def check_equal(model: Any, inputs: dict[str, Any], method: ATP, names: Sequence[int]) -> None:
    """Both ways give the same next word for each sample, up to rounding."""
    with prune(model, method, sample_ids=names):
        together = model(**inputs).logits
        with padded():
            apart = model(**inputs).logits
    difference = ((together - apart).abs().max() / apart.abs().max()).item()
    if difference > 0.05:
        sys.exit(f"packed and padded differ by {difference:.3f} of the largest logit")


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| longest / mean | padding | packed, s | padded, s | packed is faster by | by operations |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['longest']:g} | {100 * row['padding_share']:.0f} % | {shown(row['seconds']['packed'])} | "
            f"{shown(row['seconds']['padded'])} | {shown(row['ratio'])} | {row['by_operations']:.2f} |"
        )
    return "\n".join([*lines, "", described(result["setting"])])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--longest", type=float, nargs="+", default=[1.1, 2.0], help="longest sample over the mean")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--distinct", type=int, default=2, help="layers with weights of their own")
    parser.add_argument("--text", type=int, default=64, help="text tokens, 5 of them before the image")
    add_options(parser, repeats=6)
    options = parser.parse_args()
    if options.layers < 8 or options.batch < 2 or not all(1 <= x <= 4 for x in options.longest) or options.repeats < 1:
        parser.error("--layers must be at least 8, --batch 2, --repeats 1, and --longest from 1 to 4")
    if options.threads:
        torch.set_num_threads(options.threads)
    with torch.no_grad():
        result = measure(options)
    print(table(result))
    chart = bars(
        "speed-ragged",
        "How many times as fast a ragged batch is read packed as padded: "
        + "; ".join(f"longest {r['longest']:g} times the mean: {shown(r['ratio'])}" for r in result["rows"]),
        [Bar(f"longest {r['longest']:g} x the mean", r["ratio"], r["target"]) for r in result["rows"]],
        "times as fast as padded to the longest",
    )
    write(result, chart, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
