"""How long does a new token take after pruning? Decoding at LLaVA-1.5-7B's geometry, side by side.

    python benchmarks/decode.py                        # 8 of 32 layers, fp32, batch 16, CPU: 11 GB of memory, minutes
    python benchmarks/decode.py --layers 6 --batch 4   # small: 4 GB
    python benchmarks/decode.py --model tiny           # the embedded model, whole
    python benchmarks/decode.py --layers 32 --device cuda --dtype float16 --decode compiled
    python benchmarks/decode.py --json docs/speed/decode.json --figure docs/images

Whole answers run at once, each in a thread of its own, and are let go on by one token in turn, in rotating order: what
is timed is `generate` itself, and `Bundle.generate` as it answers questions. The base is transformers' `generate` with
SDPA and its default cache, unpruned. Against it:

- generate, pruned: the same code inside of `with prune(...)`, transformers' cache;
- ours, unpruned: keys written in place, the engine's own loop, and on the CPU oneDNN's product for large layers; a row
  of its own, so that nobody takes this for pruning's gain;
- ours, pruned: both.

Pruning is ATP's schedule (Tab. 2), scaled to the depth, to 144 visual tokens on average; prompts have 576 visual tokens
and `--text` others. Weights are random, and the large products of the prompts are left out: their keys and values are
noise, of the true shapes. Neither has a part in the time of a later token. With fewer layers than 32 the head weighs
more than it should, which is no advantage to pruning.
"""

from __future__ import annotations

import argparse
import copy
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from random_llava import Size, build, prompts
from side_by_side import Bar, add_options, bars, described, in_turn, setting, shown, spread, times_faster, typed, write
from targets import Target
from torch import Tensor, nn
from transformers import LogitsProcessor

from atp_eval.bench.machine import wait
from atp_eval.bench.untrained import paper_stages
from atp_eval.cost import averages, tokens_per_layer
from atp_eval.engine import model_geometry, prune
from atp_eval.models import Bundle, load_model
from atp_eval.models.llava import encoded_already

BASE, PRUNED, OURS, BOTH = "generate", "generate, pruned", "ours, unpruned", "ours, pruned"
AVERAGE, AIM = 144, 2.6


class Turns(LogitsProcessor):
    """An answer in a thread, which stops in front of every token until it is let go on."""

    def __init__(self, answer: Callable[[Turns], object]) -> None:
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._leaving = False
        self._thread = threading.Thread(target=self._run, args=(answer, torch.get_num_threads()), daemon=True)

    def _run(self, answer: Callable[[Turns], object], threads: int) -> None:
        torch.set_num_threads(threads)
        try:
            answer(self)
        except _Left:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._stopped.release()

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self._stopped.release()
        self._go.acquire()
        if self._leaving:
            raise _Left
        return scores

    def start(self) -> None:
        """Read the prompts."""
        self._thread.start()
        self._wait()

    def go_on(self) -> None:
        """One token."""
        self._go.release()
        self._wait()

    def leave(self) -> None:
        """End the answer here."""
        self._leaving = True
        self._go.release()
        self._thread.join()

    def _wait(self) -> None:
        self._stopped.acquire()
        if self._error is not None:
            raise self._error


class _Left(Exception):
    """The answer is ended."""


@contextmanager
def noise_for_prompts(rows: int) -> Iterator[None]:
    """Inside the block linear layers make noise of inputs with more than `rows` rows, at next to no cost."""
    forward, noise = nn.Linear.forward, torch.randn(2**18)

    def quick(self: nn.Linear, x: Tensor) -> Tensor:
        count = x.numel() // self.in_features
        if count <= rows:
            return forward(self, x)
        made = torch.outer(noise[:count], noise[-self.out_features :]).to(x)
        return made.view(*x.shape[:-1], self.out_features)

    nn.Linear.forward = quick  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Linear.forward = forward  # type: ignore[method-assign]


