"""VisPruner: half of the tokens by the vision tower's own attention, half by unlikeness, before the LLM.

Zhang et al., "Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in VLMs", ICCV 2025
(https://arxiv.org/abs/2412.01818).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from atp_eval.cost.scorer import Prompt, cls_row, product
from atp_eval.errors import UserError
from atp_eval.methods.base import Geometry, Need
from atp_eval.methods.before import BeforeLLM, check_cls
from atp_eval.methods.decision import Decision, keep_cells
from atp_eval.methods.point import Point
from atp_eval.methods.tensors import cls_attention, cosines

STEP = 8  # tokens that a round of removing duplicates drops at most


def without_duplicates(similarity: Tensor, tokens: Tensor, count: int) -> Tensor:
    """The `count` of `tokens` [B, R] that are left when those most like another are dropped, round by round.

    similarity: [B, V, V]. tokens: in the order of importance. Every round splits the list into its 1st, 3rd, 5th, ...
    place and its 2nd, 4th, 6th, ...; drops of the former up to 8, those most similar to any of the latter (of equal
    ones the earlier); and goes on with those of the former that are left, the most similar first, and then the latter.

    The authors' code fails where a list of odd length is to be split, or where less than 8 are left in the former
    half and more would have to go. Here the former half has the odd token, and a round drops what that half holds.
    """
    if count == 0:
        return tokens[:, :0]
    sample = torch.arange(len(tokens), device=tokens.device)[:, None, None]
    while (excess := tokens.shape[1] - count) > 0:
        former, latter = tokens[:, 0::2], tokens[:, 1::2]
        drop = min(STEP, excess)
        likest = similarity[sample, former[..., None], latter[:, None]].amax(-1)
        ranked = former.gather(1, likest.argsort(dim=1, descending=True, stable=True))
        tokens = torch.cat([ranked[:, drop:], latter], dim=1)
    return tokens


def vispruner(features: Tensor, attention: Tensor, count: int, important_ratio: float = 0.5) -> tuple[Tensor, Tensor]:
    """The important [B, int(count * important_ratio)] and the diverse tokens [B, rest] that VisPruner keeps.

    features: [B, V, C], before the projector. attention: [B, V], from CLS, mean over heads (`cls_attention`). The
    important ones come by falling attention (of equal ones the earlier first), the diverse ones as `without_duplicates`
    leaves them. No token is in both. Runs on the device without waiting for it.
    """
    order = attention.argsort(dim=1, descending=True, stable=True)
    important = int(count * important_ratio)
    diverse = without_duplicates(cosines(features), order[:, important:], count - important)
    return order[:, :important], diverse


@dataclass(frozen=True, kw_only=True)
class VisPruner(BeforeLLM):
    """Keep `keep` tokens, in raster order: some with the most attention from CLS, and of the rest the least alike.

    Attention and features are of the encoder layer whose output is projected (the last but one of LLaVA-1.5's CLIP);
    features before the projector. The authors' code compares them in half precision with unstable sorts; this does so
    in fp32 with stable ones.

    important_ratio: share of `keep` that is chosen by attention, rounded down; the authors' 0.5.
    """

    name: ClassVar[str] = "vispruner"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision"})
    important_ratio: float = 0.5

    @property
    def reads_question(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.important_ratio <= 1:
            raise UserError(f"vispruner: important_ratio={self.important_ratio} must be from 0 to 1")

    def solve(self, geometry: Geometry) -> VisPruner:
        check_cls(self.label, geometry)
        return super().solve(geometry)

    def decide(self, point: Point) -> Decision:
        assert self.keep is not None, "solve() first"
        cells = point.kept.shape[1]
        if self.keep == cells:
            return Decision(torch.ones_like(point.kept), count=cells)
        vision = point.vision
        attention = cls_attention(vision.queries("own"), vision.keys("own")).mean(1)
        return keep_cells(torch.cat(vispruner(vision.features, attention, self.keep, self.important_ratio), 1), cells)

    def scorer_flops(self, prompt: Prompt) -> int:
        geometry, cells = prompt.geometry, prompt.geometry.cells
        similarity = product(cells, geometry.vision.hidden, cells)
        return 0 if self.keep == cells else cls_row(geometry) + similarity
