"""What a bench would do: its cells, the methods solved for them, and what they need; nothing is measured here."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from transformers import LlavaConfig

from atp_eval.bench.machine import free_memory
from atp_eval.bench.memory import cell_bytes, gigabytes, weights_bytes
from atp_eval.bench.records import REFERENCE, Cell, Kind, Settings
from atp_eval.bench.untrained import Stages, paper_stages
from atp_eval.calibrate import find_config, find_place
from atp_eval.cost import ModelGeometry, averages, tokens_per_layer
from atp_eval.cost.breakdown import breakdown
from atp_eval.cost.flops import kv_bytes
from atp_eval.cost.scorer import Prompt
from atp_eval.engine import device_name, model_geometry
from atp_eval.errors import UserError, unknown
from atp_eval.methods import Method, get_method
from atp_eval.methods.atp import ATP
from atp_eval.methods.spec import split_name
from atp_eval.models import DTYPES, check_attention, find_device

SHORT_NAMES = {"7b": "llava-hf/llava-1.5-7b-hf", "13b": "llava-hf/llava-1.5-13b-hf"}
BACKENDS = {"flash": "flash_attention_2"}
ATTENTIONS = ("sdpa", "eager", "flash")
RANDOM = "random"
BEFORE = 5  # tokens of text before the image
TABLE_6 = (REFERENCE, "fastv@144", "atp@144", "atp@88")
UNTRAINED_DEFAULT = (REFERENCE, "fastv@144")
GROWING = (REFERENCE, "fastv@kv=25%")
FEWEST_ROUNDS, LEAST_TEXT = 1, BEFORE + 1
NEEDS = {
    "asked": "reads ground truth, which a bench has none of",
    "relevance": "compares patches with questions through CLIP's text tower, which a bench does not load",
}


@dataclass(frozen=True)
class Wanted:
    """What was asked for on the command line; None: the default. sides: of visual grids; text: tokens beside them."""

    kind: Kind = "methods"
    model: str = "tiny"
    random_weights: bool = False
    layers: int | None = None
    methods: Sequence[str] | None = None
    batches: Sequence[int] | None = None
    attentions: Sequence[str] = ("sdpa",)
    tokens: Sequence[int] | None = None
    news: Sequence[int] | None = None
    text: int = 64
    rounds: int = 7
    device: str = "auto"
    dtype: str = "auto"


class Way(NamedTuple):
    """A method solved for a grid; where its modules are to be made up, the layers and counts that they shall keep."""

    method: Method | None
    stages: Stages | None

    def tokens(self, label: str, geometry: ModelGeometry) -> list[int]:
        """[layers]: visual tokens that enter each, as far as that is known before the method runs."""
        if self.stages is not None:
            return tokens_per_layer(geometry, *self.stages)
        assert self.method is not None
        counts = self.method.counts()
        if counts is None:
            average = get_method(label).average_for(geometry)
            return [average or geometry.cells] * geometry.num_layers
        return tokens_per_layer(geometry, self.method.prune_layers, counts)


@dataclass(frozen=True)
class Plan:
    """settings: what is measured. config: of the model, cut to its layers; full_layers: those of the published one.
    ways: by method and side. needs: bytes of each cell on top of the weights. refused: why a cell cannot run here."""

    settings: Settings
    config: LlavaConfig
    device: torch.device
    full_layers: int
    ways: dict[tuple[str, int], Way]
    weights: int
    needs: tuple[int, ...]
    refused: dict[int, str]

    @property
    def todo(self) -> list[int]:
        """Places of the cells that can run."""
        return [place for place in range(len(self.settings.cells)) if place not in self.refused]

    def geometry(self, side: int) -> ModelGeometry:
        """At a grid."""
        found = model_geometry(self.config)
        size = replace(found.vision, image_size=side * found.vision.patch_size)
        return replace(found, grid=(side, side), vision=size)

    def output(self) -> Path:
        """The folder where none is given: one for each set of settings, so that the same command goes on in it."""
        said = json.dumps([self.settings.model_dump(mode="json"), str(self.device)], sort_keys=True)
        name = Path(self.settings.model).name
        kind = "bench" if self.settings.kind == "methods" else "growth"
        return Path("runs") / f"{kind}-{name}-{hashlib.sha256(said.encode()).hexdigest()[:6]}"

    def estimates(self) -> list[dict[str, Any]]:
        """A row a cell: average tokens, bytes of keys and values, FLOPs, memory; of the whole batch but for tokens."""
        rows = []
        for place, cell in enumerate(self.settings.cells):
            geometry = self.geometry(cell.side)
            tokens = self.ways[cell.method, cell.side].tokens(cell.method, geometry)
            prompt = Prompt(geometry, tuple(tokens), BEFORE, self.settings.text - BEFORE)
            rows.append(
                {
                    **cell.model_dump(),
                    "image_tokens": cell.tokens,
                    "average_tokens": averages(tokens).input,
                    "kv_bytes": kv_bytes(geometry, tokens) * cell.batch,
                    "flops": breakdown(prompt, 0, cell.new).total * cell.batch,
                    "memory_bytes": self.weights + self.needs[place],
                    "not_run": self.refused.get(place),
                }
            )
        return rows

    def to_json(self) -> dict[str, Any]:
        """The plan for a program."""
        return {
            **self.settings.model_dump(mode="json", exclude={"cells"}),
            "device": str(self.device),
            "full_layers": self.full_layers,
            "weights_bytes": self.weights,
            "free_bytes": free_memory(self.device),
            "output": str(self.output()),
            "cells": self.estimates(),
            "flops_in_all": (self.settings.rounds + 1) * sum(r["flops"] for r in self.estimates() if not r["not_run"]),
        }

    def to_rich(self) -> RenderableType:
        """The plan for a terminal."""
        settings, found = self.settings, self.to_json()
        table = Table(title=escape(self.sentence()), title_justify="left")
        table.add_column("method", overflow="fold")
        for head in ("batch", "attention", "image\ntokens", "new", "average\ntokens", "KV\nMB", "TFLOP", "memory\nGB"):
            table.add_column(head, justify="right", no_wrap=True)
        for row in found["cells"]:
            name = row["method"] + (f"\nnot run: {row['not_run']}" if row["not_run"] else "")
            cells = (str(row["batch"]), row["attention"], str(row["image_tokens"]), str(row["new"]))
            scaled = (row["kv_bytes"] / 1e6, row["flops"] / 1e12, row["memory_bytes"] / 1e9)
            table.add_row(escape(name), *cells, f"{row['average_tokens']:.1f}", *(f"{value:.3g}" for value in scaled))
        said = (
            f"{settings.rounds} rounds and one that warms up: about {found['flops_in_all'] / 1e12:.3g} TFLOP in all. "
            f"Weights take {gigabytes(self.weights)}; {gigabytes(found['free_bytes'])} are free. Tokens of methods "
            f"whose counts depend on the data are those of the budget. Output: {found['output']}"
        )
        return Group(table, escape(said))

    def sentence(self) -> str:
        """The model and where it runs."""
        settings, layers = self.settings, model_geometry(self.config).num_layers
        weights = "random weights" if settings.random_weights else "its own weights"
        cut = f", {layers} of {self.full_layers} layers" if layers < self.full_layers else ""
        return f"{settings.model} with {weights}{cut}, {settings.dtype}, on {device_name(self.device)}"


def make_plan(wanted: Wanted) -> Plan:
    """Solve, count and check. Raises UserError for whatever cannot be measured, before anything is loaded."""
    _check(wanted)
    name = SHORT_NAMES.get(wanted.model, wanted.model)
    random = wanted.random_weights or wanted.kind == "growth"
    config, device = find_config(name), find_device(wanted.device)
    full = model_geometry(config).num_layers
    if wanted.layers is not None:
        if not random:
            raise UserError(
                f"--layers {wanted.layers} cuts a model short, whose answers then mean nothing; add --random-weights"
            )
        if not 1 <= wanted.layers <= full:
            raise UserError(f"--layers {wanted.layers}: {name} has 1 to {full}")
        config = cut_to(config, wanted.layers)
    dtype = _dtype(config, wanted.dtype, device, random)
    cells = make_cells(wanted, model_geometry(config).grid[0], default_methods(wanted, name, random))
    plan = Plan(
        Settings(
            kind=wanted.kind, model=name, random_weights=random, layers=wanted.layers,
            methods=tuple(dict.fromkeys(cell.method for cell in cells)), dtype=dtype, text=wanted.text,
            rounds=wanted.rounds, cells=cells,
        ),
        config, device, full, {}, 0, (), {},
    )  # fmt: skip
    try:
        ways = {
            key: make_way(key[0], plan.geometry(key[1]), random)
            for key in dict.fromkeys((cell.method, cell.side) for cell in cells)
        }
    except UserError as error:
        if wanted.layers is None:
            raise
        raise UserError(f"{error}. Budgets are solved for the {wanted.layers} layers of --layers; take more") from None
    number = DTYPES[dtype].itemsize
    weights = weights_bytes(config, number)
    needs = tuple(cell_bytes(plan.geometry(cell.side), cell, wanted.text, number) for cell in cells)
    plan = replace(plan, ways=ways, weights=weights, needs=needs)
    return replace(plan, refused=refusals(plan))


def cut_to(config: LlavaConfig, layers: int) -> LlavaConfig:
    """The same with so many decoder layers."""
    found: Any = LlavaConfig.from_dict(config.to_dict())
    found.text_config.num_hidden_layers = layers
    return found


def _check(wanted: Wanted) -> None:
    """Raise UserError for a number that cannot be."""
    lists = (("--batch", wanted.batches), ("--tokens", wanted.tokens), ("--new-tokens", wanted.news))
    for option, values in lists:
        for value in values or ():
            if value < 1:
                raise UserError(f"{option} {value}: at least 1")
        if values is not None and not values:
            raise UserError(f"{option} is empty; give a number, or several separated by commas")
    if wanted.rounds < FEWEST_ROUNDS:
        raise UserError(f"--rounds {wanted.rounds}: at least {FEWEST_ROUNDS}; intervals need 6")
    if wanted.text < LEAST_TEXT:
        raise UserError(f"--text-tokens {wanted.text}: at least {LEAST_TEXT}, of which {BEFORE} come before the image")
    for attention in wanted.attentions:
        if attention not in (*ATTENTIONS, *BACKENDS.values()):
            raise unknown("attention", attention, ATTENTIONS)
    for tokens in wanted.tokens or ():
        if math.isqrt(tokens) ** 2 != tokens:
            near = round(math.sqrt(tokens)) ** 2
            raise UserError(f"--tokens {tokens}: image tokens are the cells of a square grid, such as {near}")
    if wanted.kind == "methods" and wanted.tokens is not None:
        raise UserError("--tokens is for `atp-eval bench growth`; methods are measured at the model's own grid")
    if wanted.kind == "methods" and wanted.news is not None and len(wanted.news) > 1:
        raise UserError("--new-tokens: one number; several are for `atp-eval bench growth`")


def _dtype(config: LlavaConfig, asked: str, device: torch.device, random: bool) -> str:
    """Its name. auto: float32 on a CPU, elsewhere the checkpoint's, or bfloat16 for random weights."""
    if asked == "auto" and random and device.type != "cpu":
        return "bfloat16"
    return find_place(config, str(device), asked, "sdpa").dtype


