"""FLOPs and KV bytes of a prompt, in closed form and in whole numbers.

Two conventions. `paper`: ATP-LLaVA's Eq. 15-16 as printed, which count multiply-accumulates of attention and of a feed-
forward network of two matrices. `exact`: two operations for each multiply-accumulate of every matrix product that the
model runs: LLaMA's three feed-forward matrices, as many key heads as there are, text tokens, vision tower, projector,
LM head. It equals torch's FlopCounterMode. Like that, it counts attention as length x length, although kernels for
causal attention may skip half of it, and it leaves out norms, softmax, activations and rotary tables.

A pruned prompt can be counted in two ways. `engine_prefill`: what the engine runs, without the work of dead rows
(`engine/early.py`); budgets, tables and reports show this. `prefill`: every row goes through every layer that it
enters, as in a plain implementation of the same tokens. For an unpruned prompt they are one.

Lengths are tokens of one sample, whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from atp_eval.cost.geometry import ModelGeometry, VisionGeometry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Count = TypeVar("Count", int, "NDArray[np.int64]")  # tokens of one prompt, or of many prompts at once

BF16 = 2  # bytes of a number
CHANNELS = 3


def paper_layer(geometry: ModelGeometry, length: int) -> int:
    """MACs of one LLM layer: 4 L d^2 + 2 L^2 d + 2 L d m (Eq. 15)."""
    d, m = geometry.hidden, geometry.intermediate
    return 4 * length * d * d + 2 * length * length * d + 2 * length * d * m


def paper_macs(geometry: ModelGeometry, lengths: Sequence[int]) -> int:
    """MACs of all LLM layers, of which layer i is entered by `lengths[i]` tokens."""
    return sum(paper_layer(geometry, length) for length in lengths)


def paper_reduction(geometry: ModelGeometry, full: int, layers: Sequence[int], lengths: Sequence[int]) -> int:
    """MACs that pruning saves (Eq. 16): `lengths[k]` of `full` tokens are left before layer `layers[k]`.

    The paper calls the last i "the final layer index"; with 31 for 32 layers one layer would save nothing, so it is the
    number of layers here.
    """
    edges = [*layers, geometry.num_layers]
    stages = zip(edges[:-1], edges[1:], lengths, strict=True)
    return sum(
        (end - start) * (paper_layer(geometry, full) - paper_layer(geometry, length)) for start, end, length in stages
    )


def kv_bytes(geometry: ModelGeometry, lengths: Sequence[int], number: int = BF16) -> int:
    """Bytes of the KV cache after a prompt: a key and a value for each token that enters a layer.

    number: bytes of one number. Table 6 of the paper counts visual tokens only, and in units of 1.05 MB.
    """
    return sum(lengths) * 2 * geometry.kv_heads * geometry.head_dim * number


class Prefill(NamedTuple):
    """FLOPs of the LLM while it reads a prompt. layers: of each; lm_head: the scores of all words."""

    layers: tuple[int, ...]
    lm_head: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.layers) + self.lm_head


def decoder_layer(
    geometry: ModelGeometry,
    entering: Count,
    keys: Count,
    queries: Count | None = None,
    leaving: Count | None = None,
) -> Count:
    """FLOPs of one LLM layer, which `entering` new tokens enter and look at `keys` tokens, themselves included.

    Their keys and values are made for all. queries: how many of them look; leaving: how many go through the output
    projection and the feed-forward network; all, where nothing is said.
    """
    wide, narrow = geometry.heads * geometry.head_dim, geometry.kv_heads * geometry.head_dim
    query = output = 2 * geometry.hidden * wide
    feed_forward = 2 * 3 * geometry.hidden * geometry.intermediate
    asked = entering if queries is None else queries
    gone_on = entering if leaving is None else leaving
    made = entering * (2 * 2 * geometry.hidden * narrow) + asked * query
    return made + 4 * wide * asked * keys + gone_on * (output + feed_forward)


def prefill(geometry: ModelGeometry, lengths: Sequence[int], logits: int = 1) -> Prefill:
    """FLOPs of reading a prompt where every row goes through every layer that it enters.

    lengths: tokens that enter each layer, text included. logits: places that the vocabulary is asked about: `generate`
    asks at the last one, a plain call of the model at all that are left. A method's own work is not in here.
    """
    layers = tuple(decoder_layer(geometry, length, length) for length in lengths)
    return Prefill(layers, lm_head(geometry, logits))


def engine_prefill(geometry: ModelGeometry, lengths: Sequence[int], full: int, early: bool) -> Prefill:
    """FLOPs of the engine's reading of one prompt, of which the next word is asked: `prefill` without dead rows.

    lengths: as in `prefill`; full: tokens of the prompt before anything was pruned; early: of the method
    (`Method.early`). The prompt is read by itself: neither padded nor shared with others. A method's own work is not in
    here.
    """
    return Prefill(engine_layers(geometry, lengths, full, early), lm_head(geometry, 1))


def engine_layers(geometry: ModelGeometry, lengths: Sequence[Count], full: Count, early: bool) -> tuple[Count, ...]:
    """[layers]: those of `engine_prefill`; an array in the place of each number counts many prompts at once.

    Before a prune point of an early method, rows that go no farther leave behind the attention. In the last layer one
    row alone asks and leaves, unless nothing was pruned at all.
    """
    layers: list[Count] = []
    for now, after in pairwise(lengths):
        layers.append(decoder_layer(geometry, now, now, leaving=after if early else now))
    last = lengths[-1]
    asked = last - (last - 1) * (last < full)
    layers.append(decoder_layer(geometry, last, last, queries=asked, leaving=asked))
    return tuple(layers)


def decode(geometry: ModelGeometry, lengths: Sequence[int], new: int) -> int:
    """FLOPs of writing `new` tokens after a prompt that left `lengths[i]` tokens in layer i's cache.

    The first comes out of the prefill, so there are `new - 1` steps.
    """
    head = lm_head(geometry, 1)
    return sum(head + sum(decoder_layer(geometry, 1, length + step) for length in lengths) for step in range(1, new))


def lm_head(geometry: ModelGeometry, places: int) -> int:
    """FLOPs of the scores of all words at some places."""
    return 2 * places * geometry.hidden * geometry.vocab


def vision_tower(geometry: ModelGeometry) -> int:
    """FLOPs of the vision tower for one image: all of its layers, those behind the projected one included."""
    v = geometry.vision
    tokens = geometry.cells + geometry.has_cls
    patches = 2 * geometry.cells * v.hidden * CHANNELS * v.patch_size * v.patch_size
    layer = 2 * tokens * (4 * v.hidden * v.hidden + 2 * v.hidden * v.intermediate) + 4 * tokens * tokens * v.hidden
    return patches + v.layers * layer + (_pooling_head(v, tokens) if v.pooling_head else 0)


def _pooling_head(v: VisionGeometry, tokens: int) -> int:
    """One query looks at all tokens, then a feed-forward network."""
    attention = 2 * v.hidden * v.hidden * (2 + 2 * tokens) + 4 * tokens * v.hidden
    return attention + 2 * 2 * v.hidden * v.intermediate


def projector(geometry: ModelGeometry) -> int:
    """FLOPs of LLaVA-1.5's projector for one image: two matrices."""
    return 2 * geometry.cells * geometry.hidden * (geometry.vision.hidden + geometry.hidden)
