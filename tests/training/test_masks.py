"""The differentiable masks: gradients, products, and what they may and may not depend on."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from atp_eval.methods.atp.rules import margin, soft_mask
from atp_eval.methods.atp.scores import normalise, redundant_score, spatial_score
from atp_eval.methods.atp.thresholds import ThresholdModule
from atp_eval.training.collate import IGNORED, Sample
from atp_eval.training.masks import Estimator, Raw, decide, key_bias
from atp_eval.training.model import PruningLlava
from training.small import MIXED, Talk, batch_of, options, plain_llava, pruning_llava, samples

SOFT = Estimator("sigmoid", temperature=8.0)
GRID, CELLS = (6, 6), 36


def scores(rows: int = 3) -> Raw:
    generator = torch.Generator().manual_seed(5)
    return Raw(*torch.rand(2, rows, CELLS, generator=generator, dtype=torch.float64))


def module(learned_mix: bool = False) -> ThresholdModule:
    torch.manual_seed(0)
    return ThresholdModule(8, learned_mix=learned_mix).double()


def gradients(loss: Tensor, found: ThresholdModule) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(found.parameters()))])


def objective(pruning: PruningLlava, batch: dict[str, Tensor]) -> Tensor:
    """Everything a threshold acts on: the language loss, and the tokens at each prune point."""
    passed = pruning(**batch)
    assert passed.loss is not None
    return passed.loss + (passed.tokens * torch.tensor([0.1, 0.7, -0.3])).sum()


def exact(pruning: PruningLlava) -> PruningLlava:
    """With norms in the model's own fp64; transformers takes them in fp32, too coarse for differences."""

    def forward(norm: Any, hidden: Tensor) -> Tensor:
        return norm.weight * hidden * (hidden.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()

    for norm in pruning.modules():
        if isinstance(norm, LlamaRMSNorm):
            norm.forward = partial(forward, norm)  # type: ignore[method-assign]
    return pruning


@pytest.mark.parametrize("choice", [{}, {"score_norm": "rel", "learned_mix": True}, {"positions": "2d"}])
def test_threshold_gradients_are_finite_differences(choice: dict[str, Any]) -> None:
    """With scores held fixed, since they take no gradient."""
    pruning, batch = exact(pruning_llava(options(**choice), SOFT)).train(), batch_of(samples())
    objective(pruning, batch)
    fixed = [decided.raw for decided in pruning.masks.decided]
    pruning.masks._raw = lambda: fixed[len(pruning.masks.decided)]  # type: ignore[method-assign]
    objective(pruning, batch).backward()
    step = 1e-6
    for index, found in enumerate(pruning.thresholds):
        for name, parameter in found.named_parameters():
            assert parameter.grad is not None
            torch.manual_seed(index)
            direction = torch.randn_like(parameter)
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter += sign * step * direction
                    ends.append(objective(pruning, batch))
                    parameter -= sign * step * direction
            slope = (ends[0] - ends[1]).item() / (2 * step)
            assert (parameter.grad * direction).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-7), name


def test_straight_through_is_hard_forward_and_the_sigmoid_backward() -> None:
    found, raw, spatial = module(), scores(), spatial_score(GRID, strides=(2, 3, 6))
    weights = torch.linspace(-1, 1, CELLS, dtype=torch.float64)
    before = torch.ones(3, CELLS, dtype=torch.float64)
    decided = decide(found, options(), Estimator(temperature=20.0), raw, before, spatial, GRID)
    assert set(decided.mask.flatten().tolist()) == {0.0, 1.0}

    kept = before.bool()
    s_self, s_cross = (
        normalise(score, kept, "minmax", kind) for score, kind in zip(raw, ("self", "cross"), strict=True)
    )
    above = margin(redundant_score(s_self, s_cross), spatial, *found(s_self, s_cross, GRID))
    assert decided.mask.tolist() == (above >= 0).double().tolist()
    expected = gradients((soft_mask(above, 20.0) * weights).sum(), found)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(gradients((decided.mask * weights).sum(), found), expected)


