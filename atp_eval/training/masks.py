"""The differentiable keep masks of ATP-LLaVA's training (Eq. 8-11) and how attention sees them.

In training no token leaves: a token that a prune point drops stays in the sequence, hidden from every query of the
later layers. Masks multiply from one prune point to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from atp_eval.methods.atp.options import AtpOptions
from atp_eval.methods.atp.rules import StraightThrough, hard_mask, margin, soft_mask
from atp_eval.methods.atp.scores import normalise, redundant_score
from atp_eval.methods.atp.thresholds import ThresholdModule

EPSILON = 1e-16  # log(mask + EPSILON) leaks EPSILON * sum e^l over dropped / sum e^l over kept; 1e-6 changed kept sets


@dataclass(frozen=True)
class Estimator:
    """How the gradient gets through the threshold.

    straight_through: the hard mask forward, the sigmoid of `temperature` backward. sigmoid: the sigmoid both ways; with
    a temperature of 1e6 it is the literal text of the paper: gradients are zero in most steps and up to 1e5 else.
    """

    kind: Literal["straight_through", "sigmoid"] = "straight_through"
    temperature: float = 20.0


@dataclass(frozen=True)
class Decided:
    """One prune point: mask [B, V] with gradients, 0 where gone before; theta_r, theta_s [B, 1]."""

    mask: Tensor
    theta_r: Tensor
    theta_s: Tensor


def decide(
    module: ThresholdModule,
    options: AtpOptions,
    estimator: Estimator,
    raw: tuple[Tensor, Tensor],
    before: Tensor,
    spatial: Tensor,
    grid: tuple[int, int],
) -> Decided:
    """The mask after a prune point.

    raw: S_self and S_cross [B, V] as the engine gives them, without gradients; before: the mask [B, V] of the prune
    point before, ones at the first; spatial [V]. A token is a survivor where the mask before is above 1/2.
    """
    kept = before.detach() > 0.5
    s_self = normalise(raw[0].detach(), kept, options.score_norm, "self")
    s_cross = normalise(raw[1].detach(), kept, options.score_norm, "cross")
    redundant = redundant_score(s_self, s_cross, options.scores, module.mix)
    theta_r, theta_s = module(s_self, s_cross, grid)
    passed = margin(redundant, spatial.to(redundant), theta_r.to(redundant), theta_s.to(redundant), options.rules)
    mask = soft_mask(passed, estimator.temperature)
    if estimator.kind == "straight_through":
        mask = StraightThrough.apply(mask, hard_mask(passed.detach(), redundant.detach(), kept))
    return Decided(mask * before, theta_r, theta_s)


def key_bias(mask: Tensor) -> Tensor:
    """log(mask + EPSILON): what is added to the logits of a key. Its softmax is e^l * mask / sum, as the paper's.

    Zero for a kept token. One bias a key: a dropped token does not see itself either, which nothing later depends on.
    """
    return (mask + EPSILON).log()


def attention_mask(bias: Tensor, valid: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, 1, L, L] additive: causal, padding hidden, plus `bias` [B, L] for each key; `valid` [B, L] bool."""
    length = valid.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()
    seen = causal & valid[:, None, :]
    seen = seen | torch.eye(length, dtype=torch.bool, device=valid.device)  # padding sees itself: no empty rows
    return (
        bias[:, None, :]
        .to(dtype)
        .masked_fill(~seen, max(torch.finfo(dtype).min, torch.finfo(torch.float32).min))[:, None]
    )
