"""What the engine shows a method at a prune point (the contract is `atp_eval.methods.Point`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

from atp_eval.engine.layout import Layout
from atp_eval.engine.scores import causal_self_score, exact, rows_score, self_score
from atp_eval.errors import UserError


class Attention(NamedTuple):
    """Post-RoPE query [rows, H, L, d] and key [rows, G, L, d] of one layer, and the scaling of their product."""

    query: Tensor
    key: Tensor
    scaling: float


class PrunePoint:
    """One prune point of one prefill; B samples with an image, V grid cells. Scores are computed when asked for."""

    def __init__(
        self,
        layer: int,
        grid: tuple[int, int],
        layout: Layout,
        text: Tensor,
        hidden: Callable[[], Tensor],
        attention: Attention | None,
        sample_ids: Callable[[], Sequence[str]],
    ) -> None:
        """layout: of the B samples; text: [B, T] bool, which of the last T slots are text after the image."""
        self.layer = layer
        self.grid = grid
        self._layout = layout
        self._text = text
        self._hidden = hidden
        self._attention = attention
        self._sample_ids = sample_ids

    @property
    def kept(self) -> Tensor:
        return self._layout.to_cells(self._layout.visual, False)

    @property
    def hidden(self) -> Tensor:
        return self._layout.to_cells(self._hidden(), 0)

    @property
    def sample_ids(self) -> Sequence[str]:
        return self._sample_ids()

    def self_score(self, causal: bool = False) -> Tensor:
        query, key, scaling = self._last_attention
        score = (causal_self_score if causal else self_score)(query, key, self._layout.visual, scaling)
        return self._layout.to_cells(score, float("-inf"))

    def cross_score(self) -> Tensor:
        return self.rows(self._text)

    def last_row(self) -> Tensor:
        return self.rows(self._text.new_ones(len(self._text), 1))

    def rows(self, weights: Tensor) -> Tensor:
        query, key, scaling = self._last_attention
        score = rows_score(query, key, weights, self._layout.valid, scaling)
        return self._layout.to_cells(score, float("-inf"))

    @cached_property
    def _last_attention(self) -> Attention:
        """Keys in the precision of the scores: converted once for all that are asked for."""
        if self._attention is None:
            raise UserError(
                f"there is no attention before layer {self.layer}; a method that scores by it starts at layer 1"
            )
        return self._attention._replace(key=exact(self._attention.key))
