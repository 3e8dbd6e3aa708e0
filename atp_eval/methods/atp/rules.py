"""Which tokens stay: the two-way rule of ATP-LLaVA, hard for inference and differentiable for training (Eq. 9-11)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Rules = Literal["both", "redundant", "spatial"]


def margin(redundant: Tensor, spatial: Tensor, theta_r: Tensor, theta_s: Tensor, rules: Rules = "both") -> Tensor:
    """[B, V]: how far the better of the two scores is above its threshold; a token stays where this is not negative.

    The sigmoid of Eq. 9 and 10 rises, so the maximum of the two masks (Eq. 11) is the mask of the larger margin.
    rules: Tab. 4 leaves out the spatial or the redundant one.
    """
    if rules == "redundant":
        return redundant - theta_r
    if rules == "spatial":
        return spatial - theta_s
    return torch.maximum(redundant - theta_r, spatial - theta_s)


def hard_mask(margin: Tensor, redundant: Tensor, kept: Tensor) -> Tensor:
    """[B, V] bool: the survivors in `kept` whose margin is not negative; the best survivor by the redundant score in a
    sample where none has that, so that the picture never disappears."""
    keep = (margin >= 0) & kept
    best = redundant.masked_fill(~kept, -torch.inf).argmax(1, keepdim=True)
    rescued = torch.zeros_like(keep).scatter(1, best, True) & kept
    return torch.where(keep.any(1, keepdim=True), keep, rescued)


def soft_mask(margin: Tensor, temperature: float = 1e6) -> Tensor:
    """[B, V] in (0, 1): sigmoid(margin * T), the maximum of Eq. 9 and 10."""
    return (margin * temperature).sigmoid()


class StraightThrough(torch.autograd.Function):
    """The hard mask forward; backward as if it had been the soft one."""

    @staticmethod
    def forward(ctx: object, soft: Tensor, hard: Tensor) -> Tensor:
        return hard.to(soft.dtype)

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None
