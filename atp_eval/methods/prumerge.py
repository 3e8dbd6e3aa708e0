"""PruMerge and PruMerge+: keep what CLS looks at, merge the rest into it, before the LLM.

Shang et al., "LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models", ICCV 2025
(https://arxiv.org/abs/2403.15388).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from atp_eval.cost.scorer import Prompt, cls_row, product, projected
from atp_eval.errors import UserError
from atp_eval.methods.base import Geometry, Method, Need, Numbering
from atp_eval.methods.before import check_cls
from atp_eval.methods.budget import check_average, check_keep
from atp_eval.methods.decision import Decision
from atp_eval.methods.point import Point
from atp_eval.methods.prumerge_math import (
    Rule,
    Selection,
    class_attention,
    merge,
    ratio_line,
    select_adaptive,
    select_exact,
    select_ratio,
)

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, kw_only=True)
class PruMerge(Method):
    """Keep the cells with most attention from CLS, add to each its nearest others by key, and one token for the rest.

    Without a parameter the count is the authors' at inference: the outliers of each image's attention and the extra
    token. Where there are none, the extra token stands alone, as in their code.

    keep: an exact count instead, the extra token included; `@144` is the same. The full image changes nothing.
    ratio: the authors' fixed count instead, int(V * ratio) cells and the extra token.
    neighbours: how many others go into a kept cell; 32 in the authors' code, all on a grid with fewer.
    positions: contiguous (default, as the authors) or 1d, where each token has the place of its cell in the full image.
    rule: code (default, since the published numbers were made with it) or paper (weighted averages); see `merge`.

    Attention and keys are those of the encoder layer after the projected one, all heads as one vector. The LLM reads
    kept cells from the highest down, then the extra token, which takes the place of a dropped cell, numbered without
    gaps. The published scores are of language models that were fine-tuned with the method.

    Raises UserError for more than one of budget, keep and ratio, values out of range, and a tower without CLS.
    """

    name: ClassVar[str] = "prumerge"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision"})
    plus: ClassVar[bool] = False
    keep: int | None = None
    ratio: float | None = None
    neighbours: int = 32
    rule: Rule = "code"
    positions: Numbering = "contiguous"
    tokens: int | None = field(default=None, compare=False, repr=False)

    @property
    def reads_question(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [x for x in (self.average, self.keep, self.ratio) if x is not None]
        if len(given) > 1:
            raise UserError(f"{self.name}: give one of a budget (@144), keep=144 and ratio=1/8, not several")
        if self.keep is not None and self.keep < 1:
            raise UserError(f"{self.name}: keep={self.keep} leaves nothing; keep at least 1 token")
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise UserError(f"{self.name}: ratio={self.ratio:g} must be above 0 and below 1")
        if self.neighbours < 1:
            raise UserError(f"{self.name}: neighbours={self.neighbours} must be at least 1")

    @property
    def prune_layers(self) -> tuple[int, ...]:
        return (0,)

    def solve(self, geometry: Geometry) -> Self:
        check_cls(self.label, geometry)
        cells, keep = geometry.cells, self.keep or self.average
        if self.average is not None:
            check_average(self.name, self.average, geometry)
        if keep is not None:
            check_keep(self.name, keep, geometry)
        if self.ratio is None:
            return self._solved(keep=keep, tokens=keep)
        high = int(cells * self.ratio)
        if high < 1:
            raise UserError(f"{self.name}: ratio={self.ratio:g} keeps none of {cells} tokens; take a larger one")
        tokens = high + (len(ratio_line(cells, self.ratio)) if self.plus else 0) + 1
        if tokens > cells:
            raise UserError(
                f"{self.name}: ratio={self.ratio:g} makes {tokens} tokens, the image has {cells}; take a smaller one"
            )
        return self._solved(tokens=tokens)

    def counts(self) -> tuple[int, ...] | None:
        return None if self.tokens is None else (self.tokens,)

    def select(self, attention: Tensor) -> Selection:
        """The kept cells for attention [B, V]."""
        if self.keep is not None:
            return select_exact(attention, self.keep, self.plus)
        if self.ratio is not None:
            return select_ratio(attention, self.ratio, self.plus)
        return select_adaptive(attention, self.plus)

    def decide(self, point: Point) -> Decision:
        cells = point.kept.shape[1]
        if self.keep == cells:
            return Decision(torch.ones_like(point.kept), count=cells)
        vision = point.vision
        keys = vision.keys("next")
        attention = class_attention(vision.queries("next"), keys)
        selection = self.select(attention)
        flat = keys[:, :, 1:].transpose(1, 2).flatten(2)  # [B, V, H * d]
        merged = merge(
            vision.features, flat, attention, selection, self.tokens or cells, self.neighbours, self.rule
        )  # where counts differ, of every cell: no wait for the largest one
        return placed(selection, vision.project(merged), self.tokens)

    def scorer_flops(self, prompt: Prompt) -> int:
        geometry, cells, width = prompt.geometry, prompt.geometry.cells, prompt.geometry.vision.hidden
        if self.keep == cells:
            return 0
        slots = self.tokens or cells
        merged = product(slots, width, cells) + product(slots, cells, width)
        return cls_row(geometry) + merged + projected(geometry, slots)


@dataclass(frozen=True, kw_only=True)
class PruMergePlus(PruMerge):
    """PruMerge with cells spread over the raster line beside those that CLS looks at; parameters as there.

    Without a parameter, the authors' adaptive count; a line of stride 1 may keep every cell, and then there is no extra
    token (their code adds one of zeros). Where there are no outliers their code divides by zero; here the extra token
    stands alone, as in PruMerge.

    keep, `@144`: exactly, 71 high cells, 72 on the official line, 1 extra; see `select_exact`.
    ratio: the authors' fixed setting is 1/8, 72 + 72 + 1 = 145 tokens. A cell on the line that is also a high one is
    read twice, as in their code: its second token takes the place of a dropped cell, as the extra one does.

    The LLM reads the high cells from the highest down, then the line's in raster order, then the extra token.
    """

    name: ClassVar[str] = "prumerge_plus"
    plus: ClassVar[bool] = True


def placed(selection: Selection, tokens: Tensor, count: int | None) -> Decision:
    """`merge`'s tokens [B, n, D], projected, in their places and in their order."""
    batch, slots, width = tokens.shape
    cells = selection.pool.shape[1]
    slot = torch.arange(slots, device=tokens.device).expand(batch, -1)
    home, kept = selection.home[:, :slots], selection.kept[:, None]
    own = (slot < kept) & (home == selection.pool[:, :slots])
    none = torch.zeros(batch, cells, dtype=torch.bool, device=tokens.device)
    keep = none.scatter(1, home, own)
    return Decision(
        keep,
        count=count,
        carry=none.scatter(1, home, ~own & (slot <= kept)),
        rewrite=keep,
        values=tokens.new_zeros(batch, cells, width).scatter(1, home[..., None].expand(-1, -1, width), tokens),
        order=torch.zeros_like(none, dtype=torch.long).scatter(1, home, slot),
    )
