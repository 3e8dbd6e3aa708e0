"""Prompts one behind the other, without padding: layers work on tokens that are there, and on no others.

What several prompts about one picture begin with (the system prompt and the picture) stands there once, for all of
them. Only attention has to know: tokens attend within a span, and to the span that it goes on from. The cache stays as
it is without packing, one row for each prompt, so that decoding sees no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache

from atp_eval.engine.layout import Layout, Prompts

WORTH = 0.9
"""Packed are batches of which less than this share of the slots holds tokens; spans are attended to one by one."""


class Span(NamedTuple):
    """Tokens start .. stop - 1 of a packed batch, causal among themselves; they see all of `goes_on_from` as well."""

    start: int
    stop: int
    goes_on_from: tuple[int, int] = (0, 0)

    @property
    def seen_before(self) -> int:
        """Tokens of the span that this one goes on from."""
        return self.goes_on_from[1] - self.goes_on_from[0]


class Sharing(NamedTuple):
    """Which rows of a batch begin alike. first: for each row the first one that begins like it; tokens: how many."""

    first: list[int]
    tokens: list[int]

    def after(self, before: Sequence[int], now: Sequence[int]) -> Sharing:
        """What is shared once rows of length `before` are as long as `now`, where what went was shared."""
        lost = [b - a for b, a in zip(before, now, strict=True)]
        return Sharing(self.first, [n and n - gone for n, gone in zip(self.tokens, lost, strict=True)])


def sharing(prompts: Prompts, input_ids: Tensor, pictures: Sequence[str | None]) -> Sharing | None:
    """Rows that show the same picture behind the same words; None where no two do. Waits for the device.

    pictures: a name for each row's picture; rows with equal names have to show the same one.
    """
    firsts: dict[tuple[str, bytes], int] = {}
    first, tokens = list(range(len(pictures))), [0] * len(pictures)
    for row, (ids, picture) in enumerate(zip(input_ids.cpu().numpy(), pictures, strict=True)):
        if picture is not None and prompts.has_image[row]:
            start = len(ids) - prompts.layout.lengths[row]
            beginning = ids[start : len(ids) - prompts.text[row]]
            first[row] = firsts.setdefault((picture, beginning.tobytes()), row)
            tokens[row] = len(beginning)
    alone = [first.count(row) == 1 for row in first]
    if all(alone):
        return None
    return Sharing(first, [0 if by_itself else count for by_itself, count in zip(alone, tokens, strict=True)])


@dataclass(frozen=True)
class Packing:
    """Where the tokens of B rows with L slots stand among T packed ones.

    places: [B, L] long, the packed token of each slot; of padding, any. slots: [T] long, a slot of each packed token,
    as row * L + slot. spans: on the host, in rising order. masks: of spans, by their sizes, made when first needed.
    """

    places: Tensor
    slots: Tensor
    spans: tuple[Span, ...]
    masks: dict[tuple[int, int], Any] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, layout: Layout, shared: Sharing | None = None) -> Packing:
        """The packing of a batch; nothing waits for the device."""
        batch, length = layout.valid.shape
        places, slots = np.zeros((batch, length), dtype=np.int64), []
        spans: list[Span] = []
        begun: dict[int, Span] = {}

        def add(row: int, slot: int, stop: int, goes_on_from: tuple[int, int] = (0, 0)) -> Span:
            start = spans[-1].stop if spans else 0
            spans.append(Span(start, start + stop - slot, goes_on_from))
            slots.append(np.arange(row * length + slot, row * length + stop))
            places[row, slot:stop] = np.arange(start, spans[-1].stop)
            return spans[-1]

        for row, tokens in enumerate(layout.lengths):
            slot, beginning = length - tokens, shared.tokens[row] if shared else 0
            if not shared or not beginning:
                add(row, slot, length)
                continue
            first = shared.first[row]
            if first == row:
                begun[row] = add(row, slot, slot + beginning)
            else:
                places[row, slot : slot + beginning] = np.arange(begun[first].start, begun[first].stop)
            add(row, slot + beginning, length, (begun[first].start, begun[first].stop))
        both = torch.from_numpy(np.concatenate([places.ravel(), *slots])).to(layout.valid.device, non_blocking=True)
        return cls(both[: batch * length].view(batch, length), both[batch * length :], tuple(spans))

    def pack(self, x: Tensor) -> Tensor:
        """[B, L, ...] -> [1, T, ...]."""
        return x.flatten(0, 1)[self.slots][None]

    def unpack(self, x: Tensor) -> Tensor:
        """[1, T, ...] -> [B, L, ...]; what stands in padding is to be ignored."""
        return x[0][self.places]

    def heads(self, x: Tensor) -> Tensor:
        """[1, H, T, d] -> [B, H, L, d]: queries, keys or values of each row."""
        return x[0].transpose(0, 1)[self.places].transpose(1, 2)

    def last(self, x: Tensor) -> Tensor:
        """[1, T, ...] -> [B, 1, ...]: the last token of each row."""
        return x[0][self.places[:, -1:]]

    @cached_property
    def seen(self) -> Tensor:
        """[K] long: the packed tokens that each span sees, span after span, as FlashAttention's varlen kernels read
        keys."""
        parts = [np.arange(*part) for span in self.spans for part in (span.goes_on_from, (span.start, span.stop))]
        return torch.from_numpy(np.concatenate(parts)).to(self.slots.device, non_blocking=True)

    @cached_property
    def varlen(self) -> dict[str, Any]:
        """The spans as transformers' FlashAttention wants them: where queries and keys begin, and the longest."""
        queries = [span.stop - span.start for span in self.spans]
        keys = [own + span.seen_before for own, span in zip(queries, self.spans, strict=True)]
        begins = np.cumsum([[0, *queries], [0, *keys]], axis=1, dtype=np.int32)
        both = torch.from_numpy(begins).to(self.slots.device, non_blocking=True)
        longest = {"max_length_q": max(queries), "max_length_k": max(keys)}
        return {"cu_seq_lens_q": both[0], "cu_seq_lens_k": both[1], **longest}


class RowsOfCache:
    """Stands in for the cache while a packed prompt is read: it is given rows, the attention packed keys and values."""

    def __init__(self, cache: Cache, packing: Packing) -> None:
        self.cache, self.packing = cache, packing

    def update(self, key: Tensor, value: Tensor, layer: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values [1, G, T, d] as they came; the cache has them as [B, G, L, d]."""
        self.cache.update(self.packing.heads(key), self.packing.heads(value), layer, *args, **kwargs)
        return key, value


def packing_of(layout: Layout, shared: Sharing | None) -> Packing | None:
    """How to pack a batch, where that pays: something is shared, or much of it would be padding."""
    batch, length = layout.valid.shape
    if shared is None and sum(layout.lengths) >= WORTH * batch * length:
        return None
    return Packing.of(layout, shared)


def moved(index: Tensor, length: int, old: Packing | None, new: Packing | None) -> Tensor:
    """Where the tokens that stay are taken from. index: [B, L'], the slots, of `length`, where they were in their row.

    Returns indexes for `take`: [B, L'], or [1, T'] where the new tokens are packed.
    """
    if old is None:
        flat = index + length * torch.arange(len(index), device=index.device)[:, None]
    else:
        flat = old.places.gather(1, index)
    return flat if new is None else flat.flatten()[new.slots][None]


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x [B, L, ...], or packed [1, T, ...], at indexes into both dimensions flattened: [*index, ...]."""
    return x.flatten(0, 1)[index]
