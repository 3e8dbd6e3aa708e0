"""Can the suite fail a method? Held-out accuracy of the tiny model, and the controls `random`, `oracle` and
`background`.

    python -m atp_eval.tiny.controls --images 700 --json docs/tiny-model.json --markdown docs/tiny-model.md

`oracle` keeps the tokens of the things that a question is about, `background` all the others first. Where `background`
costs nothing, a kind says nothing about what a method keeps. The tables replace what stands between the two marks in
the Markdown file.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from transformers import LlamaModel, LlavaForConditionalGeneration, LlavaProcessor

from ..models import tiny
from ..scenes.prompts import Posed, pose
from ..scenes.questions import BENCHMARK_KINDS, KINDS
from ..scenes.render import Rendered, cells, render
from ..scenes.world import Scene, sample_scene
from .drills import draw
from .geometry import CELLS, pixel_values
from .prune import Plan, answers, kept
from .rows import encode

FIRST = 100_000  # seed of the first scene; training's own held-out pictures have small seeds
START, END = "<!-- tables -->", "<!-- end of tables -->"
PLANS = (
    Plan("upper_bound", 0, CELLS),
    *(Plan(c, 1, 82) for c in ("oracle", "random", "background")),
    Plan("random", 1, 247),
    *(Plan(c, 0, 144) for c in ("oracle", "background")),
    *(Plan("random", 0, keep) for keep in (288, 144, 72, 36, 18)),
)
FULL = PLANS[0].name
UNASKED = ["gqa", "mme"]  # whose forms stand in for kinds that no benchmark asks


@dataclass
class Outcome:
    """One question, and whether each plan answered it."""

    posed: Posed
    right: dict[str, bool] = field(default_factory=dict)


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    p = right / n
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def load(path: Path) -> LlavaForConditionalGeneration:
    """The model in fp32, ready to answer."""
    return LlavaForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()


@torch.no_grad()
def visual_tokens(model: LlavaForConditionalGeneration, rendered: Rendered) -> torch.Tensor:
    """[576, width]: a picture's projected tokens."""
    seen = model.model.vision_tower(pixel_values(rendered.image[None])).last_hidden_state[:, 1:]
    return cast(torch.Tensor, model.model.multi_modal_projector(seen)[0])


def posed_questions(scene: Scene, rng: random.Random, every_form: bool) -> list[Posed]:
    """One question of each benchmark in its mix of kinds, or (every_form) of every kind in a random benchmark
    that asks it."""
    if every_form:
        asking = {k: [b for b, kinds in BENCHMARK_KINDS.items() if k in kinds] or UNASKED for k in KINDS}
        wanted = [(rng.choice(b), k) for k, b in asking.items()]
    else:
        wanted = [(b, draw(rng, kinds)) for b, kinds in BENCHMARK_KINDS.items()]
    return [p for b, k in wanted if (p := next(filter(None, (pose(scene, b, k, rng) for _ in range(12))), None))]


def examine(
    model: LlavaForConditionalGeneration, images: int, every_form: bool, plans: Iterable[Plan] = PLANS
) -> list[Outcome]:
    """Ask questions about `images` held-out scenes under every plan."""
    rng, out = random.Random(f"controls {every_form}"), []
    llm, words = cast(LlamaModel, model.model.language_model), tiny.vocabulary()
    for i in range(images):
        scene = sample_scene(FIRST + i, "eval")
        rendered = render(scene)
        posed = posed_questions(scene, rng, every_form)
        if not posed:
            continue
        image, outcomes = visual_tokens(model, rendered), [Outcome(p) for p in posed]
        things = cells(rendered, range(len(scene.things)))
        asked = [cells(rendered, p.question.things) for p in posed]
        texts = [encode(p.prompt) for p in posed]
        for plan in plans:
            noise = np.random.RandomState(i)
            keep = [kept(plan, a, things, noise) for a in asked]
            for o, token in zip(outcomes, answers(llm, image, texts, keep, plan.layer), strict=True):
                o.right[plan.name] = token < len(words) and words[token] == o.posed.answer
        out += outcomes
    return out


