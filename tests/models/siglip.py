"""A small LLaVA whose vision tower has no CLS token."""

from __future__ import annotations

from engine.small import IMAGE
from transformers import LlamaConfig, LlavaConfig, SiglipVisionConfig


def siglip_config(strategy: str = "full") -> LlavaConfig:
    """6 x 6 visual tokens of 8 x 8 pixels, 5 decoder layers."""
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=48,
        patch_size=8,
    )
    text = LlamaConfig(
        vocab_size=200,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=199,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        vision_feature_layer=-2,
        vision_feature_select_strategy=strategy,
    )
