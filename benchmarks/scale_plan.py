"""What a large run takes: GPU hours, where the time goes, money and disk; figured out, not measured.

    python benchmarks/scale.py --json scale.json
    python benchmarks/scale_plan.py --scale scale.json --run runs/tiny-mini-1a2b3c --json plan.json

Measured are: the processor's time around an answer, for a picture of 640 x 480, and lmms-eval's scoring (`scale.json`,
in which the model takes next to nothing), and bytes a record of each method (`--run`, a finished run folder).
Figured out are the GPU's times, as a roofline has them: exact operations of vision tower, prefill and scorer
(`atp_eval.flops`) over a share of the peak, and for each new token the weights and the KV cache once through memory.
The share, the peak, the bandwidth and the price are assumptions, which the options state.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from atp_eval.cost import KNOWN, ModelGeometry
from atp_eval.flops import Asked, count
from atp_eval.methods import get_method
from atp_eval.records import PARQUET, SAMPLES, read_run, slug

METHODS = "upper_bound,schedule@144,fastv@144,sparsevlm@144,pyramiddrop@144,visionzip@144,divprune@144,random@144"
BF16 = 2  # bytes of a number
PER_PICTURE = 214_354 / 40_504  # questions a picture, as in VQAv2's validation split


class Cost(NamedTuple):
    """Of one method. GPU milliseconds a question: of the prefill and of the other tokens. bytes: a record's, as JSON
    lines and as parquet."""

    method: str
    prefill_ms: float
    decode_ms: float
    json_bytes: float
    parquet_bytes: float


def weights(geometry: ModelGeometry) -> int:
    """Bytes of the language model's weights in bf16, which each step of decoding reads."""
    attention = geometry.hidden * geometry.head_dim * 2 * (geometry.heads + geometry.kv_heads)
    layer = attention + 3 * geometry.hidden * geometry.intermediate
    return BF16 * (geometry.num_layers * layer + geometry.hidden * geometry.vocab)


def costs(options: argparse.Namespace) -> list[Cost]:
    """Of each method."""
    geometry, found = KNOWN[options.model], []
    sizes = bytes_a_record(options.run)
    for spec in options.methods.split(","):
        counted = count(Asked(spec, get_method(spec)), geometry, options.before, options.after, options.new_tokens)
        parts = counted.parts
        prefill = (parts.prefill + (parts.scorer or 0)) / (options.tflops * 1e12 * options.share)
        text = geometry.num_layers * (options.before + options.after) * 2 * geometry.kv_heads * geometry.head_dim * BF16
        step = (weights(geometry) / options.batch + counted.kv_bytes + text) / (options.bandwidth * 1e12)
        json_bytes, parquet_bytes = sizes.get(spec, sizes[""])
        found.append(Cost(spec, 1e3 * prefill, 1e3 * step * (options.new_tokens - 1), json_bytes, parquet_bytes))
    return found


def vision_ms(options: argparse.Namespace) -> float:
    """GPU milliseconds of a picture, which all methods and questions about it share."""
    geometry = KNOWN[options.model]
    parts = count(Asked("upper_bound", get_method("upper_bound")), geometry, options.before, options.after, 1).parts
    return 1e3 * (parts.vision_tower + parts.projector) / (options.tflops * 1e12 * options.share)


def bytes_a_record(path: Path) -> dict[str, tuple[float, float]]:
    """Of a run's methods, as JSON lines and as parquet; under "" the most of any."""
    run, found = read_run(path), dict[str, tuple[float, float]]()
    for method in run.manifest.methods:
        cells = [path / slug(method) / r.benchmark for r in run.results() if r.method == method]
        rows = sum(r.samples for r in run.results() if r.method == method)
        if rows:
            sizes = [sum((cell / name).stat().st_size for cell in cells) / rows for name in (SAMPLES, PARQUET)]
            found[method] = sizes[0], sizes[1]
    return found | {"": (max(s[0] for s in found.values()), max(s[1] for s in found.values()))}


