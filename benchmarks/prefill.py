"""What do pruning methods cost and save while a prompt is read? Prefill at LLaVA-1.5-7B's geometry, side by side.

    python benchmarks/prefill.py                              # the targets: fp32, 8 of 32 layers, minutes on 2 cores
    python benchmarks/prefill.py --json docs/speed/prefill.json --figure docs/speed
    python benchmarks/prefill.py --layers 32 --repeats 6      # all of it; the same memory, four times as long
    python benchmarks/prefill.py --layers 16 --all            # every method that has a budget too, at 144 tokens
    python benchmarks/prefill.py --layers 32 --distinct 0 --device cuda --dtype bfloat16

Weights are random: time does not depend on them. The language model is whole but for the number of layers, and a few
layers' weights stand for all (`random_llava.py`; --distinct 0 gives each its own). The vision tower is left out: its
features go in, and so do the states of its last two layers, of CLIP-L's size, for methods that look at them.
`subjects.py` lists what can be measured, FastV as its authors wrote it included.

Methods run in turn, in rotating order, so that whatever else the machine does falls on all of them; ratios and shares
are taken within a round. What happens in front of a layer is timed apart from the layer, so a shorter model tells about
32 layers: "at 32" adds up the measured prune points and, as often as 32 layers have them, measured layers. Layers that
leave out work for dead rows (before a prune point, and the last one) are measured on their own and counted once.
Operations are those of the closed forms (`atp_eval/cost`), which equal torch's count.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from prefill_tables import chart, markdown, target_rows
from random_llava import SIZES, Size, build, prompts, states
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from side_by_side import setting, spread, typed
from stopwatch import Clock, Times, at_depth, counted_reads, prefill
from subjects import ALL_ROWS, AS_WRITTEN, NO_RECYCLING, ONEDNN, Subject, Watch, subject
from targets import to_json

from atp_eval.cost import ModelGeometry, tokens_per_layer
from atp_eval.cost import flops as closed
from atp_eval.engine import model_geometry
from atp_eval.errors import UserError
from atp_eval.methods.budget import PAPER_LAYERS
from atp_eval.models.llava import encoded_already
from atp_eval.plotting import write_chart

METHODS = (
    "upper_bound", "fastv@144", "atp@144", "fastv@88", "atp@88", f"sparsevlm@144{NO_RECYCLING}",
    f"fastv@144{AS_WRITTEN}", f"upper_bound{ONEDNN}",
)  # fmt: skip
BASELINES = (
    "schedule:keep=126-88-20,score=redundant", "prumerge@144", "prumerge_plus@144", "visionzip@144", "divprune@144",
    "vispruner@144", "cdpruner@144:relevance=llm", "pool@144", "sparsevlm@144", "pyramiddrop@144", "dart@144",
    "random@144", "grid@144",
)  # fmt: skip


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """`repeats` interleaved prefills of each method, after one that warms up and counts reads."""
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    if options.threads:
        torch.set_num_threads(options.threads)
    where = setting(
        device, clock=options.clock, dtype=options.dtype, attention=options.attention, repeats=options.repeats
    )
    size = Size(options.layers, options.distinct, options.batch, options.text, device, dtype, options.attention)
    with console.status(f"Making {options.layers} layers of random weights ..."):
        model = build(size)
    geometry, clock = model_geometry(model.config), Clock(device, options.clock)
    inputs, seen = prompts(geometry, size), states(geometry, size)
    subjects: dict[str, Subject] = {}
    times = {name: Times() for name in options.methods}
    reads: dict[str, int] = {}
    watched: dict[str, Watch] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(encoded_already(model))
        progress = stack.enter_context(Progress(*columns, console=console))
        task = progress.add_task("warming up", total=len(times) * (options.repeats + 1))
        for name in times:
            subjects[name] = subject(name, model, inputs, seen)
            with counted_reads() as count:
                watched[name] = prefill(model, subjects[name], inputs, clock, Times())
                reads[name] = count()
            progress.advance(task)
        tokens = {name: watch.tokens() for name, watch in watched.items()}
        kept = {name: watch.kept() for name, watch in watched.items()}
        for repeat in range(options.repeats):
            turn = repeat % len(times)
            for name in [*times][turn:] + [*times][:turn]:
                progress.update(task, description=name)
                prefill(model, subjects[name], inputs, clock, times[name])
                progress.advance(task)
    first = options.methods[0]
    rows = [
        row_of(name, subjects, times, tokens, reads[name] - reads[first], geometry, options, dtype.itemsize)
        for name in times
    ]
    for row in rows:
        plain = row["method"].removesuffix(AS_WRITTEN)
        if plain != row["method"] and plain in kept:
            row["cells_kept_alike"] = [int((kept[plain] & kept[row["method"]]).sum()), int(kept[plain].sum())]
    return {
        "geometry": {"layers": options.layers, "distinct_layers": options.distinct or options.layers, **SIZES},
        "prompt": {"batch": options.batch, "visual_tokens": geometry.cells, "text_tokens": options.text},
        "setting": where,
        "rows": rows,
    }


def row_of(
    name: str,
    subjects: dict[str, Subject],
    times: dict[str, Times],
    tokens: dict[str, NDArray[np.float64]],
    reads: int,
    geometry: ModelGeometry,
    options: argparse.Namespace,
    itemsize: int,
) -> dict[str, Any]:
    """What was measured of a method; `reads`: more than the unpruned model's."""
    first, found, spent, entered = options.methods[0], subjects[name], times[name], tokens[name]
    cuts, total = list(found.layers), np.array(spent.total)
    unpruned, whole_layer = np.array(times[first].total), np.array(times[first].inside).mean(1)
    deep_unpruned = at_depth(times[first], subjects[first].layers, subjects[first].deep_layers, PAPER_LAYERS)
    deep_total = at_depth(spent, cuts, found.deep_layers, PAPER_LAYERS, whole_layer)
    choosing, pruning = np.array(spent.choosing), np.array(spent.before)[:, cuts]
    deep_tokens = tokens_per_layer(deepened(geometry), found.deep_layers, [round(entered[cut]) for cut in cuts])
    return {
        "method": name,
        "prune_layers": cuts,
        "visual_tokens_per_layer": entered.tolist(),
        "average_visual_tokens": entered.mean(),
        "seconds": spread(total),
        "speedup": spread(unpruned / total),
        "choosing_share": spread(choosing / total),
        "pruning_share": spread(pruning.sum(1) / total),
        "point_seconds": [spread(point) for point in pruning.T],
        "reads_a_point": max(0, reads) / len(cuts) if cuts else 0.0,
        "kv_bytes": closed.kv_bytes(geometry, [1], itemsize) * (entered + options.text).sum() * options.batch,
        "at_32": {
            "prune_layers": list(found.deep_layers),
            "average_visual_tokens": float(np.mean(deep_tokens)),
            "seconds": deep_total.tolist(),
            "speedup": spread(deep_unpruned / deep_total),
            "by_operations": operations(geometry, [geometry.cells] * PAPER_LAYERS, options.text, subjects[first])
            / operations(geometry, deep_tokens, options.text, found),
            "choosing_share": spread(choosing / deep_total),
            "pruning_share": spread(pruning.sum(1) / deep_total),
        },
        "layers_with_dead_rows": sorted(spent.alone),
        "rounds": {name: values for name, values in vars(spent).items() if name != "alone"},
    }