@pytest.mark.parametrize("estimator", [SOFT, Estimator()])
def test_masks_multiply(estimator: Estimator) -> None:
    """What is gone stays gone, and a soft mask is the product of its own with the one before."""
    found, raw, spatial = module(), scores(), spatial_score(GRID, strides=(2, 3, 6))
    before = torch.rand(3, CELLS, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    before = before if estimator is SOFT else before.round()
    decided = decide(found, options(), estimator, raw, before, spatial, GRID)
    assert (decided.mask <= before).all()
    kept = before > 0.5
    s_self, s_cross = (
        normalise(score, kept, "minmax", kind) for score, kind in zip(raw, ("self", "cross"), strict=True)
    )
    above = margin(redundant_score(s_self, s_cross), spatial, *found(s_self, s_cross, GRID))
    own = soft_mask(above, 8.0) if estimator is SOFT else (above >= 0).double()
    torch.testing.assert_close(decided.mask, own * before)


def test_a_sample_where_nothing_passes_keeps_its_best_token() -> None:
    found, spatial = module(), spatial_score(GRID, strides=(2, 3, 6))
    with torch.no_grad():
        found.head_r.bias.fill_(30)
        found.head_s.bias.fill_(30)
    before = torch.ones(3, CELLS, dtype=torch.float64)
    before[:, 7] = 0
    raw = Raw(*(score.index_fill(1, torch.tensor([7]), 2.0) for score in scores()))  # the best one is gone already
    decided = decide(found, options(scores="cross", score_norm="rel"), Estimator(), raw, before, spatial, GRID)
    assert decided.mask.sum(1).tolist() == [1, 1, 1]
    assert decided.mask.argmax(1).tolist() == raw.s_cross.masked_fill(before == 0, -1).argmax(1).tolist()
    assert not decided.passed.any()


def masks_of(pruning: PruningLlava, found: list[Sample]) -> list[Tensor]:
    pruning.eval()
    with torch.no_grad():
        pruning(**batch_of(found))
    return [decided.mask for decided in pruning.masks.decided]


def test_answers_do_not_leak_into_the_scores() -> None:
    """Not even through the later questions of a conversation, which have seen the first answer."""
    pruning, found = pruning_llava(options(score_norm="rel")), samples([Talk(3, 4, 9), Talk(2, 5, 7)])
    for sample in found:
        sample.labels[-4:-2] = IGNORED  # a second question
    before, thetas = masks_of(pruning, found), [d.theta_r for d in pruning.masks.decided]
    changed = [s._replace(input_ids=s.input_ids.where(s.labels == IGNORED, 180)) for s in found]
    for sample in changed:
        sample.input_ids[-4:-2] = 181
    after = masks_of(pruning, changed)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.equal(a, d.theta_r) for a, d in zip(thetas, pruning.masks.decided, strict=True))

    for sample in changed:
        sample.input_ids[(sample.labels != IGNORED).nonzero()[0] - 1] = 181  # the end of the first question
    asked = masks_of(pruning, changed)
    assert not all(torch.equal(a, d.theta_r) for a, d in zip(thetas, pruning.masks.decided, strict=True)) and asked


def test_keeping_everything_is_the_language_loss_of_the_plain_model() -> None:
    pruning, model, batch = pruning_llava(), plain_llava(), batch_of(samples())
    with torch.no_grad():
        for found in pruning.thresholds:
            found.head_r.bias.fill_(-200)  # all thresholds 0
        passed = pruning.train()(**batch)
        truth = model(**batch).loss * (batch["labels"] != IGNORED).sum()
    assert passed.tokens.tolist() == [[CELLS] * 3] * 3
    assert passed.loss.item() == pytest.approx(truth.item(), abs=1e-5)


def test_text_alone_has_the_plain_model_s_loss_and_touches_no_threshold() -> None:
    pruning, model = pruning_llava(), plain_llava()
    batch = batch_of(samples([Talk(0, 7, 3, image=False), Talk(2, 6, 2, image=False)]))
    passed = pruning.train()(**batch)
    assert passed.tokens.shape == (0, 3) and passed.theta.shape == (0, 3, 2)
    truth = model(**batch).loss * (batch["labels"] != IGNORED).sum()
    assert passed.loss.item() == pytest.approx(truth.item(), abs=1e-5)
    (passed.loss + passed.tokens.sum()).backward()
    found = [p.grad for p in pruning.thresholds.parameters()]
    assert all(grad is not None and not grad.any() for grad in found)  # zeros: processes wait for every gradient


