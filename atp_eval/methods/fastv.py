"""FastV: drop what the last prompt token does not look at, once, early in the LLM.

Chen et al., "An Image is Worth 1/2 Tokens After Layer 2", ECCV 2024 (https://arxiv.org/abs/2403.06764).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from atp_eval.cost.scorer import Prompt, attention_rows
from atp_eval.errors import UserError
from atp_eval.methods.base import Geometry
from atp_eval.methods.decision import Decision, keep_cells
from atp_eval.methods.point import Point
from atp_eval.methods.single import SinglePoint

if TYPE_CHECKING:
    from typing_extensions import Self


def fastv(attention: Tensor, count: int) -> Tensor:
    """What FastV keeps: attention [B, V] that each visual token receives -> [B, count] tokens in raster order.

    attention: probabilities, averaged over heads (and, for the paper's rule, over rows). Of equal ones the earlier
    token stays; in the authors' half precision ties are common, and their order is left to the device.
    """
    return attention.argsort(dim=1, descending=True, stable=True)[:, :count].sort(dim=1).values


def rows_from_image(is_text: Tensor, cells: int) -> Tensor:
    """[B, cells + T] bool: which of the last rows of each prompt are those of the image or of text after it.

    is_text: [B, T], which of the T last slots are text after the image; the `cells` visual tokens stand before them.
    """
    slots = torch.arange(cells + is_text.shape[1], 0, -1, device=is_text.device)
    return slots <= is_text.sum(1, keepdim=True) + cells


@dataclass(frozen=True, kw_only=True)
class FastV(SinglePoint):
    """Keep the `keep` visual tokens with the most attention in layer `layer` - 1, averaged over heads.

    rule: the paper's text says "the average attention-score one token received from all other tokens"; all versions of
        the authors' code read the last query row alone. "code", the default, does that, since it is what their scores
        were taken with. "paper" averages over all rows; those that cannot see a token count as 0. A token's own row is
        among them here, because taking it out needs the diagonal of the map, and the rows before the image are not,
        which changes no rank. It costs the attention map of one layer; "code" costs one row.
    r: instead of a count, the share that is removed: k = round(V (1 - r)), halves to the even number, as in the
        authors' port to transformers (their lmms-eval version has the share that stays, and cuts off). Without a budget
        r is the paper's 0.5.

    Tokens keep the positions that they had, in the prompt and afterwards. The authors' lmms-eval version writes the
    keys of layer K - 1 to the cache twice, and their scripts with an offset of 36 shift the image by one; neither is
    repeated here.
    """

    name: ClassVar[str] = "fastv"
    first_layer: ClassVar[int] = 1
    default_share: ClassVar[float | None] = 0.5
    r: float | None = None
    rule: Literal["code", "paper"] = "code"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.r is None:
            return
        if not 0 <= self.r < 1:
            raise UserError(f"fastv: r={self.r} is the share that is removed; it must be at least 0 and below 1")
        if self.keep is not None or self.average is not None:
            given = f"keep={self.keep}" if self.average is None else f"a budget (@{self.average})"
            raise UserError(f"fastv: give r={self.r} or {given}, not both")

    def solve(self, geometry: Geometry) -> Self:
        if self.r is None:
            return super().solve(geometry)
        return replace(self, r=None, keep=round(geometry.cells * (1 - self.r)), asked=self.label).solve(geometry)

    @property
    def early(self) -> bool:
        return self.rule == "code"  # the paper's rule asks for the text, hidden states and all

    def decide(self, point: Point) -> Decision:
        assert self.keep is not None, "solve() first"
        cells = point.kept.shape[1]
        by_code = self.rule == "code"
        attention = point.last_row() if by_code else point.rows(rows_from_image(point.text.is_text, cells))
        return keep_cells(fastv(attention, self.keep), cells)

    def scorer_flops(self, prompt: Prompt) -> int:
        rows = 1 if self.rule == "code" else prompt.geometry.cells + prompt.after
        return sum(attention_rows(prompt, layer, rows) for layer in self.prune_layers)
