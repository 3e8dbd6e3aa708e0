"""LLaVA-1.5 checkpoints in the layout of `llava-hf/llava-1.5-7b-hf`, and how to ask them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaForConditionalGeneration, LlavaProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from atp_eval.engine import ModelGeometry, VisionStates, recorded
from atp_eval.engine.cache import MOST_ROOM, GrowingCache
from atp_eval.engine.decode import decodable, greedy
from atp_eval.engine.fixed import Mode, fixed_decoder, forget_decoders
from atp_eval.engine.greedy import Greedy
from atp_eval.errors import UserError
from atp_eval.models.pictures import ImageMode, seen, squared

PromptStyle = Literal["hf", "vicuna_v1"]
VICUNA_V1 = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)


@dataclass(frozen=True)
class Bundle:
    """A loaded model with everything that is needed to ask it.

    prompt_style: `hf` is the checkpoint's chat template, `vicuna_v1` the system prompt that LLaVA-1.5's scores were
    taken with. weight_hash: see `weights.weight_hash`.
    """

    model: LlavaForConditionalGeneration
    processor: LlavaProcessor
    model_id: str
    weight_hash: str
    geometry: ModelGeometry
    device: torch.device
    dtype: torch.dtype
    image_mode: ImageMode
    prompt_style: PromptStyle

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer; pads on the left."""
        return self.processor.tokenizer

    def prompt(self, text: str, images: int = 1) -> str:
        """The full prompt: image token first, then the text. An image token inside the text becomes a space.

        Raises UserError for more than one image.
        """
        if images > 1:
            raise UserError(f"{images} images in one question; LLaVA-1.5 takes one")
        text = text.replace(self.processor.image_token, " ")  # not "": the ends could join to another
        if self.prompt_style == "vicuna_v1":
            return f"{VICUNA_V1}USER: {self.processor.image_token + chr(10) if images else ''}{text} ASSISTANT:"
        content: Any = [{"type": "image"}] * images + [{"type": "text", "text": text}]
        return str(
            self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        )

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """[n, 3, side, side]: what the vision tower is shown of pictures, in evaluation and in training."""
        mean = tuple(self.processor.image_processor.image_mean)
        pictures = [squared(image, self.image_mode, mean) for image in images]
        pixels: Tensor = self.processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        return pixels

    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """[n, V, D]: projected features, so that methods and questions can share one pass of the vision tower."""
        return self.encode_pixels(self.pixels(images))

    def encode_with_states(self, images: Sequence[Image.Image]) -> tuple[Tensor, VisionStates]:
        """Like `encode`, and what methods that look at the vision tower are shown of it (`prune(..., vision=)`)."""
        return self.encode_pixels_with_states(self.pixels(images))

    @torch.no_grad()
    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """`encode` of what `pixels` made."""
        output = self.model.get_image_features(pixel_values=pixels.to(self.device, self.dtype))
        return torch.stack(list(output.pooler_output))

    def encode_pixels_with_states(self, pixels: Tensor) -> tuple[Tensor, VisionStates]:
        """`encode_with_states` of what `pixels` made."""
        with recorded(self.model) as found:
            return self.encode_pixels(pixels), found[0]

    def tokens(self, texts: Sequence[str], pictures: Sequence[bool]) -> dict[str, Tensor]:
        """input_ids and attention_mask [B, L] on the host: prompts, padded on the left, some with an image.

        An image stands in a prompt as one token per cell. That many of them are put in here: a tokenizer takes long to
        find each in a text.
        """
        prompts = [self.prompt(text, images=int(has)) for text, has in zip(texts, pictures, strict=True)]
        image, pad, cells = self.processor.image_token_id, self.tokenizer.pad_token_id, self.geometry.cells
        rows = [
            [token for token in ids for _ in range(cells if token == image else 1)]
            for ids in self.tokenizer(prompts)["input_ids"]
        ]
        length = max(map(len, rows))
        input_ids = torch.tensor([[pad] * (length - len(row)) + row for row in rows])
        attention_mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def inputs(self, texts: Sequence[str], features: Sequence[Tensor | None]) -> dict[str, Tensor]:
        """A left-padded batch of questions, some with the features [V, D] of an image and some without (None).

        input_ids and attention_mask [B, L]; features [rows with an image, V, D], left out where there are none.
        """
        return self.with_features(self.tokens(texts, [image is not None for image in features]), features)

    def with_features(self, tokens: dict[str, Tensor], features: Sequence[Tensor | None]) -> dict[str, Tensor]:
        """`inputs` of what `tokens` made."""
        inputs = {name: x.to(self.device) for name, x in tokens.items()}
        given = [image for image in features if image is not None]
        return inputs | ({"features": torch.stack(given).to(self.device, self.dtype)} if given else {})

    def generate(self, inputs: dict[str, Tensor], *, decode: Mode | None = None, **options: Any) -> Tensor:
        """[B, L + new] token ids, prompts included. Options are those of transformers' `generate`; greedy without any.

        Plain greedy answers come from the engine's own loop, the same ones sooner; all others from `generate`.
        decode: for plain greedy answers on a GPU, "graph" or "compiled" (see `engine.fixed`); tokens are the same but
        for near ties.
        """
        return generate(self.model, inputs, decode=decode, **options)

    def view(self, image: Image.Image) -> Image.Image:
        """What the model sees of a picture: a square of the tower's size, the visual grid lies over it exactly."""
        mean = tuple(self.processor.image_processor.image_mean)
        return seen(image, self.image_mode, mean, self.geometry.vision.image_size)


def generate(model: Any, inputs: dict[str, Tensor], *, decode: Mode | None = None, **options: Any) -> Tensor:
    """`Bundle.generate` for a model without one."""
    options = {"do_sample": False, **options}
    prompts: dict[str, Any] = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    if "features" in inputs:
        prompts["pixel_values"] = inputs["features"]
    plan = Greedy.of(model.generation_config, options)
    with encoded_already(model):
        if plan is not None and decodable(model):
            decoder = None if decode is None else partial(fixed_decoder, mode=decode)
            try:
                return greedy(model, plan=plan, new_decoder=decoder, **prompts)
            except torch.OutOfMemoryError:  # what decoders keep may be in the way of the next try
                forget_decoders(model)
                raise
        if not options.keys() & {"past_key_values", "cache_implementation", "use_cache"}:
            options["past_key_values"] = GrowingCache(model.config, options.get("max_new_tokens") or MOST_ROOM)
        output = model.generate(**prompts, **options)
    return output if isinstance(output, Tensor) else output.sequences


@contextmanager
def encoded_already(model: LlavaForConditionalGeneration) -> Iterator[None]:
    """Inside the block `pixel_values` are features [n, V, D] from `encode`; the vision tower is not run.

    `generate` repeats them for beams like pixels, and the model puts them into the prompt like its own.
    """

    def features(pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(pooler_output=list(pixel_values))  # type: ignore[arg-type]

    core: Any = model.model
    core.get_image_features = features
    try:
        yield
    finally:
        del core.get_image_features
