"""A step has the same gradients however its batch is shared out: to micro-batches, and to processes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from atp_eval.training.gates import Masks
from atp_eval.training.losses import average_tokens, l_atp
from atp_eval.training.masks import Estimator
from atp_eval.training.trainer import AtpTrainer
from training.one_step import CLIP, UNEVEN, gradients, in_processes, settings
from training.small import batch_of, options, pruning_llava, samples


def one_batch(clip: float) -> dict[str, Tensor]:
    """Eq. 12 to 14 over all samples at once, without the trainer."""
    pruning, config = pruning_llava(trainable=True, estimator=Estimator(clip=clip)).train(), settings(Path("unused"))
    batch, layers = batch_of(samples(UNEVEN)), options().layers
    passed = pruning(**batch)
    language = passed.loss / (batch["labels"] != -100).sum()
    atp = l_atp(passed.tokens, layers, 36).mean()
    target = (average_tokens(passed.tokens, layers, 6, 36).mean() - config.target).abs()
    (language + config.lambda_atp * atp + config.lambda_target * target).backward()
    return {name: p.grad for name, p in pruning.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def truth() -> dict[str, Tensor]:
    """With the gradients to a good part of the masks at their limit."""
    found, free = one_batch(CLIP), one_batch(math.inf)
    name = "thresholds.0.head_r.weight"
    assert (found[name] - free[name]).norm() > 0.01 * free[name].norm()
    return found


def same(found: dict[str, Tensor], truth: dict[str, Tensor]) -> None:
    assert found.keys() == truth.keys()
    for name, grad in truth.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-6, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("micro_batch", [8, 4, 2, 1])
def test_accumulation_gives_the_gradients_of_one_batch(
    micro_batch: int, truth: dict[str, Tensor], tmp_path: Path
) -> None:
    same(gradients(tmp_path, micro_batch), truth)


def test_two_processes_give_the_gradients_of_one(truth: dict[str, Tensor], tmp_path: Path) -> None:
    """With 4 samples a micro-batch the second process has text only."""
    for found in in_processes(tmp_path, 2, 4, 2, 1):
        same(found, truth)


def test_an_n_bar_of_the_last_micro_batch_alone_would_be_seen(
    truth: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AtpTrainer, "_earlier", property(lambda self: [], lambda self, value: None), raising=False)
    with pytest.raises(AssertionError, match="thresholds"):
        same(gradients(tmp_path, 2), truth)


def test_limits_of_each_micro_batch_would_be_seen(
    truth: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Masks, "weight", property(lambda self: None, lambda self, value: None), raising=False)
    with pytest.raises(AssertionError, match="thresholds"):
        same(gradients(tmp_path, 2), truth)
