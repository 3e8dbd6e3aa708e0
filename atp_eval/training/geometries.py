"""The shapes of published models, so that a training can be planned without their weights."""

from __future__ import annotations

from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

TEXT = {
    "llava-hf/llava-1.5-7b-hf": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "heads": 32},
    "llava-hf/llava-1.5-13b-hf": {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "heads": 40,
    },
}


def known_config(name: str) -> LlavaConfig:
    """The configuration of a model in `TEXT`: CLIP-L at 336 pixels, and a Llama with 64 words more than Vicuna's."""
    shape = dict(TEXT[name])
    heads = shape.pop("heads")
    text = LlamaConfig(
        vocab_size=32064,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        **shape,  # type: ignore[arg-type]
    )
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    return LlavaConfig(vision_config=vision, text_config=text, image_token_index=32000)
