"""A LLaVA with threshold modules between its decoder layers, for training: all tokens stay, masks hide them.

In hard mode the forward pass equals that of the engine, which drops the tokens; a test holds both to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from atp_eval.engine.attention import forget, read_once
from atp_eval.engine.geometry import model_geometry
from atp_eval.engine.layout import Layout
from atp_eval.engine.point import Attention
from atp_eval.engine.rope2d import coordinates, rotary_2d
from atp_eval.engine.scores import causal_self_score, rows_score_at, self_score
from atp_eval.errors import UserError
from atp_eval.methods.atp import AtpOptions, new_modules
from atp_eval.methods.atp.scores import spatial_score
from atp_eval.methods.atp.thresholds import ThresholdModule
from atp_eval.training.masks import Decided, Estimator, attention_mask, decide, key_bias


class Gate(nn.Module):
    """A decoder layer at or after the first prune point. The masks are made outside of the layer, so that gradient
    checkpointing, which runs the layer twice, makes them once."""

    def __init__(self, layer: nn.Module, index: int, masks: Masks) -> None:
        super().__init__()
        self.layer = layer
        self._index = index
        self._masks = (masks,)  # not a child: no parameters of its own

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        kwargs["attention_mask"] = self._masks[0].enter(self._index, kwargs["attention_mask"], hidden.dtype)
        return self.layer(hidden, *args, **kwargs)


class Masks:
    """The keep masks of one forward pass. B rows, those without an image included; V grid cells."""

    def __init__(
        self, modules: nn.ModuleList, options: AtpOptions, estimator: Estimator, grid: tuple[int, int]
    ) -> None:
        self.modules, self.options, self.estimator, self.grid = modules, options, estimator, grid
        self.spatial = spatial_score(grid, options.lambda_sample, options.strides)
        self.decided: list[Decided] = []
        self.reading = False
        self.attention: Attention | None = None
        self._bias: Tensor | None = None

    def start(self, layout: Layout, rows: Tensor) -> None:
        """A new batch: its layout, and [B, L] bool, the text rows after the image and before the first answer."""
        self.layout, self.rows, self.reading = layout, rows, True
        self.has_image = layout.visual.any(1)
        self._idle = not bool(self.has_image.any())
        self.decided, self.attention, self._bias = [], None, None
        self.spatial = self.spatial.to(layout.cell.device)

    def remember(self, attention: Attention) -> None:
        """Queries and keys of the layer before a prune point; scores take no gradient."""
        if self.reading:
            self.attention = Attention(attention.query.detach(), attention.key.detach(), attention.scaling)

    def enter(self, layer: int, mask: Any, dtype: torch.dtype) -> Any:
        """The attention mask of a layer: decides first where the layer is a prune point."""
        if self._idle:
            return mask
        if layer in self.options.layers:
            self.decided.append(self._decide(self.options.layers.index(layer)))
            bias = self.layout.to_slots(key_bias(self.decided[-1].mask), 0.0)
            self._bias = attention_mask(bias, self.layout.valid, dtype)
        return self._bias

    def _decide(self, index: int) -> Decided:
        assert self.attention is not None
        query, key, scaling = self.attention
        before = (
            self.decided[-1].mask
            if self.decided
            else torch.ones(
                len(self.layout.cell),
                self.layout.cells,
                dtype=torch.promote_types(query.dtype, torch.float32),
                device=query.device,
            )
        )
        share = self.layout.to_slots(before.detach(), 0.0)  # [B, L], 0 for text
        with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
            measure = causal_self_score if self.options.causal_self else self_score
            s_self = measure(query, key, share, scaling)
            bias = self.layout.to_slots(key_bias(before.detach()), 0.0)
            s_cross = rows_score_at(query, key, self.rows, self.layout.valid, bias, scaling)
            raw = (self.layout.to_cells(s_self, 0.0), self.layout.to_cells(s_cross, 0.0))
        module = cast(ThresholdModule, self.modules[index])
        return decide(module, self.options, self.estimator, raw, before, self.spatial, self.grid)


class PruningLlava(nn.Module):
    """`model` with threshold modules; calling it gives the model's output, `masks.decided` what was decided.

    model: loaded with sdpa or eager attention; its decoder layers are wrapped until `detach`. options.positions="2d"
    turns the image's positions into rows and columns. Raises UserError where the options do not fit the model.
    """

    def __init__(
        self, model: LlavaForConditionalGeneration, options: AtpOptions, estimator: Estimator | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.options = options
        self.geometry = model_geometry(model.config)
        if options.layers[-1] >= self.geometry.num_layers:
            raise UserError(f"layers={options.layers}: this model has layers 0 to {self.geometry.num_layers - 1}")
        if model.config._attn_implementation not in ("sdpa", "eager"):
            raise UserError(f"training needs attention sdpa or eager, not {model.config._attn_implementation}")
        self.thresholds = new_modules(options)
        self.masks = Masks(self.thresholds, options, estimator or Estimator(), self.geometry.grid)
        text: Any = model.model.language_model
        self._handles: list[Any] = []
        for index, layer in enumerate(text.layers):
            if index + 1 in options.layers:
                self._handles.append(layer.self_attn.register_forward_pre_hook(self._read, with_kwargs=True))
            if index >= options.layers[0]:
                text.layers[index] = Gate(layer, index, self.masks)
        if options.positions == "2d":
            self._handles.append(text.rotary_emb.register_forward_hook(self._rotate, with_kwargs=True))

    def detach(self) -> LlavaForConditionalGeneration:
        """The model as it was, without wraps and hooks."""
        layers: Any = self.model.model.language_model.layers
        for index, layer in enumerate(layers):
            if isinstance(layer, Gate):
                layers[index] = layer.layer
            forget(layers[index].self_attn)
        for handle in self._handles:
            handle.remove()
        return self.model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None, **inputs: Any) -> Any:
        """input_ids, attention_mask [B, L], padded on either side; labels [B, L], -100 for everything but answers;
        pixel_values [images, 3, H, W]. A row has one image or none. Gives transformers' output, without a loss."""
        with self._batch(input_ids, attention_mask.bool(), labels):
            positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
            return self.model(
                input_ids=input_ids, attention_mask=attention_mask, position_ids=positions, use_cache=False, **inputs
            )

    @contextmanager
    def _batch(self, input_ids: Tensor, valid: Tensor, labels: Tensor | None) -> Iterator[None]:
        image = input_ids == self.model.config.image_token_id
        cell = (image.cumsum(1) - 1).masked_fill(~image, self.geometry.cells)
        after = valid & ~image & (image.cumsum(1) == self.geometry.cells)
        if labels is not None:
            after &= (labels != -100).cumsum(1) == 0  # later turns have seen an answer
        self.masks.start(Layout(valid, cell, [0], self.geometry.cells), after)
        try:
            yield
        finally:
            self.masks.reading = False

    def _read(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self.masks.reading:
            read_once(module, self.masks.remember)

    def _rotate(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        return rotary_2d(module.forward, args[0], coordinates(self.masks.layout, self.geometry.grid))
