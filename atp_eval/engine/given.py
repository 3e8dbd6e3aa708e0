"""What comes with a batch of prompts from outside of the language model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from atp_eval.engine.layout import Prompts
from atp_eval.engine.vision import VisionStates
from atp_eval.errors import UserError


@dataclass
class Given:
    """Of a batch of samples, beams not repeated.

    names: of the samples; None to make them from the prompts. asked: the grid cells of what each sample's question is
    about, None where nobody knows. pictures: names of the samples' pictures, equal where they show the same one. Of
    the samples that have a picture, in their order: vision, its states; relevance [samples, V], cosines of its patches
    with the question. embeddings: [rows, L, D], what enters layer 0.
    """

    names: Sequence[str | int] | None = None
    asked: Sequence[Sequence[int] | None] | None = None
    vision: VisionStates | None = None
    relevance: Tensor | None = None
    embeddings: Tensor | None = None
    pictures: Sequence[str | None] | None = None

    def check(self, samples: int) -> None:
        """Raise UserError where the lists are not as long as the batch."""
        for what, values in (("sample_ids", self.names), ("asked", self.asked), ("pictures", self.pictures)):
            if values is not None and len(values) != samples:
                raise UserError(f"{len(values)} {what} for a batch of {samples} samples")


def readable(input_ids: Tensor | None, attention_mask: Tensor | None, cache: Cache | None) -> Tensor:
    """The prompts, where pruning can read them. Raises UserError for a call of the model that it cannot follow."""
    if input_ids is None:
        raise UserError("pruning finds the image by its token ids: call the model with input_ids, not inputs_embeds")
    if attention_mask is not None and attention_mask.shape != input_ids.shape:
        raise UserError(f"attention_mask is {tuple(attention_mask.shape)}, the prompts are {tuple(input_ids.shape)}")
    if cache is not None and cache.is_compileable:
        raise UserError("pruned layers need caches of different lengths: use the default cache, not a static one")
    return input_ids


def names_of(prompts: Prompts, input_ids: Tensor) -> list[str]:
    """[rows]: a hash of each prompt's token ids, padding left out. Waits for the device."""
    return [
        hashlib.sha256(row[valid].numpy().astype("<i8").tobytes()).hexdigest()[:16]
        for row, valid in zip(input_ids.cpu(), prompts.layout.valid.cpu(), strict=True)
    ]


def cells_of(asked: Sequence[Sequence[int] | None] | None, has_image: Sequence[bool], cells: int) -> Tensor:
    """[samples with an image, cells] bool: the cells asked about. Raises UserError where a sample's are not known."""
    if asked is None:
        raise UserError("this method reads ground truth: give the grid cells of what each question is about as asked=")
    found = torch.zeros(sum(has_image), cells, dtype=torch.bool)
    rows = [known for known, has in zip(asked, has_image, strict=True) if has]
    for row, known in enumerate(rows):
        if known is None:
            raise UserError("this method reads ground truth, and for a question of this batch there is none")
        if any(not 0 <= cell < cells for cell in known):
            raise UserError(f"asked={list(known)[:5]}... must be cells of the image's grid, 0 to {cells - 1}")
        found[row, list(known)] = True
    return found
