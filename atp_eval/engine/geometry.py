"""The sizes of a loaded model: what budgets are solved against and what FLOPs are counted from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import LlavaConfig

from atp_eval.methods import Geometry


@dataclass(frozen=True)
class VisionGeometry:
    """The vision tower. `feature_layer` is the hidden state that is projected, counted as in the checkpoint (-2)."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    image_size: int
    patch_size: int
    feature_layer: int


@dataclass(frozen=True)
class ModelGeometry(Geometry):
    """Geometry of a vision-language model; sizes in units, not bytes."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    vision: VisionGeometry


def model_geometry(config: LlavaConfig) -> ModelGeometry:
    """Read the sizes out of a LLaVA configuration."""
    text: Any = config.text_config
    vision: Any = config.vision_config
    side = vision.image_size // vision.patch_size
    return ModelGeometry(
        num_layers=text.num_hidden_layers,
        grid=(side, side),
        hidden=text.hidden_size,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=text.head_dim or text.hidden_size // text.num_attention_heads,
        intermediate=text.intermediate_size,
        vocab=text.vocab_size,
        vision=VisionGeometry(
            layers=vision.num_hidden_layers,
            hidden=vision.hidden_size,
            heads=vision.num_attention_heads,
            intermediate=vision.intermediate_size,
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            feature_layer=int(config.vision_feature_layer),  # type: ignore[arg-type]
        ),
    )
