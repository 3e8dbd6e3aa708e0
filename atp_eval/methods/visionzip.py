"""VisionZip: the patches that CLS looks at, and a few averages of the rest, before the LLM.

Yang et al., "VisionZip: Longer is Better but Not Necessary in Vision Language Models", CVPR 2025
(https://arxiv.org/abs/2412.04467).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from atp_eval.cost.scorer import Prompt, cls_row, product, projected
from atp_eval.errors import UserError
from atp_eval.methods.base import Geometry, Need
from atp_eval.methods.before import BeforeLLM, check_cls
from atp_eval.methods.decision import Decision
from atp_eval.methods.point import Point
from atp_eval.methods.tensors import cls_attention, rows

if TYPE_CHECKING:
    from typing_extensions import Self

Rule = Literal["code", "paper"]


class Choice(NamedTuple):
    """dominant: [B, D - 1] cells in raster order (the D-th is CLS); rest: [B, V - D + 1] all other cells, rising;
    targets: [C] places in `rest` that become contextual tokens."""

    dominant: Tensor
    rest: Tensor
    targets: Tensor


def split(tokens: int) -> int:
    """Contextual tokens among `tokens`: 5 of 32, rounded (halves to the even number).

    The authors' settings come out: 54 + 10 = 64, 108 + 20 = 128, 162 + 30 = 192. Below 4 there are none.
    """
    return round(tokens * 5 / 32)


def choose(attention: Tensor, dominant: int, contextual: int) -> Choice:
    """The dominant - 1 cells of the highest attention [B, V], and `contextual` targets evenly spread over the others.

    attention: probabilities from CLS, summed over heads (`cls_attention`).
    dominant >= 1 counts CLS; dominant + contextual <= V + 1. Of equal values the earlier cell is higher. Targets are
    every step-th of the others from the first, step = max(1, others // contextual), whatever is in them.
    """
    high = attention.argsort(dim=1, descending=True, stable=True)[:, : dominant - 1]
    among = torch.zeros_like(attention, dtype=torch.bool).scatter(1, high, True)
    cells = among.int().argsort(dim=1, stable=True)  # the others first, rising
    others = attention.shape[1] - dominant + 1
    step = max(1, others // max(1, contextual))
    targets = torch.arange(contextual, device=attention.device) * step
    return Choice(cells[:, others:], cells[:, :others], targets)


def contextual_tokens(features: Tensor, keys: Tensor, choice: Choice, rule: Rule = "code") -> Tensor:
    """[B, C, channels]: each target with those of the others merged in that are nearest to it (before the projector).

    features: [B, V, channels] that go into the projector; keys: [B, V, d], the mean over heads of the projected
    layer's. Each of the others that is no target goes to the target of the highest cosine of keys, the first of equal
    ones (keys of zeros, which the authors' code makes NaN of, to the first).

    code: x_t + the mean of its own ones, about twice the norm of a patch; x_t alone where it has none.
    paper: the mean of x_t and its own ones together ("merge" as an average).
    """
    precision = torch.promote_types(features.dtype, torch.float32)
    x, unit = rows(features.to(precision), choice.rest), rows(normalize(keys.to(precision), dim=-1), choice.rest)
    count = len(choice.targets)
    target, unit_target = x[:, choice.targets], unit[:, choice.targets]
    if count == 0:
        return target.to(features.dtype)
    nearest = (unit @ unit_target.transpose(1, 2)).argmax(-1, keepdim=True)  # [B, R, 1]
    goes_to = x.new_zeros(*x.shape[:2], count).scatter(-1, nearest, 1.0)
    goes_to[:, choice.targets] = 0.0
    total, number = goes_to.transpose(1, 2) @ x, goes_to.sum(1)[..., None]
    merged = (target + total) / (number + 1) if rule == "paper" else target + total / number.clamp(min=1)
    return merged.to(features.dtype)


@dataclass(frozen=True, kw_only=True)
class VisionZip(BeforeLLM):
    """Of `keep` tokens `contextual` are averages; the others, the dominant ones, are CLS and the patches it looks at.

    keep: dominant and contextual tokens together, CLS among the dominant ones as in the authors' numbers: their
    `visionzip(dominant=54, contextual=10)` is `visionzip@64`. The full image changes nothing: no CLS, no averages.
    contextual: set by `split` unless given; 0 (where the authors' code divides by zero) leaves the rest out.
    rule: code (default, since the published numbers were made with it) or paper; see `contextual_tokens`.

    Everything is read from the encoder layer whose output is projected. The LLM reads CLS (in the place of a dropped
    cell), the dominant patches in raster order, the contextual tokens in that of their targets, without gaps.

    Raises UserError for no budget, values out of range, and a tower without CLS.
    """

    name: ClassVar[str] = "visionzip"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision"})
    contextual: int | None = None
    rule: Rule = "code"

    @property
    def reads_question(self) -> bool:
        return False

    def solve(self, geometry: Geometry) -> Self:
        check_cls(self.label, geometry)
        solved = super().solve(geometry)
        assert solved.keep is not None, "solved"
        contextual = split(solved.keep) if self.contextual is None else self.contextual
        if not 0 <= contextual < solved.keep:
            raise UserError(
                f"{self.label}: {contextual} of {solved.keep} tokens are out of range, and CLS is one of the others; "
                f"write contextual=0 to {solved.keep - 1}"
            )
        return solved._solved(contextual=contextual)

    def decide(self, point: Point) -> Decision:
        assert self.keep is not None and self.contextual is not None, "solve() first"
        cells = point.kept.shape[1]
        if self.keep == cells:
            return Decision(torch.ones_like(point.kept), count=cells)
        vision = point.vision
        keys = vision.keys("own")
        choice = choose(cls_attention(vision.queries("own"), keys).sum(1), self.keep - self.contextual, self.contextual)
        merged = contextual_tokens(vision.features, keys[:, :, 1:].mean(1), choice, self.rule)
        targets = choice.rest[:, choice.targets]
        new = vision.project(torch.cat([vision.cls_feature[:, None], merged], dim=1))  # [B, 1 + C, D]

        none = torch.zeros_like(point.kept)
        rewrite = none.scatter(1, targets, True)
        keep = rewrite.scatter(1, choice.dominant, True)
        free = keep.int().argmin(1, keepdim=True)  # the first dropped cell
        order = torch.arange(self.keep, device=keep.device).expand(len(keep), -1)
        places = torch.cat([free, targets], dim=1)
        return Decision(
            keep,
            count=self.keep,
            carry=none.scatter(1, free, True),
            rewrite=rewrite,
            values=new.new_zeros(len(keep), cells, new.shape[-1]).scatter(
                1, places[..., None].expand(-1, -1, new.shape[-1]), new
            ),
            order=order.new_zeros(keep.shape).scatter(1, torch.cat([free, choice.dominant, targets], dim=1), order),
        )

    def scorer_flops(self, prompt: Prompt) -> int:
        assert self.keep is not None and self.contextual is not None, "solve() first"
        geometry, vision, merged = prompt.geometry, prompt.geometry.vision, self.contextual
        if self.keep == geometry.cells:
            return 0
        rest = geometry.cells - (self.keep - merged) + 1
        nearest = product(rest, vision.hidden // vision.heads, merged)
        return cls_row(geometry) + nearest + product(merged, rest, vision.hidden) + projected(geometry, 1 + merged)
