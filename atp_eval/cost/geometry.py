"""The sizes of a model: what budgets are solved against and what costs are computed from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Place(NamedTuple):
    """Where a model runs, as far as its speed depends on it. device: its name, threads of a CPU included."""

    device: str
    dtype: str
    attention: str


@dataclass(frozen=True)
class Geometry:
    """What a budget is solved against: decoder layers of the LLM and (rows, cols) of the visual grid.

    has_cls: whether the vision tower has a CLS token (CLIP has one, SigLIP has none).
    """

    num_layers: int
    grid: tuple[int, int]
    has_cls: bool = field(default=True, kw_only=True)

    @property
    def cells(self) -> int:
        """Visual tokens of one image before pruning."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class VisionGeometry:
    """The vision tower. `feature_layer` is the hidden state that is projected, counted as in the checkpoint (-2).

    pooling_head: whether an attention head that pools the image follows the last layer (SigLIP); its result is not
        used here, but it is computed.
    """

    layers: int
    hidden: int
    heads: int
    intermediate: int
    image_size: int
    patch_size: int
    feature_layer: int
    pooling_head: bool = False


@dataclass(frozen=True)
class ModelGeometry(Geometry):
    """Geometry of a vision-language model; sizes in units, not bytes.

    place: where it runs, for budgets of measured time; None where nobody said.
    """

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    vision: VisionGeometry
    place: Place | None = field(default=None, kw_only=True, compare=False)


CLIP_L = VisionGeometry(24, 1024, 16, 4096, image_size=336, patch_size=14, feature_layer=-2)
VOCABULARY = 32064  # Vicuna's 32000, <image>, <pad>, and up to a multiple of 64
KNOWN = {
    "llava-hf/llava-1.5-7b-hf": ModelGeometry(32, (24, 24), 4096, 32, 32, 128, 11008, VOCABULARY, CLIP_L),
    "llava-hf/llava-1.5-13b-hf": ModelGeometry(40, (24, 24), 5120, 40, 40, 128, 13824, VOCABULARY, CLIP_L),
}
