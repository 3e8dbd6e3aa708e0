"""What a bench would do: its cells, the methods solved for them, and what they need; nothing is measured here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from transformers import LlavaConfig

from atp_eval.bench.machine import free_memory
from atp_eval.bench.memory import gigabytes
from atp_eval.bench.records import REFERENCE, Kind, Settings
from atp_eval.bench.untrained import Stages
from atp_eval.cost import ModelGeometry, averages, tokens_per_layer
from atp_eval.cost.breakdown import breakdown
from atp_eval.cost.flops import kv_bytes
from atp_eval.cost.scorer import Prompt
from atp_eval.engine import device_name, model_geometry
from atp_eval.methods import Method, get_method

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
        cells = self.estimates()
        return {
            **self.settings.model_dump(mode="json", exclude={"cells"}),
            "device": str(self.device),
            "full_layers": self.full_layers,
            "weights_bytes": self.weights,
            "free_bytes": free_memory(self.device),
            "output": str(self.output()),
            "cells": cells,
            "flops_in_all": (self.settings.rounds + 1) * sum(cell["flops"] for cell in cells if not cell["not_run"]),
        }

    def to_rich(self) -> RenderableType:
        """The plan for a terminal."""
        settings, found = self.settings, self.to_json()
        table = Table(box=SIMPLE_HEAD, title=escape(self.sentence()), title_justify="left", pad_edge=False, padding=0)
        table.add_column("method", overflow="fold", min_width=11)
        for head in ("batch", "attention", "image\ntokens", "new", "average\ntokens", "KV\nMB", "TFLOP", "memory\nGB"):
            table.add_column(head, justify="right", no_wrap=True)
        for row in found["cells"]:
            name = escape(row["method"]) if row["not_run"] is None else f"[dim]{escape(row['method'])} *[/dim]"
            cells = (str(row["batch"]), row["attention"], str(row["image_tokens"]), str(row["new"]))
            scaled = (row["kv_bytes"] / 1e6, row["flops"] / 1e12, row["memory_bytes"] / 1e9)
            table.add_row(name, *cells, f"{row['average_tokens']:.1f}", *(f"{value:.3g}" for value in scaled))
        reasons = dict.fromkeys(row["not_run"] for row in found["cells"] if row["not_run"])
        said = (
            f"{settings.rounds} rounds and one that warms up: about {found['flops_in_all'] / 1e12:.3g} TFLOP in all. "
            f"Weights take {gigabytes(self.weights)}; {gigabytes(found['free_bytes'])} are free. Tokens of methods "
            f"whose counts depend on the data are those of the budget. Output: {found['output']}"
        )
        return Group(table, *(f"* not run: {escape(reason)}" for reason in reasons), escape(said))

    def sentence(self) -> str:
        """The model and where it runs."""
        settings, layers = self.settings, model_geometry(self.config).num_layers
        weights = "random weights" if settings.random_weights else "its own weights"
        cut = f", {layers} of {self.full_layers} layers" if layers < self.full_layers else ""
        return f"{settings.model} with {weights}{cut}, {settings.dtype}, on {device_name(self.device)}"
