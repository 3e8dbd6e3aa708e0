"""The threshold module (Eq. 6-8) and the keep rule (Eq. 9-11) against hand-written algebra."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import atp as literal

from atp_eval.methods.atp.rules import StraightThrough, hard_mask, margin, soft_mask
from atp_eval.methods.atp.thresholds import ThresholdModule

RULES = ("both", "redundant", "spatial")
score = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(-1, 2))


def module(seed: int, hidden: int = 5, learned_mix: bool = False) -> ThresholdModule:
    """Random weights in fp64."""
    torch.manual_seed(seed)
    made = ThresholdModule(hidden, learned_mix=learned_mix).double()
    for head in (made.head_r, made.head_s):
        torch.nn.init.normal_(head.weight)
    return made


@settings(max_examples=15)
@given(seed=st.integers(0, 99), grid=st.sampled_from([(24, 24), (6, 6), (5, 7), (1, 3), (30, 25), (24, 12)]))
def test_thresholds_equal_the_matrix_algebra_written_out(seed: int, grid: tuple[int, int]) -> None:
    """S_self comes first, row by row; other grids are resized to 24 x 24; cells that are gone are 0."""
    made, cells = module(seed), grid[0] * grid[1]
    scores = torch.rand(2, 2, cells, dtype=torch.float64) * (torch.rand(2, 1, cells) < 0.7)
    theta_r, theta_s = made(*scores, grid)
    assert theta_r.shape == theta_s.shape == (2, 1)
    weights = {name: value.tolist() for name, value in made.state_dict().items()}
    for row in range(2):
        truth = literal.thresholds(weights, *scores[:, row].tolist(), grid)
        torch.testing.assert_close((theta_r[row].item(), theta_s[row].item()), truth, rtol=0, atol=1e-12)


@given(grid=st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_the_literal_resize_is_bilinear(grid: tuple[int, int]) -> None:
    image = torch.rand(1, 1, *grid, dtype=torch.float64)
    found = F.interpolate(image, (24, 24), mode="bilinear", align_corners=False).flatten()
    torch.testing.assert_close(found.tolist(), literal.resize(image.flatten().tolist(), grid), rtol=0, atol=1e-12)


def test_thresholds_start_where_they_are_told_to() -> None:
    made = ThresholdModule(start=(0.45, 0.82))
    theta_r, theta_s = made(torch.zeros(3, 576), torch.zeros(3, 576), (24, 24))
    assert (theta_r - 0.45).abs().max() < 0.05 and (theta_s - 0.82).abs().max() < 0.05
    assert made.z.weight.shape == (256, 1152)
    assert [name for name, _ in made.named_parameters() if "mix" in name] == [] and made.mix is None
    assert ThresholdModule(learned_mix=True).mix.item() == 0.5


def test_thresholds_are_fp32_whatever_the_scores_and_autocast_say() -> None:
    made, scores = ThresholdModule(), torch.rand(2, 1, 576, generator=torch.Generator().manual_seed(4))
    plain = made(*scores, (24, 24))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = made(*scores.double(), (24, 24))
    for a, b in zip(plain, cast, strict=True):
        assert b.dtype == torch.float32 and torch.equal(a, b)


@given(
    pairs=st.lists(st.tuples(score, score, st.booleans()), min_size=1, max_size=9),
    theta=st.tuples(score, score),
    rules=st.sampled_from(RULES),
)
def test_the_keep_rule_equals_the_literal_version(
    pairs: list[tuple[float, float, bool]], theta: tuple[float, float], rules: str
) -> None:
    """Survivors only; scores and thresholds from a few values, so that they are often equal: such a token stays."""
    pairs = [(r, s, there or not any(t for _, _, t in pairs)) for r, s, there in pairs]
    redundant, spatial, there = zip(*pairs, strict=True)
    kept = torch.tensor([there])
    theta_r, theta_s = torch.tensor(theta, dtype=torch.float64)[:, None, None]
    by_cell, by_place = torch.tensor([redundant], dtype=torch.float64), torch.tensor(spatial, dtype=torch.float64)
    passed = margin(by_cell, by_place, theta_r, theta_s, rules)  # type: ignore[arg-type]
    found = hard_mask(passed, by_cell, kept)
    alive = [n for n, is_there in enumerate(there) if is_there]
    truth = literal.keep([redundant[n] for n in alive], [spatial[n] for n in alive], theta, rules)
    assert torch.where(found[0])[0].tolist() == [n for n, stays in zip(alive, truth, strict=True) if stays]


def test_a_score_equal_to_its_threshold_stays() -> None:
    redundant, spatial = torch.tensor([[0.5, 0.4, 0.4]]), torch.tensor([0.0, 0.7, 0.6])
    theta_r, theta_s = torch.tensor([[0.5]]), torch.tensor([[0.7]])
    kept = torch.ones(1, 3, dtype=torch.bool)
    found = [
        hard_mask(margin(redundant, spatial, theta_r, theta_s, rules), redundant, kept)[0].tolist()  # type: ignore[arg-type]
        for rules in RULES
    ]
    assert found == [[True, True, False], [True, False, False], [False, True, False]]


def test_where_nothing_passes_the_best_survivor_by_the_redundant_score_stays() -> None:
    """Whatever the rules, in that sample alone, and never a token that is gone."""
    redundant = torch.tensor([[0.9, 0.3, 0.4, 0.1], [0.9, 0.3, 0.4, 0.1]])
    spatial = torch.tensor([0.0, 0.9, 0.0, 0.0])
    kept = torch.tensor([[False, True, True, True]] * 2)
    theta_r, theta_s = torch.tensor([[0.99], [0.2]]), torch.tensor([[0.99], [0.99]])
    for rules in RULES:
        passed = margin(redundant, spatial, theta_r, theta_s, rules)  # type: ignore[arg-type]
        found = hard_mask(passed, redundant, kept).tolist()
        assert found[0] == [False, False, True, False]
        assert found[1] == ([False, False, True, False] if rules == "spatial" else [False, True, True, False])
    assert not hard_mask(passed, redundant, torch.zeros_like(kept)).any()


@given(
    pairs=st.lists(st.tuples(score, score), min_size=1, max_size=9),
    theta=st.tuples(score, score),
    temperature=st.sampled_from([1.0, 20.0, 1e6]),
)
def test_the_mask_of_the_larger_margin_is_the_larger_mask(
    pairs: list[tuple[float, float]], theta: tuple[float, float], temperature: float
) -> None:
    """Eq. 9-11, where the maximum is of two sigmoids."""
    redundant, spatial = torch.tensor(pairs, dtype=torch.float64).T
    theta_r, theta_s = torch.tensor(theta, dtype=torch.float64)[:, None, None]
    found = soft_mask(margin(redundant[None], spatial, theta_r, theta_s), temperature)[0].tolist()
    truth = literal.soft_mask(redundant.tolist(), spatial.tolist(), theta, temperature)
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-9)


def test_straight_through_is_hard_forward_and_soft_backward() -> None:
    x = torch.linspace(-1, 1, 7, dtype=torch.float64, requires_grad=True)
    hard = x >= 0
    out = StraightThrough.apply(soft_mask(x, 3.0), hard)
    assert torch.equal(out, hard.double())
    out.backward(torch.arange(7.0, dtype=torch.float64))
    slope = [3 * math.exp(-3 * v) / (1 + math.exp(-3 * v)) ** 2 * i for i, v in enumerate(x.tolist())]
    torch.testing.assert_close(x.grad.tolist(), slope, rtol=0, atol=1e-12)
