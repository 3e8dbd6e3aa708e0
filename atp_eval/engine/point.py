"""What the engine shows a method at a prune point (the contract is `atp_eval.methods.Point`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from atp_eval.engine.attention import Attention
from atp_eval.engine.layout import Layout
from atp_eval.engine.scores import causal_self_score, exact, rows_score, self_score
from atp_eval.errors import UserError
from atp_eval.methods.point import Embeddings, TextTokens, Vision


@dataclass
class PrunePoint:
    """One prune point of one prefill; B samples with an image, V grid cells. What is costly is a function, called when
    a method asks for it.

    layout: of the B samples. is_text: [B, T] bool, which of the last T slots are text after the image. attention: of
    the layer before, None before layer 0. coming: of the layer that is about to be entered, from its last row.
    """

    layer: int
    grid: tuple[int, int]
    layout: Layout
    is_text: Tensor
    attention: Attention | None
    coming: Callable[[], Attention]
    hidden_states: Callable[[], Tensor]
    names: Callable[[], Sequence[str]]
    inputs: Callable[[], Embeddings]
    tower: Callable[[], Vision]
    truth: Callable[[], Tensor]
    compared: Callable[[], Tensor]
    final_norm: Callable[[Tensor], Tensor]

    @property
    def kept(self) -> Tensor:
        return self.layout.to_cells(self.layout.visual, False)

    @property
    def order(self) -> Tensor:
        return self.layout.order

    @property
    def hidden(self) -> Tensor:
        return self.layout.to_cells(self.hidden_states(), 0)

    @property
    def sample_ids(self) -> Sequence[str]:
        return self.names()

    @property
    def embeddings(self) -> Embeddings:
        return self.inputs()

    @property
    def vision(self) -> Vision:
        return self.tower()

    @property
    def relevance(self) -> Tensor:
        return self.compared()

    @property
    def asked(self) -> Tensor:
        return self.truth()

    @property
    def keys(self) -> Tensor:
        return self.layout.to_cells(self._last_attention.key.transpose(1, 2), 0)

    @property
    def text(self) -> TextTokens:
        last = self.is_text.shape[1]
        keys = self._last_attention.key[:, :, -last:].transpose(1, 2)
        return TextTokens(self.is_text, self.hidden_states()[:, -last:], keys)

    def self_score(self, causal: bool = False) -> Tensor:
        query, key, scaling = self._last_attention
        score = (causal_self_score if causal else self_score)(query, key, self.layout.visual, scaling)
        return self.layout.to_cells(score, float("-inf"))

    def cross_score(self) -> Tensor:
        return self.rows(self.is_text)

    def last_row(self) -> Tensor:
        return self._rows(self._last_attention, self._one)

    def rows(self, weights: Tensor) -> Tensor:
        return self._rows(self._last_attention, weights)

    def coming_row(self) -> Tensor:
        return self._rows(self.coming(), self._one)

    def _rows(self, attention: Attention, weights: Tensor) -> Tensor:
        query, key, scaling = attention
        return self.layout.to_cells(rows_score(query, key, weights, self.layout.valid, scaling), float("-inf"))

    @property
    def _one(self) -> Tensor:
        """[B, 1]: the last row alone."""
        return self.is_text.new_ones(len(self.is_text), 1)

    @cached_property
    def _last_attention(self) -> Attention:
        """Keys in the precision of the scores: converted once for all that are asked for."""
        if self.attention is None:
            raise UserError(
                f"there is no attention before layer {self.layer}; a method that scores by it starts at layer 1"
            )
        return self.attention._replace(key=exact(self.attention.key))
