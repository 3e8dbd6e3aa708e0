"""The losses of ATP-LLaVA besides the language loss (Eq. 12-14)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def l_atp(tokens: Tensor, layers: Sequence[int], cells: int) -> Tensor:
    """L_ATP (Eq. 12): batch mean of sum_k tokens_k / cells * i_k; `tokens` [B, K] stay after each prune point."""
    depth = torch.tensor(layers, dtype=tokens.dtype, device=tokens.device)
    return (tokens / cells * depth).sum(1).mean()


def average_tokens(tokens: Tensor, layers: Sequence[int], num_layers: int, cells: int) -> Tensor:
    """[B]: mean over all layers of the visual tokens that enter a layer; `cells` of them up to the first prune point."""
    edges = torch.tensor([*layers, num_layers], dtype=tokens.dtype, device=tokens.device)
    return (cells * edges[0] + (tokens * edges.diff()).sum(1)) / num_layers


def l_target(average: Tensor, target: float, recent: Sequence[float] = ()) -> tuple[Tensor, Tensor]:
    """L_target (Eq. 13): |N-bar - N_target|, N-bar over the samples with an image of all processes; and N-bar.

    average: [B] of this process. The absolute value of a mean does not add up over processes, so N-bar is reduced
    first. The gradient is scaled by their number, because data parallelism averages gradients. recent: N-bar of the
    micro-batches before this one in the same step; under gradient accumulation N-bar is the mean with them, and its
    sign decides the direction, while only the current micro-batch has a gradient.
    """
    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    total = torch.stack([average.detach().sum(), torch.tensor(float(len(average)), device=average.device)])
    if world > 1:
        dist.all_reduce(total)
    count = total[1].clamp(min=1)
    batch_mean = total[0] / count
    mean = (batch_mean + sum(recent)) / (1 + len(recent))
    distance = mean - target
    moving = distance.sign() * average.sum() / count * world
    return distance.abs() + moving - moving.detach(), batch_mean
