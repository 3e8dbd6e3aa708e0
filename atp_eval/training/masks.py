"""The differentiable keep masks of ATP-LLaVA's training (Eq. 8-11) and how attention sees them.

In training no token leaves: a token that a prune point drops stays in the sequence, hidden from every query of the
later layers. Masks multiply from one prune point to the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from atp_eval.methods.atp.options import AtpOptions
from atp_eval.methods.atp.rules import StraightThrough, hard_mask, margin, soft_mask
from atp_eval.methods.atp.scores import normalise, redundant_score
from atp_eval.methods.atp.thresholds import ThresholdModule

# log(mask + EPSILON) leaks EPSILON * sum e^l over dropped / sum e^l over kept: at logits of standard deviation 4, 1e-6
# changed what is kept; at 7, 1e-16 leaked 1e-3 into logits. Much smaller, and gradients vanish below fp32's range.
EPSILON = 1e-30
Kind = Literal["straight_through", "sigmoid"]


@dataclass(frozen=True)
class Estimator:
    """How the gradient gets through the threshold.

    straight_through: the hard mask forward, the sigmoid of `temperature` backward. sigmoid: the sigmoid both ways; with
    a temperature of 1e6 it is the literal text of the paper: gradients are zero in most steps and up to 1e5 else.
    clip: the largest gradient of a sample's loss, by way of attention, to one token's mask. To a dropped token it is
    e^l / sum of e^l over kept ones, which has no bound: where attention is sharp, one token outweighs a whole batch.
    """

    kind: Kind = "straight_through"
    temperature: float = 20.0
    clip: float = math.inf


class Raw(NamedTuple):
    """S_self and S_cross [B, V] of a prune point as the engine gives them, without gradients."""

    s_self: Tensor
    s_cross: Tensor


class Decided(NamedTuple):
    """One prune point.

    raw: the scores that it was decided from. mask: [B, V] with gradients, 0 where gone before. theta_r, theta_s [B, 1].
    passed: [B] bool, whether any token was above a threshold; else the best one was kept for the picture's sake.
    """

    raw: Raw
    mask: Tensor
    theta_r: Tensor
    theta_s: Tensor
    passed: Tensor


def decide(
    module: ThresholdModule,
    options: AtpOptions,
    estimator: Estimator,
    raw: Raw,
    before: Tensor,
    spatial: Tensor,
    grid: tuple[int, int],
) -> Decided:
    """The mask after a prune point.

    before: the mask [B, V] of the prune point before, ones at the first; spatial [V]. A token is a survivor where the
    mask before is above 1/2.
    """
    kept = before.detach() > 0.5
    s_self = normalise(raw.s_self, kept, options.score_norm, "self")
    s_cross = normalise(raw.s_cross, kept, options.score_norm, "cross")
    theta_r, theta_s = module(s_self, s_cross, grid)
    redundant = redundant_score(s_self, s_cross, options.scores, module.mix)
    above = margin(redundant, spatial.to(redundant), theta_r.to(redundant), theta_s.to(redundant), options.rules)
    mask = soft_mask(above, estimator.temperature)
    if estimator.kind == "straight_through":
        mask = StraightThrough.apply(mask, hard_mask(above.detach(), redundant.detach(), kept))
    return Decided(raw, mask * before, theta_r, theta_s, ((above.detach() >= 0) & kept).any(1))


def key_bias(mask: Tensor, limit: float = math.inf) -> Tensor:
    """log(mask + EPSILON): what is added to the logits of a key. Its softmax is e^l * mask / sum, as the paper's.

    Zero for a kept token. One bias a key: a dropped token does not see itself either, which nothing later depends on.
    limit: of the gradient to each value of the mask.
    """
    bias: Tensor = _KeyBias.apply(mask, limit)
    return bias


class _KeyBias(torch.autograd.Function):
    """The logarithm, and its gradient within limits."""

    @staticmethod
    def forward(ctx: Any, mask: Tensor, limit: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.limit = limit
        return (mask + EPSILON).log()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return (grads[0] / (mask + EPSILON)).clamp(-ctx.limit, ctx.limit), None
