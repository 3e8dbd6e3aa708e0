"""What do pruning methods cost and save while a prompt is read? Prefill at LLaVA-1.5-7B's geometry, side by side.

    python benchmarks/prefill.py                              # 16 of 32 layers, bf16, CPU: 9 GB of memory, minutes
    python benchmarks/prefill.py --layers 8 --dtype float32   # where the CPU has no instructions for bf16
    python benchmarks/prefill.py --layers 4 --batch 8
    python benchmarks/prefill.py --all                        # every method that has a budget, at 144 tokens
    python benchmarks/prefill.py --layers 32 --device cuda --json prefill.json

Weights are random: time does not depend on them. The language model is whole but for the number of layers. The vision
tower is left out: its features go in, and so do the states of its last two layers, of CLIP-L's size, for methods that
look at them. A budget is solved for 32 layers; its counts stay, its layers are scaled to the depth. `atp@144` is an ATP
with untrained modules whose thresholds are set to keep the paper's 126, 88 and 20 tokens (Tab. 2), saved and loaded as
a trained one would be; the schedule is ATP's without its modules.

Methods run in turn, in rotating order, so that whatever else the machine does falls on all of them; ratios and shares
are taken within a round. What happens in front of a layer is timed apart from the layer, so a shorter model tells about
32 layers: "at 32" adds up the measured prune points and, as often as 32 layers have them, measured layers. Layers that
leave out work for dead rows (before a prune point, and the last one) are measured on their own and counted once.
`--all-rows` runs each method a second time with every row going through every layer, as "METHOD, all rows".
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from stopwatch import Clock, Times, Wrapped, at_depth, counted_reads, prefill
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from atp_eval.analysis.significance import median_interval
from atp_eval.engine import VisionStates, early, model_geometry, prune
from atp_eval.engine.fingerprint import fingerprint
from atp_eval.errors import UserError
from atp_eval.methods import Decision, Geometry, Method, get_method
from atp_eval.methods.atp import ATP, Adapter, AdapterConfig, AtpOptions, BaseModelId, new_modules
from atp_eval.methods.budget import PAPER_LAYERS, average_input, scale_layer
from atp_eval.methods.stages import scale_layers
from atp_eval.models.llava import encoded_already

SIZES = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "vocab_size": 32064}
IMAGE_TOKEN = 32000
UNTRAINED, ATP_LAYERS, ATP_KEEP = "atp@144", (4, 14, 24), (126, 88, 20)
ALL_ROWS = ", all rows"
METHODS = ("upper_bound", "fastv@144", "schedule:keep=126-88-20,score=redundant", UNTRAINED)
BASELINES = (
    "prumerge@144", "prumerge_plus@144", "visionzip@144", "divprune@144", "vispruner@144", "cdpruner@144:relevance=llm",
    "pool@144", "sparsevlm@144", "pyramiddrop@144", "dart@144", "random@144", "grid@144",
)  # fmt: skip
TOWER = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}  # CLIP ViT-L


class Fitting(Wrapped):
    """Moves theta_r of each of an ATP's modules until ATP_KEEP tokens stay, as a mean over the batch."""

    def decide(self, point: Any) -> Decision:
        index = self.inner.prune_layers.index(point.layer)
        bias, wanted = self.inner.trained.modules[index].head_r.bias, ATP_KEEP[index] * len(point.kept)
        low, high = -20.0, 20.0
        for _ in range(26):
            middle = (low + high) / 2
            bias.fill_(middle)
            if int(self.inner.decide(point).keep.sum()) > wanted:
                low = middle
            else:
                high = middle
        bias.fill_(high)
        decision: Decision = self.inner.decide(point)
        return decision


def build(layers: int, device: torch.device, dtype: torch.dtype, attention: str) -> Any:
    """LLaVA-1.5-7B's language model at `layers` layers, behind the last two layers of its vision tower."""
    vision = CLIPVisionConfig(num_hidden_layers=2, image_size=336, patch_size=14, **TOWER)
    text = LlamaConfig(num_hidden_layers=layers, max_position_embeddings=4096, **SIZES)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN, vision_feature_layer=-2)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = LlavaForConditionalGeneration._from_config(config, attn_implementation=attention)
    finally:
        torch.set_default_dtype(before)
    return model.eval()


def untrained(model: Any, inputs: dict[str, Any], folder: Path) -> ATP:
    """An ATP for this model that keeps ATP_KEEP tokens of these inputs; through a folder, like any other."""
    geometry = model_geometry(model.config)
    options = AtpOptions(layers=tuple(scale_layer(layer, geometry.num_layers) for layer in ATP_LAYERS))
    base = BaseModelId(id="random", fingerprint=fingerprint(model), num_layers=geometry.num_layers, grid=geometry.grid)
    modules = new_modules(options).requires_grad_(False)
    for module in modules:
        module.head_s.bias.fill_(2.75)  # theta_s near 0.94: 12 tokens on coarse grids stay, the rest is up to theta_r
    adapter = Adapter(AdapterConfig(base=base, options=options), modules, torch.zeros(3, 2), torch.zeros(0, 3))
    method = ATP(adapter="untrained", trained=adapter.to(model.device))
    with prune(model, Fitting(method)):  # type: ignore[arg-type]
        model(**inputs)
    adapter.save(folder)
    return ATP(adapter=str(folder)).solve(geometry)


