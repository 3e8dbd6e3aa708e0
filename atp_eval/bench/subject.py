"""What is measured: a model with its own weights or random ones at true geometry, and prompts to give it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import LlavaConfig, LlavaForConditionalGeneration
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings
from transformers.models.siglip.modeling_siglip import SiglipVisionEmbeddings

from atp_eval.bench.plan import BEFORE, RANDOM, Plan
from atp_eval.engine import ModelGeometry, model_geometry
from atp_eval.models import DTYPES, Bundle, load_model
from atp_eval.scenes.render import render
from atp_eval.scenes.world import sample_scene

QUESTION = "What color is the large circle?\nAnswer the question using a single word or phrase."
SPECIAL = 3  # <unk>, <s> and </s> come first among Llama's words
SEED = 0


class Sample(NamedTuple):
    """A batch of prompts of one length. ids, mask: [B, L]; pixels: [B, 3, height, width]."""

    ids: Tensor
    mask: Tensor
    pixels: Tensor

    @property
    def names(self) -> range:
        """Of the samples, for methods that draw by them."""
        return range(len(self.ids))


@dataclass
class Subject:
    """A model on its device. bundle: of a model with weights; None where they are random."""

    model: Any
    device: torch.device
    text: int
    weights: str = RANDOM
    bundle: Bundle | None = None
    _samples: dict[tuple[int, int], Sample] = field(default_factory=dict)

    @property
    def geometry(self) -> ModelGeometry:
        """At the grid that it is set to."""
        return model_geometry(self.model.config)

    def set_attention(self, name: str) -> None:
        """Another backend, for the language model and the vision tower."""
        self.model.set_attn_implementation(name)

    def set_side(self, side: int) -> None:
        """Another grid: random places for so many patches. Only for random weights; what an image costs stays true."""
        if self.geometry.grid == (side, side):
            return
        self.model.config.vision_config.image_size = side * self.model.config.vision_config.patch_size
        places: Any = next(m for m in self.model.modules() if isinstance(m, TOWER_PLACES))
        count = side * side + places.position_embedding.num_embeddings - places.num_patches
        places.image_size, places.num_patches = self.model.config.vision_config.image_size, side * side
        places.num_positions = count
        table = torch.randn(count, places.embed_dim, generator=torch.Generator().manual_seed(SEED))
        places.position_embedding = nn.Embedding.from_pretrained(0.02 * table.to(self.device, self.model.dtype))
        places.position_ids = torch.arange(count, device=self.device)[None]

    def sample(self, side: int, batch: int) -> Sample:
        """Prompts about images of side x side patches; the same ones whenever it is asked."""
        key = side, batch
        if key not in self._samples:
            self._samples[key] = self._asked(batch) if self.bundle else self._random(batch)
        return self._samples[key]

    def _random(self, batch: int) -> Sample:
        """Noise for pictures, and random words around them."""
        generator, config, cells = torch.Generator().manual_seed(SEED), self.model.config, self.geometry.cells
        image = config.image_token_id
        words = torch.randint(SPECIAL, config.text_config.vocab_size, (batch, self.text), generator=generator)
        words[words == image] = SPECIAL - 1 if image == SPECIAL else SPECIAL
        ids = torch.cat([words[:, :BEFORE], torch.full((batch, cells), image), words[:, BEFORE:]], 1).to(self.device)
        side = config.vision_config.image_size
        pixels = torch.randn(batch, 3, side, side, generator=generator).to(self.device, self.model.dtype)
        return Sample(ids, torch.ones_like(ids), pixels)

    def _asked(self, batch: int) -> Sample:
        """Procedural pictures that the embedded model was not trained on; one question, so that no prompt is padded."""
        assert self.bundle is not None
        pictures = [Image.fromarray(render(sample_scene(seed, "eval")).image) for seed in range(batch)]
        cells, width = self.geometry.cells, self.geometry.hidden
        blank = [torch.zeros(cells, width)] * batch  # only to say that each prompt has an image
        inputs = self.bundle.inputs([QUESTION] * batch, blank)
        pixels = self.bundle.pixels(pictures).to(self.device, self.model.dtype)
        return Sample(inputs["input_ids"], inputs["attention_mask"], pixels)


TOWER_PLACES = (CLIPVisionEmbeddings, SiglipVisionEmbeddings)


def make_subject(plan: Plan) -> Subject:
    """The model that a plan is about. Raises UserError where it has no weights here and random ones were not asked."""
    settings = plan.settings
    if settings.random_weights:
        dtype = DTYPES[settings.dtype]
        return Subject(random_model(plan.config, plan.device, dtype), plan.device, settings.text)
    bundle = load_model(settings.model, device=str(plan.device), dtype=settings.dtype)
    return Subject(bundle.model, bundle.device, settings.text, bundle.weight_hash, bundle)


def random_model(config: LlavaConfig, device: torch.device, dtype: torch.dtype) -> Any:
    """The whole model with random weights, the same for the same seed; it never stops by itself."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
            torch.manual_seed(SEED)
            llava: Any = LlavaForConditionalGeneration
            model = llava._from_config(config, attn_implementation="sdpa")
    finally:
        torch.set_default_dtype(before)
    model.generation_config.update(eos_token_id=None, pad_token_id=0)
    return model.eval().requires_grad_(False)


def weight_bytes(model: Any) -> tuple[int, int]:
    """Of weights that one pass reads: vision tower and projector; the LLM's layers, norm and head, not its table of
    words, of which it reads a row a token."""
    core = model.model
    vision = _bytes(core.vision_tower) + _bytes(core.multi_modal_projector)
    return vision, _bytes(core.language_model.layers) + _bytes(core.language_model.norm) + _bytes(model.lm_head)


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())
