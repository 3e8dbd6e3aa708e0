"""How many questions a second, with eight questions about each image? Side by side at LLaVA-1.5-7B's geometry.

    python benchmarks/questions.py                            # 8 of 32 layers, bf16: minutes, 8 GB of memory
    python benchmarks/questions.py --questions 4 --new 8 --methods upper_bound atp@144
    python benchmarks/questions.py --json docs/speed/questions.json --figure docs/images

The base asks as lmms-eval's llava_hf does: one question at a time, each with a pass of the vision tower, unpruned, by
transformers' `generate` and SDPA. Against it, a batch with all questions about the image: one pass of the vision tower,
and what the prompts begin with (the system prompt and the image) read once as far as the method does not look at the
question. Unpruned sharing is a row of its own, so that nobody takes it for pruning.

Both towers are cut by the same share, weights are random, and no answer stops early. Each question has `--text` tokens,
each answer `--new`. One question of the base is timed in each round and counted as often as there are questions. The
methods and their layers are those of 32 layers, scaled to the depth.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from random_llava import BEFORE, IMAGE_TOKEN, Size, build, prompts
from side_by_side import Bar, add_options, bars, described, in_turn, setting, shown, spread, times_faster, typed, write
from targets import Target, to_json

from atp_eval.bench.machine import wait
from atp_eval.bench.stages import encode
from atp_eval.bench.untrained import fitted_atp, paper_stages
from atp_eval.cost import ModelGeometry
from atp_eval.cost.flops import decode, projector, vision_tower
from atp_eval.cost.sharing import Reader
from atp_eval.engine import VisionStates, model_geometry, prune
from atp_eval.flops import Asked, parse_schedule, reader
from atp_eval.methods import Method, get_method
from atp_eval.models import Bundle

TOWER, DEPTH = 24, 32  # layers of CLIP-L, and of the language model
METHODS = ("upper_bound", "atp@144", "atp@88", "visionzip@144", "visionzip@88")
TARGETS = {144: 6.5, 88: 7.5}
BASE = "one at a time"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time the base and each method, in turn."""
    device, dtype, count = torch.device(options.device), getattr(torch, options.dtype), options.questions
    tower = max(3, round(TOWER * options.layers / DEPTH))
    where = setting(
        device, dtype=options.dtype, repeats=options.repeats, layers=options.layers, batch=count, tower=tower,
        text=options.text, new=options.new,
    )  # fmt: skip
    size = Size(options.layers, options.distinct, count, options.text, device, dtype, "sdpa", tower)
    model: Any = build(size)
    model.generation_config.update(eos_token_id=None, pad_token_id=0)
    geometry = model_geometry(model.config)
    ids = prompts(geometry, size)["input_ids"]
    ids[:, : ids[0].tolist().index(IMAGE_TOKEN)] = ids[0, : ids[0].tolist().index(IMAGE_TOKEN)]  # the system prompt
    pixels = torch.randn(1, 3, 336, 336, generator=torch.Generator().manual_seed(2)).to(device, dtype)
    bundle = Bundle(model, None, "random", "", geometry, device, dtype, "pad", "hf")  # type: ignore[arg-type]
    new = {"max_new_tokens": options.new, "do_sample": False}  # no token ends an answer

    def one_at_a_time() -> Any:
        return model.generate(input_ids=ids[:1], attention_mask=torch.ones_like(ids[:1]), pixel_values=pixels, **new)

    def together(method: Method) -> Callable[[], Any]:
        def run() -> Any:
            features, states = encode(model, pixels)
            inputs = {
                "input_ids": ids,
                "attention_mask": torch.ones_like(ids),
                "features": features.expand(count, -1, -1),
            }
            seen = VisionStates(*(x.expand(count, *x.shape[1:]) for x in states))
            with prune(model, method, sample_ids=range(count), vision=seen, pictures=["image"] * count):
                return bundle.generate(inputs, **new)

        return run

    methods = {spec: solved(spec, model, bundle, ids, pixels) for spec in options.methods}
    works: dict[str, Callable[[], object]] = {BASE: one_at_a_time}
    works |= {spec: together(method) for spec, method in methods.items()}

    def clock() -> float:
        wait(device)
        return time.perf_counter()

    seconds = in_turn(works, options.repeats, clock)
    rows = [{"method": BASE, "questions_per_second": spread([1 / s for s in seconds[BASE]])}]
    for spec in methods:
        ratio = [None if x is None else count * x for x in times_faster(seconds, spec, BASE)]
        rows.append(
            {
                "method": spec,
                "questions_per_second": spread([count / s for s in seconds[spec]]),
                "ratio": ratio,
                "by_operations": by_operations(spec, geometry, options),
                "target": target(spec),
                "reads_question": methods[spec].reads_question,
            }
        )
    about = f"{count} questions an image, {options.layers} layers, {options.dtype}"
    targets = [
        Target(
            f"questions a second, `{row['method']}`, {about}",
            "one at a time, vision tower each time",
            row["target"],
            row["ratio"],
            command=typed("questions.py", sys.argv[1:]),
            by_operations=row["by_operations"],
        )
        for row in rows
        if row.get("target")
    ]
    return {"rows": rows, "setting": where, "targets": to_json(targets)}