def default_methods(wanted: Wanted, name: str, random: bool) -> list[str]:
    """The methods to measure, the unpruned model first, since all ratios are to it."""
    if wanted.methods is not None:
        asked = [get_method(spec).label for spec in wanted.methods]
    elif wanted.kind == "growth":
        asked = [*GROWING]
    else:
        asked = [*(TABLE_6 if random or name == "tiny" else UNTRAINED_DEFAULT)]
    return list(dict.fromkeys([REFERENCE, *asked]))


GROWTH_TOKENS = tuple(side * side for side in (12, 17, 24, 34, 48, 68, 96))
GROWTH_BATCHES = (1, 2, 4, 8, 16)
GROWTH_NEWS = (16, 32, 64, 128, 256)


def make_cells(wanted: Wanted, side: int, methods: Sequence[str]) -> tuple[Cell, ...]:
    """All that is measured, in order. Growth varies one of tokens, batch and answer at a time, from a common base: the
    model's own grid and the first batch and answer."""
    kinds = [BACKENDS.get(name, name) for name in dict.fromkeys(wanted.attentions)]
    if wanted.kind == "methods":
        batches, new = wanted.batches or (1,), (wanted.news or (16,))[0]
        sizes = [(side, batch, new) for batch in dict.fromkeys(batches)]
    else:
        batches, news = wanted.batches or GROWTH_BATCHES, wanted.news or GROWTH_NEWS
        sides = [math.isqrt(tokens) for tokens in wanted.tokens or GROWTH_TOKENS]
        sizes = [(s, batches[0], news[0]) for s in (*sides, side)]
        sizes += [(side, batch, news[0]) for batch in batches] + [(side, batches[0], new) for new in news]
    return tuple(
        Cell(method=method, batch=batch, attention=attention, side=s, new=new)
        for attention, (s, batch, new), method in product(kinds, dict.fromkeys(sizes), methods)
    )


