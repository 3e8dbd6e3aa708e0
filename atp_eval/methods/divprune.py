"""DivPrune: keep the tokens that are least alike, before the LLM.

Alvar et al., "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models", CVPR 2025
(https://arxiv.org/abs/2503.02175).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from atp_eval.cost.scorer import Prompt, product
from atp_eval.errors import UserError
from atp_eval.methods.base import Geometry
from atp_eval.methods.before import BeforeLLM
from atp_eval.methods.budget import check_keep
from atp_eval.methods.decision import Decision, keep_cells
from atp_eval.methods.point import Point
from atp_eval.methods.tensors import cosines


def cosine_distances(features: Tensor) -> Tensor:
    """1 - cosine of every two tokens: features [B, V, D] -> [B, V, V], in fp32 (fp64 for fp64 features).

    A feature of zeros has the cosine 0 with all (the authors' code divides by its norm and makes NaN). Symmetric to the
    last bit, which a matrix product is not: the loneliest token and its neighbour are often each other's nearest, and
    rounding must not decide between them.
    """
    similarity = cosines(features)
    return 1 - (similarity + similarity.transpose(1, 2)) / 2


def max_min(distances: Tensor, count: int) -> Tensor:
    """Greedy max-min diversity: distances [B, V, V] -> [B, count] different tokens, as chosen in turn; count <= V.

    The first is the token whose nearest neighbour is farthest, each next one that whose nearest chosen token is
    farthest; of equal ones the earlier token. Runs on the device without waiting for it.

    The authors' code rules out a second choice of a token only by its distance of 0 to itself, so that among exact
    duplicates, or by rounding, it can name one twice, and that token then enters the LLM twice. Here each is chosen
    once. Its first pick reads a column's second smallest entry for the nearest neighbour; here the token itself is left
    out, which is the same and leaves a lone token (V = 1) its place.
    """
    batch, cells = distances.shape[:2]
    if count == 0:
        return torch.zeros(batch, 0, dtype=torch.long, device=distances.device)
    itself = torch.eye(cells, dtype=torch.bool, device=distances.device)
    picks = [distances.masked_fill(itself, float("inf")).amin(1).argmax(1, keepdim=True)]
    nearest = torch.full_like(distances[:, 0], float("inf"))  # [B, V]: distance to the nearest chosen token
    for _ in range(count - 1):
        row = distances.gather(1, picks[-1][..., None].expand(-1, 1, cells))[:, 0]
        nearest = nearest.minimum(row).scatter(1, picks[-1], float("-inf"))
        picks.append(nearest.argmax(1, keepdim=True))
    return torch.cat(picks, dim=1)


def divprune(features: Tensor, count: int) -> Tensor:
    """What DivPrune keeps of projected features [B, V, D]: [B, count] tokens, in the order of choice."""
    return max_min(cosine_distances(features), count)


@dataclass(frozen=True, kw_only=True)
class DivPrune(BeforeLLM):
    """Keep the `keep` most diverse of the projected tokens (greedy max-min cosine distance), in raster order.

    The choice looks at neither the question nor attention, so that any vision tower will do. The authors' code
    computes distances in half precision, where ties are common; this does so in fp32.

    ratio: instead of a count, the share of the tokens that stays: k = round(ratio * V), halves to the even number as in
        the authors' code. Without a budget it is their README's 0.098, which keeps 56 of 576.
    """

    name: ClassVar[str] = "divprune"
    default_share: ClassVar[float | None] = 0.098
    ratio: float | None = None

    @property
    def reads_question(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise UserError(f"divprune: ratio={self.ratio} must be above 0 and at most 1")
        if self.ratio is not None and (count := self.average or self.keep) is not None:
            raise UserError(f"divprune: give a count ({count}) or ratio={self.ratio}, not both")

    def solve(self, geometry: Geometry) -> DivPrune:
        if self.ratio is None:
            return super().solve(geometry)
        keep = round(self.ratio * geometry.cells)
        check_keep(self.name, keep, geometry)
        return self._solved(keep=keep, ratio=None)

    def decide(self, point: Point) -> Decision:
        assert self.keep is not None, "solve() first"
        if self.keep == point.kept.shape[1]:
            return Decision(torch.ones_like(point.kept), count=self.keep)
        return keep_cells(divprune(point.hidden, self.keep), point.kept.shape[1])

    def scorer_flops(self, prompt: Prompt) -> int:
        cells = prompt.geometry.cells
        return 0 if self.keep == cells else product(cells, prompt.geometry.hidden, cells)
