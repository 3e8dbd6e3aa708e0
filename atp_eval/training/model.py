"""A LLaVA with threshold modules between its decoder layers, for training: all tokens stay, masks hide them.

In hard mode the forward pass equals that of the engine, which drops the tokens; a test holds both to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from atp_eval.engine.attention import attend_once, forget
from atp_eval.engine.geometry import model_geometry
from atp_eval.engine.layout import Layout
from atp_eval.engine.rope2d import coordinates, rotary_2d
from atp_eval.errors import UserError
from atp_eval.methods.atp import AtpOptions, new_modules
from atp_eval.training.biased import biased_config
from atp_eval.training.collate import IGNORED
from atp_eval.training.gates import Gate, Masks
from atp_eval.training.masks import Estimator, Raw


class Passed(NamedTuple):
    """What a forward pass gives: B rows, S of them with an image, K prune points.

    logits: [B, L, vocab], without labels only. loss: the language loss summed over all answer tokens, with labels only.
    tokens: [S, K] that stay, with gradients; those of an earlier batch after them. theta: [S, K, 2], theta_r and
    theta_s. passed: [S, K] bool, whether any token was above a threshold. scores: of the S samples, for `earlier`.
    """

    logits: Tensor | None
    loss: Tensor | None
    tokens: Tensor
    theta: Tensor
    passed: Tensor
    scores: list[Raw]


class PruningLlava(nn.Module):
    """`model` with threshold modules.

    model: its decoder layers are wrapped until `detach`, whatever attention it was loaded with. options.positions="2d"
    turns the image's positions into rows and columns. trainable: whether the language model learns too; vision tower
    and projector never do. checkpointing: keep each layer's input only and compute the layer again in the backward
    pass. Raises UserError where the options do not fit the model.
    """

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        options: AtpOptions,
        estimator: Estimator | None = None,
        *,
        trainable: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.options = options
        self.geometry = model_geometry(model.config)
        if options.layers[-1] >= self.geometry.num_layers:
            raise UserError(f"layers={options.layers}: this model has layers 0 to {self.geometry.num_layers - 1}")
        self.thresholds = new_modules(options)
        self.masks = Masks(self.thresholds, options, estimator or Estimator(), self.geometry.grid)
        text: Any = model.model.language_model
        model.eval().requires_grad_(False)  # LLaVA-1.5 has no dropout
        for part in (text, model.lm_head) if trainable else ():
            part.requires_grad_(True)
        self._handles: list[Any] = []
        config = biased_config(text.config)
        for index, layer in enumerate(text.layers):
            layer.self_attn.config = config
            if index + 1 in options.layers:
                self._handles.append(layer.self_attn.register_forward_pre_hook(self._read))
            text.layers[index] = Gate(layer, index, self.masks, checkpointing)
        if options.positions == "2d":
            self._handles.append(text.rotary_emb.register_forward_hook(self._rotate))

    def detach(self) -> LlavaForConditionalGeneration:
        """The model as it was, without wraps and hooks."""
        layers: Any = self.model.model.language_model.layers
        for index, gate in enumerate(layers):
            layers[index] = gate.layer
            forget(gate.layer.self_attn)
            gate.layer.self_attn.config = self.model.model.language_model.config
        for handle in self._handles:
            handle.remove()
        return self.model

    def train(self, mode: bool = True) -> PruningLlava:
        """Training uses the estimator, evaluation hard masks; the model itself has nothing that differs."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor | None = None,
        pixel_values: Tensor | None = None,
        earlier: Sequence[Raw] | None = None,
    ) -> Passed:
        """input_ids, attention_mask [B, L], padded on either side; labels [B, L], -100 for everything but answers;
        pixel_values [images, 3, H, W]. A row has one image or none. earlier: scores whose tokens are decided again."""
        text: Any = self.model.model.language_model
        with self._batch(input_ids, attention_mask.bool(), labels):
            hidden = text(
                inputs_embeds=self._embed(input_ids, pixel_values),
                attention_mask=attention_mask,
                position_ids=(attention_mask.cumsum(1) - 1).clamp(min=0),
                use_cache=False,
            ).last_hidden_state
        logits, loss = None, None
        if labels is None:
            logits = self.model.lm_head(hidden)
        else:
            answered = labels[:, 1:] != IGNORED
            found = self.model.lm_head(hidden[:, :-1][answered])  # (answer tokens, vocab)
            exact = found.to(torch.promote_types(found.dtype, torch.float32))
            loss = F.cross_entropy(exact, labels[:, 1:][answered], reduction="sum")
            loss = loss + 0 * sum(d.theta_r.sum() + d.theta_s.sum() for d in self.masks.decided)  # no unused parameters
        decided, image = self.masks.decided, self.masks.layout.visual.any(1)
        tokens = torch.stack([d.mask[image].sum(1) for d in decided], 1)
        if earlier is not None:
            tokens = torch.cat([tokens, torch.stack([d.mask.sum(1) for d in self.masks.again(earlier)], 1)])
        return Passed(
            logits=logits,
            loss=loss,
            tokens=tokens,
            theta=torch.stack([torch.cat([d.theta_r, d.theta_s], 1)[image] for d in decided], 1).detach(),
            passed=torch.stack([d.passed[image] for d in decided], 1),
            scores=[Raw(*(score[image] for score in d.raw)) for d in decided],
        )

    def _embed(self, input_ids: Tensor, pixel_values: Tensor | None) -> Tensor:
        """[B, L, D]: words and pictures. Without a picture the tower looks at nothing: processes that share out the
        weights (ZeRO-3) have to call the same modules in the same order."""
        core: Any = self.model.model
        words = core.get_input_embeddings()(input_ids)
        if pixel_values is None:
            size = self.geometry.vision.image_size
            pixel_values = torch.zeros(1, 3, size, size, dtype=self.model.dtype, device=words.device)
        features = torch.cat(list(core.get_image_features(pixel_values=pixel_values).pooler_output)).to(words.dtype)
        return words.masked_scatter(self.masks.layout.visual[..., None], features)

    @contextmanager
    def _batch(self, input_ids: Tensor, valid: Tensor, labels: Tensor | None) -> Iterator[None]:
        image = input_ids == self.model.config.image_token_id
        cell = (image.cumsum(1) - 1).masked_fill(~image, self.geometry.cells)
        after = valid & ~image & (image.cumsum(1) == self.geometry.cells)
        if labels is not None:
            after &= (labels != IGNORED).cumsum(1) == 0  # later turns have seen an answer
        self.masks.start(Layout(valid, cell, [0], self.geometry.cells), after, soft=self.training)
        try:
            yield
        finally:
            self.masks.reading = False

    def _read(self, module: nn.Module, args: Any) -> None:
        if self.masks.reading:
            attend_once(module, self.masks.remember)

    def _rotate(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        return rotary_2d(module.forward, args[0], coordinates(self.masks.layout, self.geometry.grid))
