"""DART: keep a few tokens with large keys and those least like them, once, early in the LLM.

Wen et al., "Stop Looking for Important Tokens in Multimodal Language Models: Duplication Matters More", EMNLP 2025
(https://arxiv.org/abs/2502.11494).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from atp_eval.cost.scorer import Prompt, product
from atp_eval.errors import UserError
from atp_eval.methods.base import Geometry
from atp_eval.methods.decision import Decision, keep_cells
from atp_eval.methods.point import Point
from atp_eval.methods.set_order import set_order
from atp_eval.methods.single import SinglePoint
from atp_eval.methods.tensors import rows

if TYPE_CHECKING:
    from typing_extensions import Self

PIVOTS = 4  # among the visual tokens, and as many among the text
START = 35  # tokens before the image in the authors' LLaVA-1.5 prompt (vicuna_v1)
Rule = Literal["code", "paper"]


def l1_norms(keys: Tensor) -> Tensor:
    """[B, n, G, d] -> [B, n]: the sum of absolute values over all heads, in fp32 or better.

    Repeating grouped heads, as attention does, would only scale it.
    """
    return keys.to(torch.promote_types(keys.dtype, torch.float32)).abs().sum((2, 3))


def cosines(pivots: Tensor, features: Tensor) -> Tensor:
    """Cosines of [B, P, D] with [B, V, D] -> [B, P, V], in fp32 or better; norms below 1e-8 count as 1e-8."""
    dtype = torch.promote_types(features.dtype, torch.float32)
    one, other = (x / x.norm(dim=-1, keepdim=True).clamp(min=1e-8) for x in (pivots.to(dtype), features.to(dtype)))
    return one @ other.transpose(1, 2)


def dart(
    keys: Tensor,
    text_keys: Tensor,
    is_text: Tensor,
    features: Tensor,
    text_features: Tensor,
    count: int,
    *,
    rule: Rule = "code",
    start: int = START,
) -> Tensor:
    """What DART keeps of V visual tokens: [B, count] tokens in raster order. Never waits for the device.

    keys [B, V, G, d] and text_keys [B, T, G, d]: of layer K - 1, after RoPE. is_text [B, T]: which of the T slots are
    text after the image, at least one of each sample; padding stands before it. features [B, V, D] and text_features
    [B, T, D]: the output of layer K - 1 after the LLM's last norm.

    Pivots are the 4 visual tokens with the largest L1 key norms, which stay, and the 4 such text tokens. One after the
    other they keep those of the remaining visual tokens that have the lowest cosine to them: (count - 4) // 8 each, and
    the first (count - 4) % 8 one more. Of equal norms or cosines the earlier token is taken. A text of fewer than 4
    tokens has fewer pivots, which share the same number; a count up to 4 keeps the largest norms alone.

    The turns follow the iteration order of a Python set of the pivots' places in the prompt, as in the authors' code;
    start: the place of the first visual token, which serves for nothing else.

    rule: see `DART`.
    """
    batch, cells = features.shape[:2]
    image = l1_norms(keys).argsort(dim=1, descending=True, stable=True)[:, : min(PIVOTS, count)]
    taken = torch.zeros(batch, cells, dtype=torch.bool, device=keys.device).scatter(1, image, True)
    if count > PIVOTS:
        norms = l1_norms(text_keys).masked_fill(~is_text, float("-inf"))
        text = norms.argsort(dim=1, descending=True, stable=True)[:, :PIVOTS]
        there = torch.cat([torch.ones_like(image, dtype=torch.bool), is_text.gather(1, text)], dim=1)  # [B, P]
        places = torch.cat([image, (is_text.cumsum(1) - 1).gather(1, text) + cells], dim=1) + start
        pivots = torch.cat([rows(features, image), rows(text_features, text)], dim=1)
        turns = set_order(places)
        there, alike = there.gather(1, turns), cosines(rows(pivots, turns), features)  # [B, P], [B, P, V]
        if rule == "paper":
            nearest = alike.masked_fill(~there[..., None], float("inf")).amin(1, keepdim=True)
            taken = _least(nearest, torch.full_like(places[:, :1], count - PIVOTS), taken)
        else:
            taken = _least(alike, _shares(there, count - PIVOTS), taken)
    return taken.int().argsort(dim=1, descending=True, stable=True)[:, :count]


def _shares(there: Tensor, total: int) -> Tensor:
    """[B, P]: `total` in equal parts for the pivots that are `there`, one more for the first of them."""
    pivots = there.sum(1, keepdim=True)
    return (total // pivots + (there.cumsum(1) <= total % pivots)) * there


def _least(alike: Tensor, shares: Tensor, taken: Tensor) -> Tensor:
    """In turn take, for each of P pivots, `shares` [B, P] of the tokens not yet `taken` [B, V] that are least alike."""
    ranks = torch.arange(taken.shape[1], device=taken.device)
    for pivot in range(alike.shape[1]):
        order = alike[:, pivot].masked_fill(taken, float("inf")).argsort(dim=1, stable=True)
        taken = taken | torch.zeros_like(taken).scatter(1, order, ranks < shares[:, pivot, None])
    return taken


@dataclass(frozen=True, kw_only=True)
class DART(SinglePoint):
    """Keep `keep` visual tokens before layer `layer`: pivots, and those least like them (see `dart`).

    rule: "code", the default, is what the authors run: pivots choose in turn, a fixed number each. The paper (Eq. 7 to
        10) keeps the tokens whose cosine to a pivot is at most a threshold, found from the ratio; "paper" is that with
        one threshold for all pivots, the one that meets the budget: the tokens with the lowest of all their cosines.
    max_num_truncation: instead of a count, the target X of the authors' code (there max_num_trunction), which keeps
        4 + 8 (X // 8): 132 tokens for its default of 128.
    reduction_ratio: instead of a count, the share r that is to go: X = V (1 - r). The code ignores it where both are
        given. Without any of these X is 2/9 of the tokens, the 128 of 576.

    With an exact budget the pivots' shares differ by one; for a count that the code can reach they are the code's.
    Pivots choose in the order of a Python set of their places in the prompt, with the image at 35 as in the authors'
    LLaVA-1.5 runs, whatever the prompt. Half precision, which the authors compute in, ties more often than fp32.
    """

    name: ClassVar[str] = "dart"
    first_layer: ClassVar[int] = 1
    default_share: ClassVar[float | None] = 2 / 9
    max_num_truncation: int | None = None
    reduction_ratio: float | None = None
    rule: Rule = "code"

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {
            f"@{self.average}": self.average,
            f"keep={self.keep}": self.keep,
            f"max_num_truncation={self.max_num_truncation}": self.max_num_truncation,
            f"reduction_ratio={self.reduction_ratio}": self.reduction_ratio,
        }
        names = [name for name, value in given.items() if value is not None]
        if len(names) > 1:
            raise UserError(f"dart: {' and '.join(names)} each say how many stay; give one of them")
        if self.max_num_truncation is not None and self.max_num_truncation < 0:
            raise UserError(f"dart: max_num_truncation={self.max_num_truncation} must not be negative")
        if self.reduction_ratio is not None and not 0 <= self.reduction_ratio <= 1:
            raise UserError(f"dart: reduction_ratio={self.reduction_ratio} is a share; it must be from 0 to 1")

    def solve(self, geometry: Geometry) -> Self:
        if self.keep is not None or self.average is not None:
            return super().solve(geometry)
        if self.max_num_truncation is not None:
            target: float = self.max_num_truncation
        elif self.reduction_ratio is not None:
            target = geometry.cells * (1 - self.reduction_ratio)
        else:
            target = round(geometry.cells * (self.default_share or 1.0))
        keep = PIVOTS + 2 * PIVOTS * int(target // (2 * PIVOTS))
        counted = replace(self, keep=keep, max_num_truncation=None, reduction_ratio=None, asked=self.label)
        return counted.solve(geometry)

    def decide(self, point: Point) -> Decision:
        assert self.keep is not None, "solve() first"
        text, features = point.text, point.final_norm(point.hidden)
        chosen = dart(
            point.keys, text.keys, text.is_text, features, point.final_norm(text.hidden), self.keep, rule=self.rule
        )
        return keep_cells(chosen, point.kept.shape[1])

    def scorer_flops(self, prompt: Prompt) -> int:
        assert self.keep is not None, "solve() first"
        pivots = PIVOTS + min(PIVOTS, prompt.after)
        cells, width = prompt.geometry.cells, prompt.geometry.hidden
        return product(pivots, width, cells) if self.keep > PIVOTS else 0
