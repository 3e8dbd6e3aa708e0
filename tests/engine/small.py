"""Small random LLaVA models and prompts for the proofs; fp64, so that equal means equal."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

IMAGE, PAD = 190, 0


def small_llava(
    layers: int = 5,
    kv_heads: int = 2,
    grid: int = 6,
    dtype: torch.dtype = torch.float64,
    attention: str = "sdpa",
    seed: int = 0,
) -> Any:
    """Random weights, sharp enough that attention prefers some tokens; never stops by itself."""
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8 * grid,
        patch_size=8,
    )
    text = LlamaConfig(
        vocab_size=200,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        initializer_range=0.2,
        max_position_embeddings=256,
        pad_token_id=PAD,
        bos_token_id=1,
        eos_token_id=199,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, vision_feature_layer=-2)
    model = LlavaForConditionalGeneration(config).eval().to(dtype)
    model.set_attn_implementation(attention)
    model.generation_config.eos_token_id = None
    return model


class Batch(NamedTuple):
    """Left-padded prompts. rows: the prompts alone; images: index into `pixels` of each row, None for text only."""

    ids: Tensor
    mask: Tensor
    pixels: Tensor | None
    rows: list[Tensor]
    images: list[int | None]

    def inputs(self) -> dict[str, Tensor]:
        """What a model takes."""
        given = {"input_ids": self.ids, "attention_mask": self.mask}
        return given if self.pixels is None else {**given, "pixel_values": self.pixels}

    def single(self, row: int) -> Batch:
        """One row without padding."""
        ids, image = self.rows[row][None], self.images[row]
        pixels = None if self.pixels is None or image is None else self.pixels[image : image + 1]
        return Batch(ids, torch.ones_like(ids), pixels, [self.rows[row]], [None if image is None else 0])


def make_batch(
    *lengths: tuple[int, int] | int, grid: int = 6, seed: int = 1, dtype: torch.dtype = torch.float64
) -> Batch:
    """Rows of random tokens: (before, after) the image, or one number for a prompt without an image."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[Tensor] = []
    images: list[int | None] = []
    for length in lengths:
        before, after = (length, 0) if isinstance(length, int) else length
        words = torch.randint(2, 180, (before + after,), generator=generator)
        cells = 0 if isinstance(length, int) else grid * grid
        rows.append(torch.cat([words[:before], torch.full((cells,), IMAGE), words[before:]]))
        images.append(None if isinstance(length, int) else sum(i is not None for i in images))
    longest, count = max(map(len, rows)), sum(i is not None for i in images)
    ids = torch.stack([torch.nn.functional.pad(row, (longest - len(row), 0), value=PAD) for row in rows])
    mask = torch.stack([torch.arange(longest) >= longest - len(row) for row in rows]).long()
    pixels = torch.randn(count, 3, 8 * grid, 8 * grid, generator=generator, dtype=dtype) if count else None
    return Batch(ids, mask, pixels, rows, images)


class Answer(NamedTuple):
    """tokens [B, steps]; logits [B, steps, vocab] (fp32, as `generate` returns them; beams: none); cache."""

    tokens: Tensor
    logits: Tensor | None
    cache: Any


@torch.no_grad()
def answer(model: Any, batch: Batch, steps: int = 4, seed: int = 7, **options: Any) -> Answer:
    """`generate`, greedy unless told otherwise."""
    torch.manual_seed(seed)
    out = model.generate(
        **batch.inputs(),
        max_new_tokens=steps,
        min_new_tokens=steps,
        return_dict_in_generate=True,
        output_logits=True,
        **{"do_sample": False, **options},
    )
    logits = None if out.logits is None or options.get("num_beams", 1) > 1 else torch.stack(out.logits, 1)
    return Answer(out.sequences[:, batch.ids.shape[1] :], logits, out.past_key_values)


@torch.no_grad()
def step_by_step(model: Any, batch: Batch, steps: int = 4) -> Tensor:
    """[B, steps, vocab] in the model's own dtype: a greedy loop that passes tokens and cache only."""
    out = model(**batch.inputs(), use_cache=True)
    logits = [out.logits[:, -1]]
    for _ in range(steps - 1):
        out = model(input_ids=logits[-1].argmax(-1, keepdim=True), past_key_values=out.past_key_values, use_cache=True)
        logits.append(out.logits[:, -1])
    return torch.stack(logits, 1)
