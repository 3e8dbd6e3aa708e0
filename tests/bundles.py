"""A small random LLaVA with the embedded model's tokenizer, ready to be asked: no weights, no network, milliseconds."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from atp_eval.engine import model_geometry
from atp_eval.models import Bundle, tiny
from atp_eval.scenes import world

SIDE, PATCH = 84, world.PATCH  # 6 x 6 visual tokens


def small_config(layers: int = 4) -> LlavaConfig:
    """36 visual tokens, `layers` decoder layers of width 32 with grouped heads."""
    words = tiny.tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=32,
    )
    text = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        max_position_embeddings=512,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_seq_length=(SIDE // PATCH) ** 2,
    )


def small_processor() -> LlavaProcessor:
    """The embedded model's tokenizer and template over smaller pictures."""
    return tiny.processor(SIDE)


@cache
def small_bundle(seed: int = 0) -> Bundle:
    """The model in fp32 on the CPU; the same weights for the same seed."""
    torch.manual_seed(seed)
    config = small_config()
    model = LlavaForConditionalGeneration(config).eval()
    model.generation_config.update(eos_token_id=2, bos_token_id=1, pad_token_id=0)
    return Bundle(
        model=model,
        processor=small_processor(),
        model_id="small",
        weight_hash=f"seed-{seed}",
        geometry=model_geometry(config),
        device=torch.device("cpu"),
        dtype=torch.float32,
        image_mode="pad",
        prompt_style="hf",
    )


def small_checkpoint(folder: Path) -> Path:
    """A folder with the small model and the files of llava-hf/llava-1.5-7b-hf."""
    small_bundle().model.save_pretrained(folder)
    small_processor().save_pretrained(folder)
    return folder
