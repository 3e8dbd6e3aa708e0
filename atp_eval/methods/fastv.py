"""FastV: drop what the last prompt token does not look at, once, early in the LLM.

Chen et al., "An Image is Worth 1/2 Tokens After Layer 2", ECCV 2024 (https://arxiv.org/abs/2403.06764).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from atp_eval.methods.decision import Decision, keep_top
from atp_eval.methods.point import Point
from atp_eval.methods.single import SinglePoint


@dataclass(frozen=True, kw_only=True)
class FastV(SinglePoint):
    """Keep the `keep` visual tokens with the most attention from the last prompt token, before layer `layer`.

    The paper's text says "average attention received"; its code, and so this, uses the last query row only, averaged
    over heads. Without a budget half of the tokens stay (the paper's K=2, R=50 %).
    """

    name: ClassVar[str] = "fastv"
    first_layer: ClassVar[int] = 1
    default_share: ClassVar[float | None] = 0.5

    def decide(self, point: Point) -> Decision:
        assert self.keep is not None, "solve() first"
        return keep_top(point.last_row(), self.keep)
