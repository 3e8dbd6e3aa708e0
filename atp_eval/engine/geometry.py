"""The sizes of a loaded model, read out of its configuration."""

from __future__ import annotations

import platform
from typing import Any

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from atp_eval.cost import ModelGeometry, Place, VisionGeometry
from atp_eval.errors import UserError

HAS_CLS = {"clip_vision_model": True, "siglip_vision_model": False}


def model_geometry(config: LlavaConfig, place: Place | None = None) -> ModelGeometry:
    """Read the sizes out of a LLaVA configuration. Raises UserError for a vision tower that is not known."""
    text: Any = config.text_config
    vision: Any = config.vision_config
    if vision.model_type not in HAS_CLS:
        raise UserError(f"a {vision.model_type} vision tower is not supported; there are {', '.join(HAS_CLS)}")
    side = vision.image_size // vision.patch_size
    return ModelGeometry(
        num_layers=text.num_hidden_layers,
        grid=(side, side),
        has_cls=HAS_CLS[vision.model_type],
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
            # older transformers have no such setting, and always the head
            pooling_head=vision.model_type == "siglip_vision_model" and vision.to_dict().get("vision_use_head", True),
        ),
        place=place,
    )


def place_of(model: LlavaForConditionalGeneration) -> Place:
    """Where a model runs, for budgets of measured time."""
    text: Any = model.config.text_config
    return Place(device_name(model.device), str(model.dtype).removeprefix("torch."), text._attn_implementation)


def device_name(device: torch.device) -> str:
    """A device by what its speed depends on: `NVIDIA A100-SXM4-80GB`, `x86_64 AVX512, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    return device.type
