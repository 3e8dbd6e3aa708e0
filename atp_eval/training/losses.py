"""The losses of ATP-LLaVA besides the language loss (Eq. 12-14), over samples with an image.

Both are means over the global batch: all processes and, under gradient accumulation, all micro-batches of a step. Data
parallelism averages the gradients of its processes, so each process multiplies its part by their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def share(total: Tensor, count: Tensor) -> Tensor:
    """This process's part of a mean: its own `total` over the global `count`; 0 if there are none.

    The average of it over the processes, which is what data parallelism makes of its gradient, is the global mean.
    """
    return total / count.clamp(min=1) * processes()


def l_atp(tokens: Tensor, layers: Sequence[int], cells: int) -> Tensor:
    """[B]: sum_k tokens_k / cells * i_k of each sample (Eq. 12); `tokens` [B, K] stay after each prune point.

    The paper writes it for one instance; L_ATP is the batch mean of this.
    """
    depth = torch.tensor(layers, dtype=tokens.dtype, device=tokens.device)
    return (tokens / cells * depth).sum(1)


def average_tokens(tokens: Tensor, layers: Sequence[int], num_layers: int, cells: int) -> Tensor:
    """[B]: mean over all layers of the visual tokens that enter a layer: `cells` up to the first prune point."""
    edges = torch.tensor([*layers, num_layers], dtype=tokens.dtype, device=tokens.device)
    return (cells * edges[0] + (tokens * edges.diff()).sum(1)) / num_layers


class Target(NamedTuple):
    """L_target and N-bar, in tokens; N-bar is without gradient."""

    loss: Tensor
    mean: Tensor


def l_target(average: Tensor, target: float, count: Tensor) -> Target:
    """L_target (Eq. 13): |N-bar - N_target|, N-bar the mean over the `count` samples with an image of the global batch.

    average: [B], all samples of this process in the step. The absolute value of a mean does not add up over processes
    or micro-batches: N-bar is summed over the processes first, and its sign decides the direction. 0 without an image.
    """
    total = average.detach().sum()
    if processes() > 1:
        dist.all_reduce(total)
    mean = total / count.clamp(min=1)
    distance = (mean - target) * (count > 0)
    moving = distance.sign() * share(average.sum(), count)
    return Target(distance.abs() + moving - moving.detach(), mean)
