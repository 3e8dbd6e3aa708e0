"""How much faster is reading a pruned prompt? Prefill with and without pruning, side by side, at 7B geometry.

    python benchmarks/prefill.py                      # 8 of 32 layers, fp32, CPU: about 9 GB of memory, minutes
    python benchmarks/prefill.py --layers 32 --device cuda --dtype bfloat16
    python benchmarks/prefill.py --json prefill.json

Weights are random: time does not depend on them. The vision tower is left out (features go in), the language model is
whole but for the number of layers; budgets are solved for that number, so the average of tokens is the same as at 32.
Methods run in turn, in rotating order, so that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from atp_eval.engine import model_geometry, prune
from atp_eval.errors import UserError
from atp_eval.methods import Geometry, Method, get_method
from atp_eval.models.llava import encoded_already
from atp_eval.trace import KeepTrace

IMAGE_TOKEN = 32000
METHODS = ("upper_bound", "fastv@144", "schedule@144:score=redundant", "random@144", "pool@144")


class Timed:
    """Stands in for a solved method and adds up the seconds spent in its decisions, scores included."""

    def __init__(self, method: Method, clock: Callable[[], float]) -> None:
        self.inner, self.clock, self.seconds = method, clock, 0.0
        self.prune_layers = method.prune_layers

    def solve(self, geometry: Geometry) -> Timed:
        return self

    def decide(self, point: Any) -> Any:
        start = self.clock()
        decision = self.inner.decide(point)
        self.seconds += self.clock() - start
        return decision


def build(layers: int, device: torch.device, dtype: torch.dtype, attention: str) -> Any:
    """LLaVA-1.5-7B's language model at `layers` layers, behind a vision tower of next to nothing."""
    vision = CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=336, patch_size=14
    )
    text = LlamaConfig(
        vocab_size=32064,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN, vision_feature_layer=-1)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = LlavaForConditionalGeneration._from_config(config, attn_implementation=attention)
    finally:
        torch.set_default_dtype(before)
    return model.eval()


@contextmanager
def bar(console: Console, total: int) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("warming up", total=total)
        yield lambda text, step=0: progress.update(task, description=text, advance=step)


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Medians over `repeats` interleaved prefills of each method, after one warm-up each."""
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    if options.threads:
        torch.set_num_threads(options.threads)

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    with console.status(f"Making {options.layers} layers of random weights ..."):
        model = build(options.layers, device, dtype, options.attention)
    geometry = model_geometry(model.config)
    methods: dict[str, Any] = {spec: Timed(get_method(spec).solve(geometry), clock) for spec in options.methods}
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(3, 30000, (options.batch, options.text), generator=generator)
    image = torch.full((options.batch, geometry.cells), IMAGE_TOKEN)
    ids = torch.cat([words[:, :5], image, words[:, 5:]], 1).to(device)
    features = torch.randn(options.batch, geometry.cells, geometry.hidden, generator=generator).to(device, dtype)

    seconds: dict[str, list[float]] = {spec: [] for spec in methods}
    busy: dict[str, list[float]] = {spec: [] for spec in methods}
    choosing: dict[str, list[float]] = {spec: [] for spec in methods}
    traces: dict[str, KeepTrace] = {}
    with bar(console, len(methods) * (options.repeats + 1)) as show, torch.inference_mode(), encoded_already(model):
        for repeat in range(options.repeats + 1):
            order = list(methods)
            turn = repeat % len(order)
            for spec in order[turn:] + order[:turn]:
                show(spec)
                method = methods[spec]
                method.seconds = 0.0
                with prune(model, method, sample_ids=range(options.batch)) as pruned:
                    start, work = clock(), time.process_time()
                    model(input_ids=ids, pixel_values=features, use_cache=True, logits_to_keep=1)
                    if repeat:
                        seconds[spec].append(clock() - start)
                        busy[spec].append(time.process_time() - work)
                        choosing[spec].append(method.seconds)
                    traces[spec] = pruned.traces[0]
                show(spec, 1)
    first, first_busy = (statistics.median(times[options.methods[0]]) for times in (seconds, busy))
    rows = []
    for spec, method in methods.items():
        median = statistics.median(seconds[spec])
        tokens = traces[spec].tokens_per_layer()
        rows.append(
            {
                "method": spec,
                "solved": str(method.inner),
                "seconds": median,
                "all_seconds": seconds[spec],
                "speedup": first / median,
                "cpu_seconds": statistics.median(busy[spec]),
                "cpu_speedup": first_busy / statistics.median(busy[spec]),
                "choosing_share": statistics.median(choosing[spec]) / median,
                "average_visual_tokens": traces[spec].average_input,
                "visual_tokens_per_layer": tokens.tolist(),
                "length_share": float((tokens + options.text).mean() / (geometry.cells + options.text)),
                "kv_bytes": int((tokens + options.text).sum())
                * 2 * geometry.kv_heads * geometry.head_dim * dtype.itemsize * options.batch,
            }
        )  # fmt: skip
    return {
        "geometry": {"layers": options.layers, "hidden": 4096, "heads": 32, "intermediate": 11008, "vocab": 32064},
        "prompt": {"batch": options.batch, "visual_tokens": geometry.cells, "text_tokens": options.text},
        "setting": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
            "threads": torch.get_num_threads(),
            "dtype": options.dtype,
            "attention": options.attention,
            "repeats": options.repeats,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "rows": rows,
    }


def table(result: dict[str, Any]) -> Table:
    setting, prompt = result["setting"], result["prompt"]
    view = Table(
        title=f"Prefill of {prompt['visual_tokens']} visual + {prompt['text_tokens']} text tokens, batch "
        f"{prompt['batch']}, {result['geometry']['layers']} layers, {setting['dtype']}, {setting['device']}",
        caption="Median of interleaved runs; CPU seconds depend little on what else runs. Length: tokens that enter a "
        "layer, text included, against no pruning. Choosing: share of the time for scores and decisions.",
    )
    for column in ("method", "visual tokens", "seconds", "CPU seconds", "length", "choosing", "KV MB"):
        view.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for row in result["rows"]:
        view.add_row(
            row["method"],
            f"{row['average_visual_tokens']:.1f}",
            f"{row['seconds']:.3f} ({row['speedup']:.2f} x)",
            f"{row['cpu_seconds']:.2f} ({row['cpu_speedup']:.2f} x)",
            f"{100 * row['length_share']:.1f} %",
            f"{100 * row['choosing_share']:.2f} %",
            f"{row['kv_bytes'] / 1e6:.1f}",
        )
    return view


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8, help="decoder layers (32 is the whole model)")
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), help="spec strings; ratios are against the first"
    )
    parser.add_argument("--text", type=int, default=64, help="text tokens, 5 of them before the image")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="measured runs of each method")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager", "flash_attention_2"])
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves it to torch")
    parser.add_argument("--json", type=Path, help="write the result here as well")
    options = parser.parse_args()
    if min(options.layers, options.batch, options.repeats) < 1 or options.text < 6:
        parser.error("layers, batch and repeats must be at least 1, text at least 6")
    try:
        result = measure(options, Console(stderr=True))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = Console()
    Console(width=max(console.width, 116)).print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