def test_text_rows_leave_the_others_as_they_are() -> None:
    pruning, found = pruning_llava().eval(), samples()
    with torch.no_grad():
        together = pruning(**batch_of(found)).tokens
        alone = pruning(**batch_of([s for s, talk in zip(found, MIXED, strict=True) if talk.image])).tokens
    assert together.tolist() == alone.tolist()


def test_a_frozen_language_model_gets_no_gradient() -> None:
    pruning = pruning_llava().train()
    pruning(**batch_of(samples())).loss.backward()
    touched = {name.split(".")[0] for name, p in pruning.named_parameters() if p.grad is not None}
    assert touched == {"thresholds"}
    assert all(p.grad is not None and p.grad.any() for p in pruning.thresholds.parameters())


def test_a_trainable_language_model_learns_without_tower_and_projector() -> None:
    pruning = pruning_llava(trainable=True).train()
    pruning(**batch_of(samples())).loss.backward()
    learns = {name for name, p in pruning.named_parameters() if p.grad is not None and p.grad.any()}
    assert {name for name, p in pruning.named_parameters() if p.requires_grad} == learns
    assert not any("vision_tower" in name or "projector" in name for name in learns)
    assert any("embed_tokens" in name for name in learns) and any("lm_head" in name for name in learns)


@pytest.mark.parametrize("trainable", [False, True])
def test_checkpointing_changes_no_gradient(trainable: bool) -> None:
    found = []
    for checkpointing in (False, True):
        pruning = pruning_llava(options(positions="2d"), trainable=trainable, checkpointing=checkpointing).train()
        objective(pruning, batch_of(samples())).backward()
        found.append({name: p.grad for name, p in pruning.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        torch.testing.assert_close(grad, found[1][name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("trainable", [False, True])
def test_thresholds_stay_in_fp32_under_bf16(trainable: bool) -> None:
    """A frozen model in bf16, a trained one in fp32 under autocast."""
    dtype = torch.float32 if trainable else torch.bfloat16
    pruning = pruning_llava(trainable=trainable, dtype=dtype).train()
    batch = batch_of(samples(dtype=torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        passed = pruning(**batch)
    passed.loss.backward()
    assert passed.loss.dtype == passed.theta.dtype == passed.tokens.dtype == torch.float32
    assert (passed.theta != passed.theta.bfloat16()).any(), "thresholds were rounded"
    for parameter in pruning.thresholds.parameters():
        assert parameter.dtype == torch.float32 and parameter.grad is not None and parameter.grad.isfinite().all()


def test_the_model_is_given_back_as_it_was() -> None:
    pruning, model, batch = pruning_llava(options(positions="2d")), plain_llava(), batch_of(samples())
    pruning(**batch)
    given_back = pruning.detach()
    with torch.no_grad():
        assert torch.equal(given_back(**batch).logits, model(**batch).logits)
    assert [n for n, _ in given_back.named_modules()] == [n for n, _ in model.named_modules()]


def test_the_gradient_to_a_dropped_token_is_bounded_by_the_limit() -> None:
    mask = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], requires_grad=True)
    push = torch.tensor([[0.5, 1e-20, -3.0], [-1e-27, 0.001, 0.2]])
    key_bias(mask, limit=0.4).backward(push)
    assert torch.equal(mask.grad, torch.tensor([[0.4, 0.4, -0.4], [-0.4, 0.001, 0.2]]))


def test_without_a_limit_the_gradient_is_that_of_the_logarithm() -> None:
    mask = torch.tensor([[0.25, 1.0]], requires_grad=True, dtype=torch.float64)
    key_bias(mask).sum().backward()
    assert torch.allclose(mask.grad, torch.tensor([[4.0, 1.0]], dtype=torch.float64))
