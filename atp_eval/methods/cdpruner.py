"""CDPruner: keep tokens that are relevant to the question and unlike each other, before the LLM.

Zhang et al., "Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in MLLMs", NeurIPS
2025 (https://arxiv.org/abs/2506.10967).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from atp_eval.cost.scorer import Prompt, product
from atp_eval.errors import UserError
from atp_eval.methods.base import Need
from atp_eval.methods.before import BeforeLLM
from atp_eval.methods.decision import Decision, keep_cells
from atp_eval.methods.point import Embeddings, Point
from atp_eval.methods.tensors import cosines, unit

EPSILON = 1e-6  # the authors'
CLIP = "openai/clip-vit-large-patch14-336"  # LLaVA-1.5's vision tower, with the text tower that LLaVA leaves out


def text_relevance(embeddings: Embeddings) -> Tensor:
    """[B, V]: the mean cosine of each visual token's input embedding with those of the text after the image.

    Ours, for models without a CLIP text tower: the authors speak of such models and gave no code for them.
    """
    counted = embeddings.is_text[..., None].to(torch.promote_types(embeddings.text.dtype, torch.float32))
    mean = (unit(embeddings.text) * counted).sum(1) / counted.sum(1)  # [B, D]
    return (unit(embeddings.visual) @ mean[..., None])[..., 0]


def min_max(relevance: Tensor) -> Tensor:
    """[B, V]: (r - min + 1e-6) / (max - min) of each image, so from 1e-6 / range to 1 + 1e-6 / range.

    The authors' code takes minimum and maximum over the batch, which at their batch size of 1 is the same. Where all
    are equally relevant it divides by zero; here they are then all 1, so that diversity alone decides.
    """
    relevance = relevance.to(torch.promote_types(relevance.dtype, torch.float32))
    low, high = relevance.aminmax(dim=1, keepdim=True)
    flat = high == low
    return torch.where(flat, 1.0, (relevance - low + EPSILON) / (high - low).masked_fill(flat, 1.0))


def conditional_kernel(features: Tensor, relevance: Tensor) -> Tensor:
    """diag(q) S diag(q) [B, V, V]: cosines S of the features [B, V, D], and q the relevance [B, V] after `min_max`."""
    quality = min_max(relevance)
    return quality[:, :, None] * cosines(features) * quality[:, None]


def greedy_map(kernel: Tensor, count: int) -> Tensor:
    """Greedy MAP of a determinantal point process: kernel [B, V, V] -> [B, count] different tokens, as chosen in turn.

    Each next token is the one that multiplies the determinant of the chosen part of the kernel by most (Chen et al.,
    arXiv 1709.05135); of equal ones the earlier. count <= V. Runs on the device without waiting for it.

    A factor d below eps * V of the token's own kernel value is rounding: the token lies in the span of those chosen.
    The authors' code goes on with that, into NaN where d <= 0, and can then choose tokens twice. Here such tokens come
    last, those with the largest kernel value (the most relevant) first, and none comes twice.
    """
    batch, cells = kernel.shape[:2]
    own = kernel.diagonal(dim1=1, dim2=2)
    floor, tiny = own * (torch.finfo(kernel.dtype).eps * cells), torch.finfo(kernel.dtype).tiny
    spanned = -1 / own.clamp(min=tiny)  # below every d, in the order of `own`
    left, chosen = own, torch.zeros_like(own, dtype=torch.bool)  # [B, V]
    basis = kernel.new_zeros(batch, count, cells)
    picks = kernel.new_zeros(batch, count, dtype=torch.long)
    for turn in range(count):
        pick = torch.where(left > floor, left, spanned).masked_fill(chosen, float("-inf")).argmax(1, keepdim=True)
        before, at = basis[:, :turn], pick[:, None]  # [B, turn, V], [B, 1, 1]
        row = kernel.gather(1, at.expand(-1, 1, cells)) - before.gather(2, at.expand(-1, turn, 1)).mT @ before
        # Once the pick is a spanned token all others are too, and `left`, which only falls, is not read any more.
        step = row[:, 0] * left.gather(1, pick).clamp(min=tiny).rsqrt()
        left, chosen = left - step.square(), chosen.scatter(1, pick, True)
        basis[:, turn], picks[:, turn] = step, pick[:, 0]
    return picks


def cdpruner(features: Tensor, relevance: Tensor, count: int) -> Tensor:
    """What CDPruner keeps of projected features [B, V, D]: [B, count] tokens, as chosen in turn.

    relevance: [B, V], on any scale; higher is more relevant.
    """
    return greedy_map(conditional_kernel(features, relevance), count)


@dataclass(frozen=True, kw_only=True)
class CDPruner(BeforeLLM):
    """Keep the `keep` tokens that greedy MAP of a DPP over relevance and cosine finds, in raster order.

    The authors' code normalises the features in half precision; this works in fp32 throughout.

    relevance: clip is the authors': the cosine of patch and question in the space that CLIP's towers share; a LLaVA
        checkpoint holds no text tower, so it comes from the checkpoint `clip`. llm is ours: the mean cosine of a
        visual token with the text's input embeddings (`text_relevance`).
    clip: a folder or hub id, the CLIP that the model's vision tower was taken from.
    rule: the sign of CLIP's cosine. code: the authors' code negates it, so that the patch least like the question is
        the most relevant; they say that in CLIP's patches the similarity is inverted. paper: as the paper writes it,
        without the minus. llm has a plus: the minus was observed of CLIP alone.
    """

    name: ClassVar[str] = "cdpruner"
    relevance: Literal["clip", "llm"] = "clip"
    clip: str = CLIP
    rule: Literal["code", "paper"] = "code"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.relevance != "clip" and (self.clip != CLIP or self.rule != "code"):
            raise UserError(f"cdpruner: clip= and rule= are for relevance=clip, not relevance={self.relevance}")

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override]
        return frozenset({"vision", "relevance"} if self.relevance == "clip" else {"embeddings"})

    @property
    def text_tower(self) -> str | None:
        return self.clip if self.relevance == "clip" else None

    def decide(self, point: Point) -> Decision:
        assert self.keep is not None, "solve() first"
        if self.keep == point.kept.shape[1]:
            return Decision(torch.ones_like(point.kept), count=self.keep)
        return keep_cells(cdpruner(point.hidden, self._relevance(point), self.keep), point.kept.shape[1])

    def _relevance(self, point: Point) -> Tensor:
        if self.relevance == "llm":
            return text_relevance(point.embeddings)
        return point.relevance if self.rule == "paper" else -point.relevance

    def scorer_flops(self, prompt: Prompt) -> int | None:
        """Without the text tower of CLIP, whose sizes are not the model's: None with relevance=clip."""
        assert self.keep is not None, "solve() first"
        cells, width = prompt.geometry.cells, prompt.geometry.hidden
        if self.keep == cells:
            return 0
        greedy = sum(product(1, turn, cells) for turn in range(self.keep))
        found = product(cells, width, cells) + product(cells, width, 1) + greedy
        return found if self.relevance == "llm" else None
