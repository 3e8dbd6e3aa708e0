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


def _shared(llm: LlamaModel, seen: Tensor, text: Tensor, until: int) -> tuple[Tensor, Tensor]:
    """Both at the input of layer `until`: what stands before the questions, [1, n, width], is computed once for all of
    them, [Q, T, width]."""
    size, n = llm.config.hidden_size // llm.config.num_attention_heads, seen.shape[1]
    count, length = text.shape[:2]
    by_seen, by_text = rotation(torch.arange(n)[None], size), rotation(n + torch.arange(length).expand(count, -1), size)
    mask = torch.cat([torch.zeros(length, n), causal(length, text.dtype)], 1)
    for block in llm.layers[:until]:
        q, k, v = qkv(block, seen, by_seen)
        tq, tk, tv = qkv(block, text, by_text)
        keys, values = (torch.cat([a.expand(count, -1, -1, -1), b], 2) for a, b in ((k, tk), (v, tv)))
        text = after(block, text, attend(tq, keys, values, mask))
        seen = after(block, seen, attend(q, k, v, causal(n, seen.dtype)))
    return seen, text


@torch.no_grad()
def answers(
    llm: LlamaModel, image: Tensor, questions: Sequence[Sequence[int]], cells: Sequence[Sequence[int]], layer: int
) -> list[int]:
    """The first answered token of questions about one image.

    image [576, width]: projected visual tokens; questions: tokens after the image; cells: what each question keeps
    before `layer`, equally many; places in the sequence stay as they were.
    """
    count, length, first = len(questions), max(map(len, questions)), len(PREFIX)
    tokens = torch.zeros(count, length, dtype=torch.long)
    for row, q in enumerate(questions):
        tokens[row, : len(q)] = torch.tensor(q)
    seen = torch.cat([llm.embed_tokens(torch.tensor(PREFIX_IDS)), image])[None]
    unpruned = all(len(c) == CELLS for c in cells)
    seen, x = _shared(llm, seen, llm.embed_tokens(tokens), len(llm.layers) if unpruned else layer)
    if not unpruned:
        kept_here = torch.stack([torch.cat([torch.arange(first), first + torch.tensor(list(c))]) for c in cells])
        x = torch.cat([seen[0][kept_here], x], 1)
        text = first + CELLS + torch.arange(length)
        by = rotation(
            torch.cat([kept_here, text.expand(count, -1)], 1),
            llm.config.hidden_size // llm.config.num_attention_heads,
        )
        for block in llm.layers[layer:]:
            x = after(block, x, attend(*qkv(block, x, by), causal(x.shape[1], x.dtype)))
    ends = torch.tensor([len(q) - 1 - length for q in questions]) + x.shape[1]
    last = x[torch.arange(count), ends]
    return cast("list[int]", F.linear(norm(llm.norm, last), llm.embed_tokens.weight).argmax(-1).tolist())
