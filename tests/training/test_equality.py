"""In hard mode the training's forward pass is the pruned engine's: the same tokens, the same logits."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from atp_eval.engine import prune
from atp_eval.engine.point import Attention
from atp_eval.methods.atp import ATP, AtpOptions
from atp_eval.training import masks
from atp_eval.training.collate import IGNORED, Sample
from atp_eval.training.gates import Masks
from atp_eval.training.model import PruningLlava
from training.small import as_method, batch_of, options, plain_llava, prompts, pruning_llava, samples

CHOICES: list[dict[str, Any]] = [
    *({"positions": p, "score_norm": n} for p in ("1d", "2d") for n in ("minmax", "rel", "rank", "zscore", "none")),
    *({"positions": p, "causal_self": True, "score_norm": n} for p, n in (("1d", "minmax"), ("2d", "rel"))),
    *({"scores": s, "rules": r} for s, r in itertools.product(("both", "self", "cross"), ("redundant", "spatial"))),
    {"scores": "self"},
    {"scores": "cross"},
    {"learned_mix": True},
    {"layers": (5,)},
    {"layers": (1, 2, 3, 4, 5), "score_norm": "rank"},
    {"lambda_sample": 1.0, "strides": (1, 3)},
]


@torch.no_grad()
def step_by_step(model: Any, method: ATP, sample: Sample) -> tuple[list[Tensor], Tensor]:
    """The engine reads a prompt, prunes it, and is then fed the answer: kept cells K x [V], logits [answer, vocab]."""
    asked, answer = prompts([sample]), sample.input_ids[sample.labels != IGNORED]
    with prune(model, method) as pruned:
        out = model(**asked, use_cache=True)
        logits = [out.logits[:, -1]]
        for token in answer[:-1]:
            out = model(input_ids=token.view(1, 1), past_key_values=out.past_key_values, use_cache=True)
            logits.append(out.logits[:, -1])
        kept = [torch.from_numpy(stage.keep) for stage in pruned.trace.stages]
    return kept, torch.cat(logits)


@torch.no_grad()
def in_training(pruning: PruningLlava, batch: dict[str, Tensor]) -> tuple[list[Tensor], Tensor]:
    """Whole conversations in one batch, in training mode: masks K x [B, V], logits [answer tokens, vocab]."""
    hidden: list[Tensor] = []
    handle = pruning.model.lm_head.register_forward_pre_hook(lambda module, args: hidden.append(args[0]))
    pruning.train()
    assert pruning(**batch).loss is not None
    handle.remove()
    return [decided.mask for decided in pruning.masks.decided], pruning.model.lm_head(hidden[0])


def equal(given: AtpOptions, atol: float, left: bool = False, **base: Any) -> PruningLlava:
    """The straight-through estimator keeps what the engine keeps, and answers are as likely."""
    pruning, model = pruning_llava(given, **base), plain_llava(**base)
    found, method = samples(dtype=model.dtype), as_method(pruning, model)
    batch = batch_of(found, left)
    decided, logits = in_training(pruning, batch)
    rows = (batch["labels"][:, 1:] != IGNORED).nonzero()[:, 0]  # the row of each logit
    for row, sample in enumerate(found):
        kept, truth = step_by_step(model, method, sample)
        torch.testing.assert_close(logits[rows == row], truth, rtol=0, atol=atol)
        if sample.pixel_values is not None:
            assert [m.tolist() for m in kept] == [mask[row].bool().tolist() for mask in decided]
            assert all(set(mask[row].tolist()) <= {0.0, 1.0} for mask in decided)
    return pruning


@pytest.mark.parametrize("choice", CHOICES, ids=lambda c: ",".join(f"{k}={v}" for k, v in c.items()))
def test_training_is_pruned_inference(choice: dict[str, Any]) -> None:
    equal(options(**choice), atol=1e-6)


@pytest.mark.parametrize("positions", ["1d", "2d"])
@pytest.mark.parametrize("left", [False, True])
def test_padding_on_either_side_is_the_same(positions: str, left: bool) -> None:
    equal(options(positions=positions, score_norm="rank"), atol=1e-6, left=left, seed=3)


@pytest.mark.parametrize("norm", ["minmax", "rel", "rank"])
@pytest.mark.parametrize("seed", range(3))
def test_sharp_attention_leaks_nothing(norm: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far beyond logits of standard deviation 4; with 1e-16 in place of EPSILON some of these fail."""
    spread: list[float] = []

    def remember(self: Masks, attention: Attention) -> None:
        key = attention.key.repeat_interleave(2, 1)
        spread.append((attention.query @ key.transpose(2, 3) * attention.scaling).std().item())
        original(self, attention)

    original = Masks.remember
    monkeypatch.setattr(Masks, "remember", remember)
    equal(options(score_norm=norm), atol=1e-6, seed=seed, sharp=8.0)
    assert min(spread) > 7


@pytest.mark.parametrize("positions", ["1d", "2d"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_training_is_pruned_inference_in_fp32(positions: str, attention: str) -> None:
    equal(options(positions=positions), atol=1e-4, dtype=torch.float32, attention=attention, seed=2)


def test_a_leak_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same comparison fails, so that passing means something."""
    monkeypatch.setattr(masks, "EPSILON", 1e-6)
    with pytest.raises(AssertionError):
        equal(options(), atol=1e-6, sharp=4.0)
