"""Attention with a bias for each key, in one fused call without a length x length mask.

The bias rides along as one more dimension of queries (1) and keys (the bias), so that its gradient is a key's. A mask
with a gradient would leave torch its slow path only: 2.5 times the time for a layer on a CPU, a map a head in memory.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, PreTrainedConfig

HIDDEN = -1e4  # bias of padding: its softmax is 0 exactly
_NAME = "atp_eval_biased"


def biased_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """A copy for attention modules, which then take a bias [B, L] in place of their mask."""
    config = copy.copy(config)
    config._attn_implementation = _NAME
    return config


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scaling: float, **kwargs: Any
) -> tuple[Tensor, None]:
    """An attention function of transformers: causal, each key's logit raised by its bias.

    query [B, H, L, d], key and value [B, G, L, d], bias [B, L] -> [B, L, H, d].
    """
    ridden = (bias / scaling).to(key.dtype)[:, None, :, None].expand(-1, key.shape[1], -1, -1)
    key, value = torch.cat([key, ridden], -1), F.pad(value, (0, 1))
    if query.shape[1] != key.shape[1]:
        share = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(share, 1), value.repeat_interleave(share, 1)
    query = F.pad(query, (0, 1), value=1.0)
    found = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    return found[..., :-1].transpose(1, 2), None


AttentionInterface.register(_NAME, attend)