def make_way(spec: str, geometry: ModelGeometry, random: bool) -> Way:
    """A method solved for a grid. Raises UserError for one that cannot be measured."""
    method = get_method(spec)
    if random and split_name(spec) == ATP.name:
        return Way(None, _untrained(spec, method, geometry))
    solved = method.solve(geometry)
    for need in sorted(solved.needs):
        if need in NEEDS:
            raise UserError(f"{spec} {NEEDS[need]}; leave it out")
    return Way(solved, None)


def _untrained(spec: str, method: Method, geometry: ModelGeometry) -> Stages:
    """What an ATP's made-up modules shall keep. Raises UserError for one that is not just a budget."""
    plain = spec.partition(":")[2] == ""
    if not plain:
        raise UserError(f"{spec}: random weights have no trained modules; write a budget alone, such as atp@144")
    kind, equals, share = spec.partition("@")[2].partition("=")
    if not equals:
        average = float(method.average_for(geometry) or 0)
    elif kind == "kv" and share.endswith("%"):
        average = float(share[:-1]) / 100 * geometry.cells
    else:
        raise UserError(
            f"{spec}: with random weights atp takes a budget of tokens or a share of KV, such as atp@kv=25%"
        )
    if average > geometry.cells:
        raise UserError(f"{spec}: an image has only {geometry.cells} visual tokens; ask for at most that many")
    return paper_stages(average, geometry)


