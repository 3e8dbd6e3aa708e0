"""The losses against numbers worked out by hand (the paper's own example among them)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atp_eval.training.losses import average_tokens, l_atp, l_target, share


def values(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_the_average_of_the_paper_s_144_model() -> None:
    """Tab. 2: 126, 88 and 20 tokens before layers 4, 14 and 24 of 32."""
    found = average_tokens(values(126, 88, 20)[None], (4, 14, 24), 32, 576)
    assert found.item() == (4 * 576 + 10 * 126 + 10 * 88 + 8 * 20) / 32 == 143.875


def test_the_average_of_the_paper_s_88_model() -> None:
    found = average_tokens(values(98, 79, 16)[None], (1, 13, 25), 32, 576)
    assert found.item() == (1 * 576 + 12 * 98 + 12 * 79 + 7 * 16) / 32 == 87.875


def test_l_atp_weights_tokens_by_depth() -> None:
    """Eq. 12: each prune point's share of 576 times its layer."""
    found = l_atp(torch.stack([values(126, 88, 20), values(576, 576, 576)]), (4, 14, 24), 576)
    assert found.tolist() == pytest.approx([126 / 576 * 4 + 88 / 576 * 14 + 20 / 576 * 24, 4 + 14 + 24])


def test_l_target_is_the_distance_of_the_mean_not_the_mean_of_the_distances() -> None:
    average = values(100, 180).requires_grad_()
    found = l_target(average, 130.0, torch.tensor(2.0))
    assert (found.loss.item(), found.mean.item()) == (10, 140)
    found.loss.backward()
    assert average.grad is not None and average.grad.tolist() == [0.5, 0.5]


def test_l_target_pulls_up_from_below() -> None:
    average = values(100, 120).requires_grad_()
    found = l_target(average, 130.0, torch.tensor(2.0))
    found.loss.backward()
    assert found.loss.item() == 20
    assert average.grad is not None and average.grad.tolist() == [-0.5, -0.5]


def test_without_an_image_there_is_no_distance() -> None:
    average = torch.zeros(0, requires_grad=True)
    found = l_target(average, 130.0, torch.tensor(0.0))
    found.loss.backward()
    assert found.loss.item() == 0
    assert share(average.sum(), torch.tensor(0.0)).item() == 0


def test_a_share_leaves_text_only_samples_out_of_the_denominator() -> None:
    assert share(values(3, 5).sum(), torch.tensor(2.0)).item() == 4
