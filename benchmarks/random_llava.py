"""LLaVA-1.5-7B's language model with random weights, of any depth, and prompts for it: what time is measured on.

Time does not depend on weights, so a few layers' weights may stand for all: each layer is a module of its own, but
layers share the parameters of `distinct` of them. A layer of the 7B model has 0.8 GB in fp32, and nothing of it is left
in any cache when it comes round again, so this costs the time of distinct weights and a tenth of their memory.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from atp_eval.cost import Geometry
from atp_eval.engine import VisionStates

SIZES = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "vocab_size": 32064}
TOWER = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}  # CLIP ViT-L
IMAGE_TOKEN, BEFORE = 32000, 5  # text tokens in front of the image, as in "USER: "


@dataclass(frozen=True)
class Size:
    """What a model and its prompts are like. distinct: layers with weights of their own; text: tokens of a prompt."""

    layers: int
    distinct: int
    batch: int
    text: int
    device: torch.device
    dtype: torch.dtype
    attention: str
    tower: int = 2


def build(size: Size) -> Any:
    """The language model at `size.layers` layers, behind the last `size.tower` layers of its vision tower."""
    vision = CLIPVisionConfig(num_hidden_layers=size.tower, image_size=336, patch_size=14, **TOWER)
    distinct = min(size.distinct or size.layers, size.layers)
    text = LlamaConfig(num_hidden_layers=distinct, max_position_embeddings=4096, **SIZES)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN, vision_feature_layer=-2)
    before = torch.get_default_dtype()
    torch.set_default_dtype(size.dtype)
    try:
        with size.device:
            model: Any = LlavaForConditionalGeneration._from_config(config, attn_implementation=size.attention)
    finally:
        torch.set_default_dtype(before)
    deepen(model.model.language_model, size.layers)
    return model.eval()


def deepen(text_model: Any, depth: int) -> None:
    """Add layers, in turn copies of those that are there, which share their parameters and their configuration."""
    config, layers = text_model.config, text_model.layers
    for index in range(len(layers), depth):
        first: nn.Module = layers[index % config.num_hidden_layers]
        shared = {id(parameter): parameter for parameter in first.parameters()} | {id(config): config}
        layer: Any = copy.deepcopy(first, shared)
        layer.self_attn.layer_idx = index
        layers.append(layer)
    config.num_hidden_layers = depth


def prompts(geometry: Any, size: Size) -> dict[str, Any]:
    """What the model is called with: random words around the image, and features instead of pixels."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(3, 30000, (size.batch, size.text), generator=generator)
    image = torch.full((size.batch, geometry.cells), IMAGE_TOKEN)
    features = torch.randn(size.batch, geometry.cells, geometry.hidden, generator=generator)
    return {
        "input_ids": torch.cat([words[:, :BEFORE], image, words[:, BEFORE:]], 1).to(size.device),
        "pixel_values": features.to(size.device, size.dtype),
        "use_cache": True,
        "logits_to_keep": 1,
    }


def states(geometry: Geometry, size: Size) -> VisionStates:
    """What a vision tower would have left of the pictures, for methods that look at it."""
    generator, width = torch.Generator().manual_seed(1), TOWER["hidden_size"]
    entering, leaving = torch.randn(2, size.batch, geometry.cells + 1, width, generator=generator).to(
        size.device, size.dtype
    )
    pixels = torch.zeros(size.batch, 3, 336, 336, device=size.device, dtype=size.dtype)
    return VisionStates(pixels, entering, leaving)
