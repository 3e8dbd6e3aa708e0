"""What several methods compute in the same way."""

from __future__ import annotations

import torch
from torch import Tensor


def rows(x: Tensor, index: Tensor) -> Tensor:
    """x [B, n, D] at `index` [B, m] -> [B, m, D]."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def unit(features: Tensor) -> Tensor:
    """Features [..., D] of length 1, in at least fp32; those of zeros stay zeros."""
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    return features / features.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(features.dtype).tiny)


def cosines(features: Tensor) -> Tensor:
    """[B, V, V] of features [B, V, D], in at least fp32; a feature of zeros has the cosine 0 with all."""
    length_one = unit(features)
    return length_one @ length_one.transpose(1, 2)


def cls_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """[B, H, V]: attention probability from the CLS token to each patch, by heads, in at least fp32.

    queries, keys: [B, H, 1 + V, d], projections with bias, unscaled, CLS first. The softmax is over CLS too; its column
    is left out and the rest is not normalised again. In half precision, which authors compute in, more values tie.
    """
    exact = torch.promote_types(queries.dtype, torch.float32)
    logits = (keys.to(exact) @ queries[:, :, 0, :, None].to(exact))[..., 0] * queries.shape[-1] ** -0.5  # [B, H, 1 + V]
    return logits.softmax(-1)[..., 1:]