@torch.no_grad()
def agreement(model: LlavaForConditionalGeneration, processor: LlavaProcessor, count: int) -> float:
    """Share of questions for which the stock model's `generate`, with the processor, says what `answers` says."""
    rng, same, total, number = random.Random(7), 0, 0, 0
    llm, words = cast(LlamaModel, model.model.language_model), tiny.vocabulary()
    while total < count:
        scene = sample_scene(FIRST + number, "eval")
        number += 1
        rendered = render(scene)
        for p in posed_questions(scene, rng, False)[:3]:
            ours = answers(llm, visual_tokens(model, rendered), [encode(p.prompt)], [range(CELLS)], 0)[0]
            text = f"USER: <image>\n{p.prompt} ASSISTANT:"
            inputs = processor(images=Image.fromarray(rendered.image), text=text, return_tensors="pt")
            said = cast(Any, model).generate(**inputs, max_new_tokens=4, do_sample=False)[
                0, inputs["input_ids"].shape[1] :
            ]
            theirs = processor.tokenizer.decode(said, skip_special_tokens=True).strip()
            same, total = same + (theirs == words[ours]), total + 1
    return same / total


def _shares(outcomes: list[Outcome], key: Callable[[Outcome], str]) -> dict[str, dict[str, Any]]:
    groups = defaultdict(list)
    for o in outcomes:
        groups[key(o)].append(o)
    table = {}
    for name, group in sorted(groups.items()):
        right = {plan: sum(o.right[plan] for o in group) for plan in group[0].right}
        low, high = wilson(right[FULL], len(group))
        table[name] = {
            "n": len(group),
            "chance": float(np.mean([o.posed.chance for o in group])),
            "interval": [low, high],
            "right": {plan: r / len(group) for plan, r in right.items()},
        }
    return table


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """Retention of the upper bound over the suite: the mean over benchmarks of each plan's share of the upper
    bound's accuracy."""
    table = _shares(outcomes, lambda o: o.posed.benchmark)
    plans = list(next(iter(table.values()))["right"])
    retention = {p: float(np.mean([row["right"][p] / row["right"][FULL] for row in table.values()])) for p in plans}
    accuracy = {p: float(np.mean([row["right"][p] for row in table.values()])) for p in plans}
    return {"retention": retention, "accuracy": accuracy, "benchmarks": table}


def report(suite: list[Outcome], kinds: list[Outcome], same: float, seconds: float) -> dict[str, Any]:
    return {
        "suite": summary(suite),
        "kinds": _shares(kinds, lambda o: o.posed.question.kind),
        "forms": _shares(kinds, lambda o: f"{o.posed.question.kind} ({o.posed.form})"),
        "agreement": same,
        "seconds": seconds,
    }


def _rows(table: dict[str, dict[str, Any]], plans: list[str]) -> list[str]:
    head = ["", "n", "chance", "576 tokens [95 %]", *plans]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, row in table.items():
        low, high = row["interval"]
        cellsof = [name, str(row["n"]), f"{row['chance']:.2f}", f"{row['right'][FULL]:.3f} [{low:.3f}, {high:.3f}]"]
        lines.append("| " + " | ".join([*cellsof, *(f"{row['right'][p]:.3f}" for p in plans)]) + " |")
    return lines


def markdown(result: dict[str, Any]) -> str:
    """The tables as they stand in docs/tiny-model.md."""
    plans = [p for p in result["suite"]["retention"] if p != FULL]
    s = result["suite"]
    lines = [
        "### The suite under the controls",
        "",
        "Mean over the seven benchmarks; numbers are average visual tokens over the layers.",
        "",
    ]
    lines += ["| | accuracy | of the upper bound |", "|---|---|---|"]
    lines += [f"| {p} | {s['accuracy'][p]:.3f} | {100 * s['retention'][p]:.1f} % |" for p in s["retention"]]
    lines += ["", "### By benchmark", "", *_rows(s["benchmarks"], plans)]
    lines += ["", "### By kind, in the forms of all benchmarks that ask it", "", *_rows(result["kinds"], plans)]
    lines += ["", "### By kind and form, at 576 tokens", "", *_rows(result["forms"], [])]
    lines += ["", f"Same answer as transformers' `generate`: {100 * result['agreement']:.0f} % of 60 questions."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=tiny.folder())
    parser.add_argument("--images", type=int, default=700)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start, model = time.time(), load(options.model)
    suite, kinds = examine(model, options.images, False), examine(model, options.images, True)
    same = agreement(model, tiny.processor(), 60)
    result = report(suite, kinds, same, round(time.time() - start, 1))
    text = markdown(result)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        old = options.markdown.read_text(encoding="utf-8")
        before, after = old.split(START)[0], old.split(END)[1]
        options.markdown.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