def target(spec: str) -> float | None:
    """What a method at a budget is to reach."""
    budget = spec.rpartition("@")[2]
    return TARGETS.get(int(budget)) if budget.isdigit() else None


def by_operations(spec: str, geometry: ModelGeometry, options: argparse.Namespace) -> float:
    """How many times more FLOPs a question of the base takes, tower, prompt and answer together."""

    def read(spec: str) -> Reader:
        asked = Asked(spec, get_method(spec))
        if spec.startswith("atp@"):
            layers, keep = paper_stages(int(spec[4:]), geometry)
            asked = parse_schedule(
                ",".join(f"{layer}:{count}" for layer, count in zip(layers, keep, strict=True)), "atp"
            )
        return reader(asked, geometry, BEFORE, options.text - BEFORE)

    def flops(one: Reader, questions: int) -> float:
        answers = questions * decode(geometry, one.prompt.lengths, options.new)
        return (vision_tower(geometry) + projector(geometry) + one.total(questions) + answers) / questions

    return flops(read("upper_bound"), 1) / flops(read(spec), options.questions)


def solved(spec: str, model: Any, bundle: Bundle, ids: Any, pixels: Any) -> Method:
    """A method for this model; ATP with untrained modules that are set to keep the paper's counts of these prompts."""
    geometry = bundle.geometry
    if not spec.startswith("atp@"):
        return get_method(spec).solve(geometry)
    features, _ = encode(model, pixels)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "features": features.expand(len(ids), -1, -1)}

    def read() -> None:
        bundle.generate(inputs, max_new_tokens=1)

    return fitted_atp(model, paper_stages(int(spec[4:]), geometry), spec, read, sample_ids=range(len(ids)))


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    head = "| | questions / s | against one at a time | by operations | aim | shared |"
    lines = [head, "|---|--:|--:|--:|--:|---|"]
    for row in result["rows"]:
        if "ratio" not in row:
            lines.append(f"| {row['method']} | {shown(row['questions_per_second'], '.3f')} | 1 | 1 | | nothing |")
            continue
        aim = "" if row["target"] is None else f"{row['target']:g}"
        part = "layers before the first prune point" if row["reads_question"] else "all layers"
        rate, ratio = shown(row["questions_per_second"], ".3f"), shown(row["ratio"])
        lines.append(f"| `{row['method']}` | {rate} | {ratio} | {row['by_operations']:.2f} | {aim} | {part} |")
    s = result["setting"]
    more = f" {s['batch']} questions of {s['text']} tokens about an image, {s['new']} new tokens each"
    more += f"; {s['tower']} layers of the vision tower."
    return "\n".join([*lines, "", described(s) + more])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--questions", type=int, default=8, help="about one image")
    parser.add_argument("--text", type=int, default=64, help="text tokens a question, 5 of them before the image")
    parser.add_argument("--new", type=int, default=4, help="tokens of an answer")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--distinct", type=int, default=8, help="layers with weights of their own")
    add_options(parser, repeats=6)
    options = parser.parse_args()
    if min(options.questions, options.new, options.repeats) < 1 or options.layers < 8 or options.text < 6:
        parser.error("--questions, --new and --repeats must be at least 1, --layers 8, --text 6")
    if options.threads:
        torch.set_num_threads(options.threads)
    with torch.no_grad():
        result = measure(options)
    print(table(result))
    rows = [row for row in result["rows"] if "ratio" in row]
    chart = bars(
        "speed-questions",
        f"Questions a second against one at a time, {options.questions} questions an image: "
        + "; ".join(f"{r['method']} {shown(r['ratio'])}" for r in rows),
        [Bar(r["method"], r["ratio"], r["target"]) for r in rows],
        "times as many questions a second as one at a time",
    )
    write(result, chart, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