def operations(geometry: ModelGeometry, tokens: list[int], text: int, of: Subject) -> int:
    """FLOPs of a prefill of 32 layers that visual tokens [32] enter, without what choosing takes."""
    lengths, deep = [count + text for count in tokens], deepened(geometry)
    if of.all_rows:
        return closed.prefill(deep, lengths).total
    return closed.engine_prefill(deep, lengths, geometry.cells + text, of.leaves_early).total


def deepened(geometry: ModelGeometry) -> ModelGeometry:
    """The same sizes at 32 layers."""
    return replace(geometry, num_layers=PAPER_LAYERS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8, help="decoder layers (32 is the whole model)")
    parser.add_argument("--distinct", type=int, default=2, help="layers with weights of their own; 0: all")
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), help="names (subjects.py); ratios are against the first"
    )
    parser.add_argument("--all", action="store_true", help="the baselines too, at 144 tokens")
    parser.add_argument("--text", type=int, default=64, help="text tokens, 5 of them before the image")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7, help="measured runs of each method; intervals need 6")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager", "flash_attention_2"])
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves it to torch")
    parser.add_argument(
        "--clock", default="wall", choices=["wall", "cpu"], help="cpu: processor seconds, for a busy machine"
    )
    parser.add_argument("--all-rows", action="store_true", help="each method also without leaving out dead rows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, for targets.py")
    parser.add_argument("--figure", type=Path, metavar="FOLDER", help="write prefill.pdf, .png and .csv there")
    options = parser.parse_args()
    if min(options.batch, options.repeats) < 1 or options.layers < 8 or options.text < 6 or options.distinct < 0:
        parser.error("batch and repeats must be at least 1, layers at least 8, text at least 6, distinct at least 0")
    if options.all:
        options.methods += [name for name in BASELINES if name not in options.methods]
    if options.all_rows:
        options.methods += [name + ALL_ROWS for name in options.methods[1:] if not name.endswith(AS_WRITTEN)]
    try:
        result = measure(options, Console(stderr=True))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result["command"] = typed("prefill.py", sys.argv[1:])
    result["targets"] = to_json(target_rows(result))
    print(markdown(result))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.figure:
        print(*write_chart(chart(result), options.figure), sep="\n", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