def measure(options: argparse.Namespace, told: str) -> dict[str, Any]:
    """Seconds a token of each row, in turn; told: the command."""
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    here = setting(device, dtype=options.dtype, repeats=options.repeats)
    bundle, inputs = (tiny if options.model == "tiny" else random_7b)(options, device, dtype)
    stages = paper_stages(AVERAGE, bundle.geometry)
    spec = f"schedule:layers={dashes(stages.layers)},keep={dashes(stages.keep)},score=redundant"
    new = options.tokens * (options.repeats + 1) + 2
    rows = [name for name in (BASE, PRUNED, OURS, BOTH) if name in options.rows]

    def answer(name: str) -> Callable[[Turns], object]:
        # a model object of its own, for hooks of its own, with the same weights
        model: Any = copy.deepcopy(bundle.model, {id(p): p for p in bundle.model.parameters()})
        own, extra = replace(bundle, model=model), {"decode": options.decode} if options.decode else {}
        given = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}

        def run(turns: Turns) -> None:
            plan = {"max_new_tokens": new, "logits_processor": [turns], "eos_token_id": None}
            with prune(model, spec) if name in (PRUNED, BOTH) else nullcontext():
                if name in (OURS, BOTH):
                    own.generate(inputs, **plan, **extra)
                else:
                    with encoded_already(model):
                        model.generate(**given, pixel_values=inputs["features"], do_sample=False, **plan)

        return run

    def tokens(turns: Turns) -> Callable[[], None]:
        def run() -> None:
            for _ in range(options.tokens):
                turns.go_on()

        return run

    def clock() -> float:
        wait(device)
        return time.perf_counter()

    answers = {name: Turns(answer(name)) for name in rows}
    with ExitStack() as stack:
        with noise_for_prompts(options.batch) if options.model == "7b" else nullcontext():
            for turns in answers.values():
                turns.start()
                stack.callback(turns.leave)
                turns.go_on()  # the first token makes masks and room
        seconds = in_turn({name: tokens(turns) for name, turns in answers.items()}, options.repeats, clock)
    geometry = bundle.geometry
    kept = averages(tokens_per_layer(geometry, stages.layers, stages.keep)).input
    where = {
        **here,
        "layers": geometry.num_layers,
        "batch": options.batch,
        "text": inputs["input_ids"].shape[1] - geometry.cells,
        "model": options.model,
        "average_tokens": kept,
        "pruning": spec,
    }
    found = [
        {
            "row": name,
            "seconds_a_token": spread(np.array(seconds[name]) / options.tokens),
            "tokens_a_second": spread(options.batch * options.tokens / np.array(seconds[name])),
            "ratio": times_faster(seconds, name, BASE),
        }
        for name in rows
    ]
    result = {"rows": found, "setting": where}
    if options.model == "7b" and BOTH in rows:
        about = f"batch {options.batch}, {options.layers} layers, {options.dtype}"
        target = Target(
            f"decode after pruning at {AVERAGE}; {about}", "unpruned transformers, SDPA", AIM,
            times_faster(seconds, BOTH, BASE), command=told,
        )  # fmt: skip
        result["targets"] = [asdict(target)]
    return result


def dashes(numbers: tuple[int, ...]) -> str:
    return "-".join(map(str, numbers))


def random_7b(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> tuple[Bundle, dict[str, Any]]:
    """A model of random weights, and what it is asked."""
    size = Size(options.layers, options.distinct, options.batch, options.text, device, dtype, "sdpa")
    model = build(size)
    model.generation_config.update(eos_token_id=None, pad_token_id=0)
    geometry = model_geometry(model.config)
    bundle = Bundle(model, None, "random", "", geometry, device, dtype, "pad", "hf")  # type: ignore[arg-type]
    asked = prompts(geometry, size)
    ids = asked["input_ids"]
    return bundle, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "features": asked["pixel_values"]}


def tiny(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> tuple[Bundle, dict[str, Any]]:
    """The embedded model, and a question about noise."""
    bundle = load_model("tiny", device=str(device), dtype=options.dtype)
    noise = np.random.default_rng(0).integers(0, 255, (336, 336, 3), dtype=np.uint8)
    features = bundle.encode([Image.fromarray(noise)])[0]
    return bundle, bundle.inputs(["what color is the circle?"] * options.batch, [features] * options.batch)


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = ["| | ms a token | tokens a second | times as fast |", "|---|--:|--:|--:|"]
    for row in result["rows"]:
        milliseconds = [None if x is None else 1000 * x for x in row["seconds_a_token"]]
        lines.append(
            f"| {row['row']} | {shown(milliseconds, '.1f')} | {shown(row['tokens_a_second'], '.1f')} | "
            f"{shown(row['ratio'])} |"
        )
    where = result["setting"]
    pruning = f"Pruned: {where['average_tokens']:.0f} visual tokens on average ({where['pruning']})."
    return "\n".join([*lines, "", f"{described(where)} {pruning}"])


def figure(result: dict[str, Any]) -> Any:
    """Times as fast as the base, as bars."""
    rows = [
        Bar(row["row"], row["ratio"], AIM if row["row"] == BOTH and result["setting"]["model"] == "7b" else None)
        for row in result["rows"]
    ]
    alt = "Decoding speed against transformers' generate, unpruned: " + ", ".join(
        f"{row.label} {shown(row.ratio)}" for row in rows
    )
    return bars("decode", alt, rows, "times as fast as unpruned generate")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="7b", choices=["7b", "tiny"], help="random weights of 7B's sizes, or tiny")
    parser.add_argument("--layers", type=int, default=8, help="decoder layers [8]")
    parser.add_argument(
        "--distinct", type=int, default=2, help="layers with weights of their own [2]; see random_llava"
    )
    parser.add_argument("--batch", type=int, default=16, help="prompts at once [16]")
    parser.add_argument("--text", type=int, default=64, help="text tokens of a prompt [64]")
    parser.add_argument("--tokens", type=int, default=1, help="tokens of each answer in a round [1]")
    parser.add_argument("--rows", nargs="+", default=[BASE, PRUNED, OURS, BOTH], help="rows to run; the base has to be")
    parser.add_argument("--decode", help="of our rows: compiled or graph, as Bundle.generate takes it")
    add_options(parser, repeats=9)
    parser.set_defaults(dtype="float32")
    options = parser.parse_args(arguments)
    if BASE not in options.rows:
        parser.error(f"--rows without {BASE!r}: there is nothing to compare with")
    if options.threads:
        torch.set_num_threads(options.threads)
    result = measure(options, typed("decode.py", sys.argv[1:] if arguments is None else arguments))
    print(table(result))
    write(result, figure(result), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
