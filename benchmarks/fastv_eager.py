"""FastV the way its authors wrote it, for comparison only; the method that users get is `atp_eval/methods/fastv.py`.

Their code is LLaMA of transformers 4.31, before there was SDPA: attention is computed step by step in every layer, with
the whole map of L x L a head. Before layer K the map of layer K - 1 is averaged over its heads, whole; the last row of
the mean ranks the image's tokens. In their version that drops tokens (`fast_v_inplace`, KV cache "not supported") what
stays goes on under its old positions, and every row goes through every layer that it enters.

This is that, by hooks on today's LLaMA, with two things in favour of theirs: masks are made once a stage, where they
make one a layer, and the vocabulary is asked about the last place only, where they ask about all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Stamp = Callable[[], Any]


@dataclass
class Kept:
    """What a prefill left. cells: [keep], indexes in the image, rising; None before one. stamps: before and after its
    choosing."""

    cells: Tensor | None = None
    stamps: list[Any] = field(default_factory=list)


@contextmanager
def fastv_as_written(model: Any, layer: int, keep: int, image: slice, stamp: Stamp = lambda: None) -> Iterator[Kept]:
    """Inside the block a prompt, batch 1, keeps `keep` of the tokens `image` before `layer`."""
    text_model = model.model.language_model
    config, layers = text_model.config, text_model.layers
    plain, kept = config._attn_implementation, Kept()
    maps: list[Tensor] = []
    now: dict[str, Any] = {}

    def remember(module: Any, args: Any, output: tuple[Tensor, Tensor]) -> None:
        maps.append(output[1])

    def drop(module: Any, args: tuple[Tensor], kwargs: dict[str, Any]) -> Any:
        (hidden,) = args
        kept.stamps.append(stamp())
        last_row = maps.pop().mean(dim=1)[0, -1, image]
        kept.cells = last_row.topk(keep).indices.sort().values
        kept.stamps.append(stamp())
        where = torch.arange(hidden.shape[1], device=hidden.device)
        index = torch.cat([where[: image.start], kept.cells + image.start, where[image.stop :]])
        now["attention_mask"] = causal(len(index), hidden)
        now["position_embeddings"] = tuple(table[:, index] for table in kwargs["position_embeddings"])
        return (hidden[:, index],), {**kwargs, **now}

    def go_on(module: Any, args: tuple[Tensor], kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, **now}

    with ExitStack() as stack:
        stack.callback(setattr, config, "_attn_implementation", plain)
        config._attn_implementation = "eager"
        stack.callback(layers[layer - 1].self_attn.register_forward_hook(remember).remove)
        for index, later in enumerate(layers[layer:]):
            hook = go_on if index else drop
            stack.callback(later.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield kept


def causal(length: int, like: Tensor) -> Tensor:
    """[1, 1, L, L]: what is added to logits."""
    least = torch.finfo(like.dtype).min
    return torch.full((1, 1, length, length), least, dtype=like.dtype, device=like.device).triu(1)