def refusals(plan: Plan) -> dict[int, str]:
    """Why cells cannot run here. Raises UserError where the model itself, or every cell, does not fit the memory."""
    free, found = free_memory(plan.device), {}
    for place, cell in enumerate(plan.settings.cells):
        try:
            check_attention(cell.attention, plan.device, DTYPES[plan.settings.dtype])
        except UserError as error:
            found[place] = str(error)
            continue
        if plan.weights + plan.needs[place] > free:
            need = gigabytes(plan.weights + plan.needs[place])
            found[place] = f"needs about {need}, {gigabytes(free)} are free; take a smaller batch or fewer --layers"
    if plan.weights + min(plan.needs) > free:
        raise UserError(_too_large(plan, free))
    if len(found) == len(plan.settings.cells):
        raise UserError(f"nothing can be measured: {found[0]}")
    return found


def _too_large(plan: Plan, free: int) -> str:
    """What is needed, what there is, and what would fit."""
    settings, layers = plan.settings, model_geometry(plan.config).num_layers
    short = cut_to(plan.config, layers - 1)
    number = DTYPES[settings.dtype].itemsize
    layer = plan.weights - weights_bytes(short, number) if layers > 1 else plan.weights
    fits = layers - math.ceil((plan.weights + min(plan.needs) - free) / layer)
    fixes = [f"--layers {fits}{'' if settings.random_weights else ' --random-weights'}"] if fits >= 1 else []
    fixes += ["--dtype bfloat16"] if settings.dtype in ("float32", "float64") else []
    fixes.append("a machine with more")
    return (
        f"{settings.model} with {layers} layers in {settings.dtype} needs about "
        f"{gigabytes(plan.weights + min(plan.needs))} of memory ({gigabytes(plan.weights)} of weights), "
        f"{device_name(plan.device)} has {gigabytes(free)} free; take {' or '.join(fixes)}"
    )
