"""What a vision tower made of pictures, for methods that choose by it: kept while it runs, or handed in afterwards.

Only what enters and what leaves one encoder layer is kept. Everything else (queries, keys, attention of the CLS token)
is made again from that by two projections, so that one pass of the tower serves every method.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import LlavaForConditionalGeneration
from transformers.models.clip.modeling_clip import CLIPEncoder
from transformers.models.siglip.modeling_siglip import SiglipEncoder

from atp_eval.errors import UserError


class VisionStates(NamedTuple):
    """Of n pictures: pixels [n, 3, side, side]; hidden states [n, S, C] that enter and leave the encoder layer whose
    output is projected into the LLM, CLS included where there is one."""

    pixels: Tensor
    entering: Tensor
    leaving: Tensor

    def rows(self, index: slice | Tensor) -> VisionStates:
        """The states of some of the pictures."""
        return VisionStates(*(x[index] for x in self))

    def of(self, samples: int) -> VisionStates:
        """One of each sample's equal rows: `generate` may have repeated the pixels for beams."""
        return self.rows(slice(None, None, len(self.pixels) // samples))


def encoder_layers(model: LlavaForConditionalGeneration) -> nn.ModuleList:
    """The layers of the vision tower's encoder."""
    tower: Any = model.model.vision_tower
    return next(m.layers for m in tower.modules() if isinstance(m, (CLIPEncoder, SiglipEncoder)))


def own_layer(model: LlavaForConditionalGeneration) -> int:
    """Index of the encoder layer whose output is projected; `hidden_states` begins with what enters the first."""
    layers, chosen = len(encoder_layers(model)), int(model.config.vision_feature_layer)  # type: ignore[arg-type]
    return chosen - 1 if chosen > 0 else layers + chosen


@contextmanager
def recorded(model: LlavaForConditionalGeneration) -> Iterator[list[VisionStates]]:
    """Inside the block every pass of the vision tower appends its states to the list."""
    found: list[VisionStates] = []
    seen: dict[str, Tensor] = {}
    tower: Any = model.model.vision_tower
    layer = encoder_layers(model)[own_layer(model)]

    def enter_tower(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen["pixels"] = args[0] if args else kwargs["pixel_values"]

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen["entering"] = args[0] if args else kwargs["hidden_states"]

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        leaving = output[0] if isinstance(output, tuple) else output
        found.append(VisionStates(seen["pixels"], seen["entering"], leaving))

    handles = [
        tower.register_forward_pre_hook(enter_tower, with_kwargs=True),
        layer.register_forward_pre_hook(enter, with_kwargs=True),
        layer.register_forward_hook(leave),
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


class TowerView:
    """What a method is shown of the vision tower (the contract is `atp_eval.methods.Vision`)."""

    def __init__(self, model: LlavaForConditionalGeneration, states: VisionStates) -> None:
        self._model: Any = model
        self._states = states
        side = model.config.vision_config.image_size // model.config.vision_config.patch_size  # type: ignore[union-attr]
        self._extra = states.leaving.shape[1] - side * side

    @property
    def features(self) -> Tensor:
        return self._states.leaving[:, self._extra :]

    @property
    def cls_feature(self) -> Tensor:
        if not self._extra:
            raise UserError("this vision tower has no CLS token")
        return self._states.leaving[:, 0]

    def queries(self, layer: Literal["own", "next"]) -> Tensor:
        return self._projected(layer, "q_proj")

    def keys(self, layer: Literal["own", "next"]) -> Tensor:
        return self._projected(layer, "k_proj")

    def project(self, features: Tensor) -> Tensor:
        projected: Tensor = self._model.model.multi_modal_projector(features)
        return projected

    def encode_resized(self, rows: int, cols: int) -> Tensor:
        core, patch = self._model.model, self._model.config.vision_config.patch_size
        pixels = interpolate(
            self._states.pixels.float(), (rows * patch, cols * patch), mode="bicubic", antialias=True
        ).to(self._states.pixels.dtype)
        encode = type(core).get_image_features  # the instance's own may hand out what was encoded before
        return torch.stack(list(encode(core, pixel_values=pixels, interpolate_pos_encoding=True).pooler_output))

    def _projected(self, layer: Literal["own", "next"], name: str) -> Tensor:
        """[B, H, S, d]"""
        layers, index, states = encoder_layers(self._model), own_layer(self._model), self._states.entering
        if layer == "next" and index + 1 < len(layers):
            index, states = index + 1, self._states.leaving
        chosen: Any = layers[index]
        projected = getattr(chosen.self_attn, name)(chosen.layer_norm1(states))
        return projected.unflatten(-1, (-1, chosen.self_attn.head_dim)).transpose(1, 2)