def plan(options: argparse.Namespace) -> dict[str, Any]:
    """The whole run: seconds are of one GPU, or of one core, unless they say otherwise."""
    scale = json.loads(options.scale.read_text())
    measured, picture = scale["whole"], scale["picture_ms"]
    around = 1 / measured["answers_a_second"]
    scoring = measured["stages"]["scores"]["seconds"] / measured["samples"]
    rows, pictures = costs(options), options.samples / options.per_picture
    answers = options.samples * len(rows)
    gpu = sum(row.prefill_ms + row.decode_ms for row in rows) * options.samples / 1e3
    vision = vision_ms(options) * pictures / 1e3
    processor = around * answers + picture / 1e3 * pictures
    gpus = options.gpus
    hours = max(gpu + vision, processor) / gpus / 3600
    return {
        "assumed": {
            name: getattr(options, name)
            for name in (
                "model", "samples", "per_picture", "gpus", "tflops", "share", "bandwidth", "batch", "before", "after",
                "new_tokens", "price",
            )
        },
        "measured": {"around_ms": 1e3 * around, "picture_ms": picture, "scoring_ms": 1e3 * scoring},
        "methods": [row._asdict() for row in rows],
        "vision_ms": vision_ms(options),
        "answers": answers,
        "gpu_hours": (gpu + vision) / 3600,
        "processor_hours": processor / 3600,
        "hours": hours,
        "scoring_hours": scoring * options.samples * -(-len(rows) // min(gpus, len(rows))) / 3600,
        "bottleneck": "GPU" if gpu + vision > processor else "processor",
        "price": hours * gpus * options.price,
        "gigabytes": {
            "samples.jsonl": sum(row.json_bytes for row in rows) * options.samples / 1e9,
            "samples.parquet": sum(row.parquet_bytes for row in rows) * options.samples / 1e9,
        },
    }  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """The plan as Markdown."""
    given, measured = found["assumed"], found["measured"]
    lines = [
        "| method | prefill, GPU ms | other tokens, GPU ms | bytes a record, JSON | parquet |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in map(lambda row: Cost(**row), found["methods"]):
        lines.append(
            f"| {row.method} | {row.prefill_ms:.1f} | {row.decode_ms:.1f} | {row.json_bytes:,.0f} | "
            f"{row.parquet_bytes:,.0f} |"
        )
    disk, picture = found["gigabytes"], measured["picture_ms"]
    return "\n".join([
        *lines, "",
        f"{found['answers']:,} answers: {found['gpu_hours']:.1f} GPU hours; the tower's {found['vision_ms']:.1f} ms a "
        "picture are shared by its questions and methods.",
        f"{found['processor_hours']:.1f} hours of one core, at {measured['around_ms']:.2f} ms an answer and "
        f"{picture:.1f} ms a picture (measured). Bottleneck: {found['bottleneck']}.",
        f"On {given['gpus']} GPUs with a core each: {60 * found['hours']:.0f} minutes; {found['price']:,.0f} at "
        f"{given['price']:.2f} a GPU hour.",
        f"Scoring: {60 * found['scoring_hours']:.0f} minutes more, at {measured['scoring_ms']:.2f} ms an answer "
        "(measured), methods side by side.",
        f"Disk: {disk['samples.jsonl']:.2f} GB of samples.jsonl and {disk['samples.parquet']:.2f} GB of parquet.",
    ])  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=Path, required=True, help="what benchmarks/scale.py --json has written")
    parser.add_argument("--run", type=Path, required=True, help="a finished run folder, for bytes a record")
    parser.add_argument("--model", default="llava-hf/llava-1.5-7b-hf", choices=sorted(KNOWN))
    parser.add_argument("--methods", default=METHODS, help="comma-separated, budgets in them")
    parser.add_argument("--samples", type=int, default=107_394, help="questions [107394: VQAv2 test-dev]")
    parser.add_argument("--per-picture", type=float, default=PER_PICTURE, help="questions a picture [5.3]")
    parser.add_argument("--gpus", type=int, default=64, help="[64]")
    parser.add_argument("--tflops", type=float, default=312.0, help="peak in bf16 [312: A100]")
    parser.add_argument("--share", type=float, default=0.4, help="of the peak that a prefill reaches [0.4]")
    parser.add_argument("--bandwidth", type=float, default=2.0, help="TB/s of the GPU's memory [2.0: A100 80 GB]")
    parser.add_argument("--batch", type=int, default=16, help="questions at once [16]")
    parser.add_argument("--before", type=int, default=5, help="text tokens before the picture [5]")
    parser.add_argument("--after", type=int, default=35, help="text tokens behind it [35]")
    parser.add_argument("--new-tokens", type=int, default=3, help="tokens of an answer, its end included [3]")
    parser.add_argument("--price", type=float, default=2.0, help="of a GPU hour [2.00]")
    parser.add_argument("--json", type=Path, help="write the plan to this file")
    options = parser.parse_args()
    found = plan(options)
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
