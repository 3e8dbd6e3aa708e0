"""The tiny LLaVA's forward pass over one image and many questions about it, for training and for controls.

The visual tokens are computed once per image; rows of text, each with several segments that cannot see each other,
attend to them. The result for every segment is that of the stock model for `<s> USER: image segment`, which a test
checks.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaModel

from ..models import tiny

PREFIX = ("<s>", "USER:")  # what stands before the image
PREFIX_IDS = tuple(map(tiny.vocabulary().index, PREFIX))
HIDDEN = -1e4  # added to the logits of what a token may not see
Rotation = tuple[Tensor, Tensor]


def rotation(position: Tensor, size: int, theta: float = 10000.0) -> Rotation:
    """Cosines and sines [..., 1, n, size] of rotary embeddings at positions [..., n]."""
    frequency = 1 / (theta ** (torch.arange(0, size, 2).float() / size))
    angle = position[..., None].float() * frequency
    angle = torch.cat([angle, angle], -1)
    return angle.cos().unsqueeze(-3), angle.sin().unsqueeze(-3)


def _rotate(x: Tensor, by: Rotation) -> Tensor:
    half = x.shape[-1] // 2
    return x * by[0] + torch.cat([-x[..., half:], x[..., :half]], -1) * by[1]


def norm(layer: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x.float(), (x.shape[-1],), layer.weight, layer.variance_epsilon)


def qkv(layer: Any, x: Tensor, by: Rotation) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries and keys, and values, of [B, n, width] as [B, heads, n, head size]."""
    a, size = layer.self_attn, by[0].shape[-1]
    h = norm(layer.input_layernorm, x)
    q, k, v = (p(h).unflatten(-1, (-1, size)).transpose(-2, -3) for p in (a.q_proj, a.k_proj, a.v_proj))
    return _rotate(q, by).to(v.dtype), _rotate(k, by).to(v.dtype), v


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Written out: compiled, its backward pass is two to three times as fast as that of the fused CPU kernel."""
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask).softmax(-1).to(v.dtype) @ v


def after(layer: Any, x: Tensor, attended: Tensor) -> Tensor:
    """The rest of a layer after attention [B, heads, n, head size]."""
    x = x + layer.self_attn.o_proj(attended.transpose(-2, -3).flatten(-2))
    h, m = norm(layer.post_attention_layernorm, x), layer.mlp
    return cast(Tensor, x + m.down_proj(F.silu(m.gate_proj(h)) * m.up_proj(h)))


def causal(n: int, dtype: torch.dtype) -> Tensor:
    return torch.full((n, n), HIDDEN, dtype=dtype).triu(1)


def forward(
    llm: LlamaModel, image: Tensor, places: Tensor, tokens: Tensor, positions: Tensor, mask: Tensor, blind: Tensor
) -> Tensor:
    """Logits [B * rows, T, vocabulary] of rows of text about images.

    image [B, n, width]: projected visual tokens; places [B, n]: their places in the sequence; tokens, positions
    [B * rows, T]: the rows; mask [B * rows, 1, T, 2 + n + T] from `block_mask`; blind [B * rows, 1, 1, 1]: HIDDEN for
    rows whose text does not see the visual tokens in the first layer, 0 for the others.
    """
    embed, rows, last = llm.embed_tokens, len(tokens) // len(image), len(llm.layers) - 1
    size = llm.config.hidden_size // llm.config.num_attention_heads
    start = embed(torch.tensor(PREFIX_IDS)).expand(len(image), -1, -1)
    seen, text = torch.cat([start, image.float()], 1), embed(tokens)
    own = causal(seen.shape[1], mask.dtype)
    before = torch.arange(len(PREFIX)).expand(len(image), -1)
    by_seen, by_text = rotation(torch.cat([before, places], 1), size), rotation(positions, size)
    visual = F.pad(torch.ones(image.shape[1], dtype=mask.dtype), (len(PREFIX), tokens.shape[1]))
    first = mask + blind * visual
    for i, layer in enumerate(llm.layers):
        q, k, v = qkv(layer, seen, by_seen)
        tq, tk, tv = qkv(layer, text, by_text)
        keys, values = (
            torch.cat([k.repeat_interleave(rows, 0), tk], 2),
            torch.cat([v.repeat_interleave(rows, 0), tv], 2),
        )
        text = after(layer, text, attend(tq, keys, values, first if i == 0 else mask))
        if i < last:
            seen = after(layer, seen, attend(q, k, v, own))
    return F.linear(norm(llm.norm, text), embed.weight)


def block_mask(segments: Tensor, before: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Segment numbers [B, T] -> [B, 1, T, before + T]: everything before, and the earlier tokens of the own
    segment, are visible."""
    count, length = segments.shape
    own = (segments[:, :, None] == segments[:, None, :]) & torch.ones(length, length, dtype=torch.bool).tril()
    blocks = torch.zeros(count, length, length).masked_fill(~own, HIDDEN)
    return torch.cat([torch.zeros(count, length, before), blocks], -1)[:, None].to(dtype)
