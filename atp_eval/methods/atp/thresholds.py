"""The threshold module of ATP-LLaVA: two pruning thresholds for each layer and instance (Eq. 6-8)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GRID = (24, 24)  # the grid that the first layer reads; other grids are resized to it


class ThresholdModule(nn.Module):
    """Linear(2 * 576 -> hidden), no activation, then two heads to one number each, through a sigmoid.

    start: theta_r and theta_s before training. learned_mix: our extension, off in the paper: a trained weight of S_self
    against S_cross in the redundant score, 1/2 at the start.

    The 1152 inputs are not negative and add up, so that small steps on the first layer move a threshold far; the heads
    start with small weights for that reason, and training gives the three groups learning rates of their own.
    """

    def __init__(self, hidden: int = 256, start: tuple[float, float] = (0.45, 0.82), learned_mix: bool = False) -> None:
        super().__init__()
        self.z = nn.Linear(2 * GRID[0] * GRID[1], hidden)
        self.head_r = nn.Linear(hidden, 1)
        self.head_s = nn.Linear(hidden, 1)
        for head, theta in zip((self.head_r, self.head_s), start, strict=True):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.constant_(head.bias, math.log(theta / (1 - theta)))
        self.mix_logit = nn.Parameter(torch.zeros(1)) if learned_mix else None

    def forward(self, s_self: Tensor, s_cross: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Normalised scores [B, V] of the grid's cells, 0 where the token is gone -> theta_r, theta_s [B, 1].

        Always in the module's own precision (fp32): half precision would round thresholds to steps of 1/256.
        """
        with torch.autocast(s_self.device.type, enabled=False):
            scores = torch.stack([s_self, s_cross], 1).to(self.z.weight.dtype)  # (B, 2, V)
            if grid != GRID:
                scores = F.interpolate(scores.unflatten(2, grid), GRID, mode="bilinear", align_corners=False)
            z = self.z(scores.flatten(1))  # Eq. 6
            return self.head_r(z).sigmoid(), self.head_s(z).sigmoid()  # Eq. 7, 8

    @property
    def mix(self) -> Tensor | None:
        """Weight of S_self in the redundant score, in (0, 1); None for the paper's plain average."""
        return None if self.mix_logit is None else self.mix_logit.sigmoid()
