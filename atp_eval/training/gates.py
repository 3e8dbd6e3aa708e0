"""Where the keep masks of ATP-LLaVA's training are made: a wrap around each decoder layer of the language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from atp_eval.engine.layout import Layout
from atp_eval.engine.point import Attention
from atp_eval.engine.scores import causal_self_score, rows_score_at, self_score
from atp_eval.methods.atp.options import AtpOptions
from atp_eval.methods.atp.scores import spatial_score
from atp_eval.methods.atp.thresholds import ThresholdModule
from atp_eval.training.biased import HIDDEN
from atp_eval.training.masks import Decided, Estimator, Raw, decide, key_bias


class Gate(nn.Module):
    """A decoder layer whose attention takes a bias for each key (`biased`), and where that comes from.

    The masks are made outside of the layer, so that checkpointing, which runs the layer once more in the backward pass,
    makes them once.
    """

    def __init__(self, layer: nn.Module, index: int, masks: Masks, checkpointing: bool) -> None:
        super().__init__()
        self.layer = layer
        self._index = index
        self._masks = (masks,)  # not a child: no parameters of its own
        self._checkpointing = checkpointing

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        kwargs["attention_mask"] = self._masks[0].enter(self._index)
        if self._checkpointing and torch.is_grad_enabled():
            return checkpoint(self.layer, hidden, *args, use_reentrant=False, **kwargs)
        return self.layer(hidden, *args, **kwargs)


class Masks:
    """The keep masks of one forward pass. B rows, those without an image included; V grid cells, K prune points.

    weight: of a sample's loss in what `backward` is called on, by which its gradients are limited; None for a mean over
    the rows.
    """

    def __init__(
        self, modules: nn.ModuleList, options: AtpOptions, estimator: Estimator, grid: tuple[int, int]
    ) -> None:
        self.modules, self.options, self.estimator, self.grid = modules, options, estimator, grid
        self.spatial = spatial_score(grid, options.lambda_sample, options.strides)
        self.decided: list[Decided] = []
        self.reading = False
        self.soft = True
        self.weight: float | None = None
        self._attention: Attention | None = None

    def start(self, layout: Layout, rows: Tensor, soft: bool) -> None:
        """A new batch: its layout, and [B, L] bool, the text rows after the image and before the first answer.

        soft: whether the estimator is used; else masks are hard, as in inference.
        """
        self.layout, self.rows, self.soft, self.reading = layout, rows, soft, True
        self.decided, self._attention = [], None
        self._bias = layout.valid.new_zeros(layout.valid.shape, dtype=torch.float32).masked_fill(~layout.valid, HIDDEN)
        self.spatial = self.spatial.to(layout.cell.device)

    def remember(self, attention: Attention) -> None:
        """Queries and keys of the layer before a prune point; scores take no gradient."""
        self._attention = Attention(attention.query.detach(), attention.key.detach(), attention.scaling)

    def enter(self, layer: int) -> Tensor:
        """[B, L]: the bias of each key in a layer; decides first where the layer is a prune point."""
        if layer in self.options.layers:
            self.decided.append(self._decide(len(self.decided), self._raw(), self.decided))
            limit = self.estimator.clip * (self.weight or 1 / len(self.layout.valid))
            bias = self.layout.to_slots(key_bias(self.decided[-1].mask, limit), 0.0)
            self._bias = bias.masked_fill(~self.layout.valid, HIDDEN)
        return self._bias

    def again(self, scores: Sequence[Raw]) -> list[Decided]:
        """All K prune points from the scores of an earlier batch, with gradients to the threshold modules."""
        decided: list[Decided] = []
        for index, raw in enumerate(scores):
            decided.append(self._decide(index, raw, decided))
        return decided

    def _decide(self, index: int, raw: Raw, earlier: Sequence[Decided]) -> Decided:
        module = cast(ThresholdModule, self.modules[index])
        before = earlier[-1].mask if earlier else torch.ones_like(raw.s_self)
        estimator = self.estimator if self.soft else Estimator()
        return decide(module, self.options, estimator, raw, before, self.spatial, self.grid)

    @torch.no_grad()
    def _raw(self) -> Raw:
        """The scores of the prune point that is next. A soft mask weights the means of the next point by itself."""
        assert self._attention is not None
        (query, key, scaling), self._attention = self._attention, None
        layout, exact = self.layout, torch.promote_types(query.dtype, torch.float32)
        before = (
            self.decided[-1].mask
            if self.decided
            else torch.ones(len(layout.cell), layout.cells, dtype=exact, device=query.device)
        )
        with torch.autocast(query.device.type, enabled=False):
            share = layout.to_slots(before, 0.0)  # [B, L], 0 for text
            measure = causal_self_score if self.options.causal_self else self_score
            s_self = measure(query, key, share, scaling)
            bias = layout.to_slots(key_bias(before), 0.0)
            s_cross = rows_score_at(query, key, self.rows, layout.valid, bias, scaling)
        return Raw(layout.to_cells(s_self, 0.0), layout.to_cells(s_cross, 0.0))
