"""From what was asked to a plan: names are checked, methods solved, memory added up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from transformers import LlavaConfig

from atp_eval.bench.machine import free_memory
from atp_eval.bench.memory import cell_bytes, gigabytes, weights_bytes
from atp_eval.bench.plan import (
    ATTENTIONS,
    BACKENDS,
    BEFORE,
    FEWEST_ROUNDS,
    GROWING,
    LEAST_TEXT,
    NEEDS,
    SHORT_NAMES,
    TABLE_6,
    UNTRAINED_DEFAULT,
    Plan,
    Wanted,
    Way,
)
from atp_eval.bench.records import REFERENCE, Cell, Settings
from atp_eval.bench.untrained import Stages, paper_stages
from atp_eval.calibrate import find_config, find_place
from atp_eval.cost import ModelGeometry
from atp_eval.engine import device_name, model_geometry
from atp_eval.errors import UserError, unknown
from atp_eval.methods import Method, get_method
from atp_eval.methods.atp import ATP
from atp_eval.methods.spec import split_name
from atp_eval.models import DTYPES, check_attention, find_device


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
    for option, given in (*lists, ("--attention", wanted.attentions)):
        if given is not None and not given:
            raise UserError(f"{option} is empty; give a value, or several separated by commas")
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
