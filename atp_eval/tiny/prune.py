"""Answers of the tiny model with visual tokens dropped before a layer: what the controls compare.

It knows nothing of pruning methods: which tokens to keep is told, not scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaModel

from .geometry import CELLS
from .packed import PREFIX, PREFIX_IDS, after, attend, causal, norm, qkv, rotation

Control = Literal["upper_bound", "random", "oracle", "background"]


@dataclass(frozen=True)
class Plan:
    """Keep `keep` of 576 visual tokens before a layer; `average` is the mean number at the inputs of all layers."""

    control: Control
    layer: int
    keep: int
    layers: int = 8

    @property
    def average(self) -> float:
        return (self.layer * CELLS + (self.layers - self.layer) * self.keep) / self.layers

    @property
    def name(self) -> str:
        return self.control if self.keep == CELLS else f"{self.control} {self.average:.0f} (layer {self.layer})"


def kept(plan: Plan, asked: Sequence[int], things: Sequence[int], rng: np.random.RandomState) -> list[int]:
    """The cells that a control keeps, sorted. `asked`: cells of the things asked about; `things`: cells of all things.

    oracle: the asked first, then other things, then any; background: in the opposite order of the first step, all
    but the asked.
    """
    value = rng.rand(CELLS)
    if plan.control == "oracle":
        value[list(things)] += 10
        value[list(asked)] += 20
    elif plan.control == "background":
        value[list(asked)] -= 10
    return sorted(np.argsort(-value, kind="stable")[: plan.keep].tolist())


@torch.no_grad()
def answers(
    llm: LlamaModel, image: Tensor, questions: Sequence[Sequence[int]], cells: Sequence[Sequence[int]], layer: int
) -> list[int]:
    """The first answered token of questions about one image.

    image [576, width]: projected visual tokens; questions: tokens after the image; cells: what each question
    keeps before `layer`, equally
    many; places in the sequence stay as they were.
    """
    count, length = len(questions), max(map(len, questions))
    size = llm.config.hidden_size // llm.config.num_attention_heads
    tokens = torch.zeros(count, length, dtype=torch.long)
    for row, q in enumerate(questions):
        tokens[row, : len(q)] = torch.tensor(q)
    start = torch.cat([llm.embed_tokens(torch.tensor(PREFIX_IDS)), image])
    x = torch.cat([start.expand(count, -1, -1), llm.embed_tokens(tokens)], 1)
    position = torch.arange(x.shape[1]).expand(count, -1)
    first = len(PREFIX)
    for i, block in enumerate(llm.layers):
        if i == layer:
            fixed, text = torch.arange(first), torch.arange(first + CELLS, x.shape[1])
            index = torch.stack([torch.cat([fixed, first + torch.tensor(c), text]) for c in cells])
            x = x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
            position = index
        by = rotation(position, size)
        x = after(block, x, attend(*qkv(block, x, by), causal(x.shape[1], x.dtype)))
    ends = torch.tensor([len(q) - 1 - length for q in questions]) + x.shape[1]
    last = x[torch.arange(count), ends]
    return cast("list[int]", F.linear(norm(llm.norm, last), llm.embed_tokens.weight).argmax(-1).tolist())