def shallow(spec: str, layers: int) -> Method:
    """A budget's counts on 32 layers, before the layers of a model of another depth."""
    method = get_method(spec).solve(Geometry(PAPER_LAYERS, (24, 24)))
    if "layers" in (names := [f.name for f in fields(method)]):
        return replace(method, layers=scale_layers(method.prune_layers, layers))  # type: ignore[call-arg]
    if "layer" in names and (first := method.prune_layers[0]):
        return replace(method, layer=scale_layer(first, layers))  # type: ignore[call-arg]
    return method


def states(geometry: Any, options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> VisionStates:
    """What a vision tower would have left of the pictures."""
    generator, width = torch.Generator().manual_seed(1), TOWER["hidden_size"]
    entering, leaving = torch.randn(2, options.batch, geometry.cells + 1, width, generator=generator).to(device, dtype)
    return VisionStates(torch.zeros(options.batch, 3, 336, 336, device=device, dtype=dtype), entering, leaving)


def prompts(geometry: Any, options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What the model is called with: random words around the image, and features instead of pixels."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(3, 30000, (options.batch, options.text), generator=generator)
    image = torch.full((options.batch, geometry.cells), IMAGE_TOKEN)
    features = torch.randn(options.batch, geometry.cells, geometry.hidden, generator=generator)
    return {
        "input_ids": torch.cat([words[:, :5], image, words[:, 5:]], 1).to(device),
        "pixel_values": features.to(device, dtype),
        "use_cache": True,
        "logits_to_keep": 1,
    }


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """`repeats` interleaved prefills of each method, after one that warms up and counts reads."""
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    if options.threads:
        torch.set_num_threads(options.threads)
    with console.status(f"Making {options.layers} layers of random weights ..."):
        model = build(options.layers, device, dtype, options.attention)
    geometry, clock = model_geometry(model.config), Clock(device, options.clock)
    inputs, seen = prompts(geometry, options, device, dtype), states(geometry, options, device, dtype)
    methods: dict[str, Method] = {}
    times = {spec: Times() for spec in options.methods}
    reads, traces = {}, {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(encoded_already(model))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        progress = stack.enter_context(Progress(*columns, console=console))
        task = progress.add_task("warming up", total=len(times) * (options.repeats + 1))
        for spec in times:
            name = spec.removesuffix(ALL_ROWS)
            methods[spec] = untrained(model, inputs, folder) if name == UNTRAINED else shallow(name, options.layers)
            with counted_reads() as count, every_row(spec):
                read = prefill(model, methods[spec], inputs, clock, Times(), seen)
                reads[spec] = count()
            traces[spec] = read.traces
            progress.advance(task)
        for repeat in range(options.repeats):
            turn = repeat % len(times)
            for spec in [*times][turn:] + [*times][:turn]:
                progress.update(task, description=spec)
                with every_row(spec):
                    prefill(model, methods[spec], inputs, clock, times[spec], seen)
                progress.advance(task)
    first = options.methods[0]
    deep = Geometry(PAPER_LAYERS, geometry.grid)
    names = {spec: spec.removesuffix(ALL_ROWS) for spec in times}
    deep_cuts = {
        spec: ATP_LAYERS if name == UNTRAINED else get_method(name).solve(deep).prune_layers
        for spec, name in names.items()
    }
    unpruned = np.array(times[first].total)
    deep_unpruned = at_depth(times[first], methods[first].prune_layers, deep_cuts[first], PAPER_LAYERS)
    rows, whole_layer = [], np.array(times[first].inside).mean(1)
    for spec, method in methods.items():
        cuts, total = list(method.prune_layers), np.array(times[spec].total)
        choosing, pruning = np.array(times[spec].choosing), np.array(times[spec].before)[:, cuts]
        computed = at_depth(times[spec], cuts, deep_cuts[spec], PAPER_LAYERS, whole_layer)
        tokens = np.mean([trace.tokens_per_layer() for trace in traces[spec]], axis=0)
        rows.append(
            {
                "method": spec,
                "prune_layers": cuts,
                "visual_tokens_per_layer": tokens.tolist(),
                "average_visual_tokens": tokens.mean(),
                "seconds": spread(total),
                "ratio": spread(total / unpruned),
                "length_ratio": (tokens.mean() + options.text) / (geometry.cells + options.text),
                "choosing_share": spread(choosing / total),
                "pruning_share": spread(pruning.sum(1) / total),
                "point_seconds": [spread(point) for point in pruning.T],
                "reads_a_point": (reads[spec] - reads[first]) / len(cuts) if cuts else 0.0,
                "kv_bytes": (tokens + options.text).sum()
                * 2 * geometry.kv_heads * geometry.head_dim * dtype.itemsize * options.batch,
                "at_32": {
                    "prune_layers": list(deep_cuts[spec]),
                    "average_visual_tokens": average_input(
                        deep, deep_cuts[spec], [tokens[cut] for cut in cuts]
                    ),
                    "ratio": spread(computed / deep_unpruned),
                    "choosing_share": spread(choosing / computed),
                    "pruning_share": spread(pruning.sum(1) / computed),
                },
                "layers_with_dead_rows": sorted(times[spec].alone),
                "rounds": {name: values for name, values in vars(times[spec]).items() if name != "alone"},
            }
        )  # fmt: skip
    return {
        "geometry": {"layers": options.layers, **SIZES},
        "prompt": {"batch": options.batch, "visual_tokens": geometry.cells, "text_tokens": options.text},
        "setting": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
            "threads": torch.get_num_threads(),
            "clock": options.clock,
            "dtype": options.dtype,
            "attention": options.attention,
            "repeats": options.repeats,
            "load": os.getloadavg()[1],
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "rows": rows,
    }


@contextmanager
def every_row(spec: str) -> Iterator[None]:
    """Inside the block no work is left out for dead rows where the spec says so."""
    kinds = early.LAYERS, early.LAST_LAYERS
    if spec.endswith(ALL_ROWS):
        early.LAYERS = early.LAST_LAYERS = ()  # type: ignore[assignment]
    try:
        yield
    finally:
        early.LAYERS, early.LAST_LAYERS = kinds


def processor() -> str:
    return f"{platform.processor() or platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def spread(values: NDArray[np.float64]) -> list[float | None]:
    """Median, and the bounds of its 95 % interval (None below 6 rounds)."""
    return [None if math.isnan(x) else float(x) for x in median_interval(values)]


def markdown(result: dict[str, Any]) -> str:
    """The result as a Markdown table with a line about the setting."""
    setting, prompt, layers = result["setting"], result["prompt"], result["geometry"]["layers"]

    def show(values: list[float | None], form: str, scale: float = 1) -> str:
        middle, low, high = (None if x is None else format(scale * x, form) for x in values)
        return f"{middle}" if low is None else f"{middle} [{low}, {high}]"

    heads = ("method", "tokens", f"{setting['clock']} seconds", "time, ratio", "length, ratio", "choosing, %",
             "pruning, %", "reads a point", "KV, MB", "at 32: tokens", "ratio", "choosing, %",
             "pruning, %")  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|--:" * (len(heads) - 1) + "|"]
    for row in result["rows"]:
        deep = row["at_32"]
        cells = (
            f"`{row['method']}`",
            f"{row['average_visual_tokens']:.1f}",
            show(row["seconds"], ".2f"),
            show(row["ratio"], ".3f"),
            f"{row['length_ratio']:.3f}",
            show(row["choosing_share"], ".2f", 100),
            show(row["pruning_share"], ".2f", 100),
            f"{row['reads_a_point']:g}",
            f"{row['kv_bytes'] / 1e6:.0f}",
            f"{deep['average_visual_tokens']:.1f}",
            show(deep["ratio"], ".3f"),
            show(deep["choosing_share"], ".2f", 100),
            show(deep["pruning_share"], ".2f", 100),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + (
        f"\n\nPrefill of {prompt['visual_tokens']} visual and {prompt['text_tokens']} text tokens, batch "
        f"{prompt['batch']}, {layers} layers, {setting['dtype']}, {setting['attention']}; {setting['device']}, "
        f"{setting['threads']} threads, load {setting['load']:.1f}; torch {setting['torch']}, transformers "
        f"{setting['transformers']}. Medians of {setting['repeats']} interleaved rounds [95 % interval]; ratios to the "
        "first row, within a round. Length: tokens that enter a layer, text included. Choosing: scores, modules and "
        "decisions; pruning: choosing, dropping and masks. At 32: computed for 32 layers from these times.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=16, help="decoder layers (32 is the whole model)")
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), help="spec strings; ratios are against the first"
    )
    parser.add_argument("--all", action="store_true", help="the baselines too, at 144 tokens")
    parser.add_argument("--text", type=int, default=64, help="text tokens, 5 of them before the image")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7, help="measured runs of each method; intervals need 6")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager", "flash_attention_2"])
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves it to torch")
    parser.add_argument(
        "--clock", default="wall", choices=["wall", "cpu"], help="cpu: processor seconds, for a busy machine"
    )
    parser.add_argument("--all-rows", action="store_true", help="each method also without leaving out dead rows")
    parser.add_argument("--json", type=Path, help="write the result here as well")
    options = parser.parse_args()
    if min(options.batch, options.repeats) < 1 or options.layers < 4 or options.text < 6:
        parser.error("batch and repeats must be at least 1, layers at least 4, text at least 6")
    if options.all:
        options.methods += [spec for spec in BASELINES if spec not in options.methods]
    if options.all_rows:
        options.methods += [spec + ALL_ROWS for spec in options.methods[1:]]
    try:
        result = measure(options, Console(stderr=True))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
