"""What it costs to choose tokens: FLOPs of the matrix products by which methods score, in closed form.

Two operations for each multiply-accumulate, as everywhere in `flops.py`, and equal to torch's FlopCounterMode. Sorting,
softmax, norms and distances that are made without a matrix product are not in here, there neither. Each method adds up
its own in `Method.scorer_flops`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from atp_eval.cost.flops import projector, vision_tower
from atp_eval.cost.geometry import ModelGeometry


class Prompt(NamedTuple):
    """One prompt with an image. tokens: [layers], visual tokens that enter each layer once it is pruned. before, after:
    text tokens before and after the image, special ones included."""

    geometry: ModelGeometry
    tokens: tuple[int, ...]
    before: int
    after: int

    @property
    def lengths(self) -> list[int]:
        """[layers]: tokens that enter each layer, text included."""
        return [count + self.before + self.after for count in self.tokens]

    @property
    def full(self) -> int:
        """Tokens of the prompt before anything is pruned, text included."""
        return self.geometry.cells + self.before + self.after

    def read_before(self, layer: int) -> int:
        """Tokens that a method looks at before `layer`: those that entered the layer before, whole before layer 0."""
        return (self.tokens[layer - 1] if layer else self.geometry.cells) + self.before + self.after


def product(rows: int, shared: int, columns: int) -> int:
    """[rows, shared] times [shared, columns]."""
    return 2 * rows * shared * columns


def attention_rows(prompt: Prompt, layer: int, rows: int) -> int:
    """Attention of `rows` queries of layer - 1 to all keys, and the mean of those rows (`Point.rows`)."""
    geometry, length = prompt.geometry, prompt.read_before(layer)
    return product(rows, geometry.heads * geometry.head_dim, length) + product(1, rows, length)


def self_score(prompt: Prompt, layer: int) -> int:
    """The mean visual query of each head, and its product with every key (ATP-LLaVA, Eq. 3, without its map)."""
    geometry, length = prompt.geometry, prompt.read_before(layer)
    return product(1, length, geometry.heads * geometry.head_dim) + causal_self_score(prompt, layer)


def causal_self_score(prompt: Prompt, layer: int) -> int:
    """Mean queries from suffix sums, which take no product, times every key."""
    geometry = prompt.geometry
    return product(prompt.read_before(layer), geometry.kv_heads * geometry.head_dim, 1)


def coming_row(prompt: Prompt, layer: int) -> int:
    """The keys and the last query of the layer to come, and that row of its attention (`Point.coming_row`)."""
    geometry = prompt.geometry
    keys = product(prompt.read_before(layer), geometry.hidden, geometry.kv_heads * geometry.head_dim)
    return keys + product(1, geometry.hidden, geometry.heads * geometry.head_dim) + attention_rows(prompt, layer, 1)


def cls_row(geometry: ModelGeometry) -> int:
    """Queries and keys of one layer of the vision tower, and the row of its CLS token."""
    width, tokens = geometry.vision.hidden, geometry.cells + geometry.has_cls
    return 2 * product(tokens, width, width) + product(1, width, tokens)


def projected(geometry: ModelGeometry, tokens: int) -> int:
    """The projector, for tokens that were merged before it."""
    return projector(geometry) // geometry.cells * tokens


def encoded_again(geometry: ModelGeometry, grid: tuple[int, int]) -> int:
    """Vision tower and projector for the picture at (rows, cols) patches."""
    small = replace(geometry, grid=grid)
    return vision_tower(small) + projector(small)


def thresholds(inputs: int, hidden: int) -> int:
    """ATP's threshold module: one layer, and two heads of one number each (Eq. 6-8)."""
    return product(1, inputs, hidden) + 2 * product(1, hidden, 1)
