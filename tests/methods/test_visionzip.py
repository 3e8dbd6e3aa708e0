"""VisionZip: hand-computed cases, a slow literal version, and stock LLaVA with the tokens put in."""

from __future__ import annotations

from math import log
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine.small import make_batch, step_by_step
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import visionzip as literal
from torch import Tensor

from atp_eval.cost import KNOWN
from atp_eval.engine import prune
from atp_eval.errors import UserError
from atp_eval.methods import Geometry, get_method
from atp_eval.methods.tensors import cls_attention
from atp_eval.methods.visionzip import Choice, VisionZip, choose, contextual_tokens, split
from methods.spliced import sharp_llava, spliced

LLAVA = Geometry(32, (24, 24))


def floats(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The dominant tokens


def test_attention_is_a_softmax_for_each_head_summed_over_heads() -> None:
    """Head 1: logits 2 x / sqrt(4) of 0, ln 2, ln 5 give 1/8, 2/8, 5/8; head 2 is even. The first is CLS, left out."""
    queries = torch.full((1, 2, 3, 4), 9.0, dtype=torch.float64)
    queries[0, :, 0] = floats([2, 0, 0, 0], [0, 0, 0, 0])
    keys = torch.full((1, 2, 3, 4), 7.0, dtype=torch.float64)
    keys[0, 0, :, 0] = floats(0, log(2), log(5))
    expected = floats([2 / 8 + 1 / 3, 5 / 8 + 1 / 3])
    torch.testing.assert_close(cls_attention(queries, keys).sum(1), expected, rtol=0, atol=1e-15)


def test_half_precision_is_computed_in_single() -> None:
    queries, keys = normal(1, 2, 5, 4, seed=1).half(), normal(1, 2, 5, 4, seed=2).half()
    attention = cls_attention(queries, keys).sum(1)
    assert attention.dtype == torch.float32
    assert torch.equal(attention, cls_attention(queries.float(), keys.float()).sum(1))
    x, choice = normal(1, 4, 3, seed=3).half(), choose(attention, 2, 1)
    found = contextual_tokens(x, keys[:, 0, 1:], choice)
    assert found.dtype == torch.half
    assert torch.equal(found, contextual_tokens(x.float(), keys[:, 0, 1:].float(), choice).half())


def test_dominant_counts_cls_and_is_in_raster_order_and_ties_go_to_the_earlier_cell() -> None:
    attention = floats([0, 5, 1, 5, 9, 5], [3, 2, 1, 1, 1, 0])
    assert choose(attention, 4, 1).dominant.tolist() == [[1, 3, 4], [0, 1, 2]]
    assert choose(attention, 3, 1).dominant.tolist() == [[1, 4], [0, 1]]
    assert choose(attention, 1, 1).dominant.shape == (2, 0)
    assert choose(attention, 4, 1).rest.tolist() == [[0, 2, 5], [3, 4, 5]]


# The contextual tokens


@pytest.mark.parametrize(("dominant", "contextual", "rest", "step", "last"), [
    (54, 10, 523, 52, 468), (108, 20, 469, 23, 437), (162, 30, 415, 13, 377), (191, 30, 386, 12, 348),
])  # fmt: skip
def test_targets_are_every_nth_of_the_rest(dominant: int, contextual: int, rest: int, step: int, last: int) -> None:
    """Places in the list of the others, not in the grid; the authors' settings and the defaults of their call."""
    choice = choose(torch.linspace(1, 0, 576)[None], dominant, contextual)
    assert choice.rest.tolist() == [list(range(576 - rest, 576))]
    assert choice.targets.tolist() == [step * i for i in range(contextual)]
    assert choice.targets[-1] == last


def test_as_many_targets_as_others_at_most() -> None:
    assert choose(floats([3, 2, 1, 0]), 1, 4).targets.tolist() == [0, 1, 2, 3]
    assert choose(floats([3, 2, 1, 0]), 2, 2).targets.tolist() == [0, 1]  # 3 others, step 1
    assert choose(floats([3, 2, 1, 0]), 5, 0).rest.shape == (1, 0)
    assert choose(floats([3, 2, 1, 0]), 2, 0).targets.tolist() == []


FEATURES = floats([[1, 0], [10, 0], [100, 0], [0, 1], [0, 10], [5, 5]])
KEYS = floats([[1, 0], [0, 2], [3, 1], [1, 3], [-1, 1], [2, 2]])


@pytest.mark.parametrize(("rule", "first", "second"), [
    ("code", [1 + (100 + 5) / 2, 5 / 2], [10, 11 / 2]), ("paper", [106 / 3, 5 / 3], [10 / 3, 11 / 3]),
])  # fmt: skip
def test_others_go_to_their_nearest_target_by_direction(rule: Any, first: list[float], second: list[float]) -> None:
    """Targets 0 and 1. 2 is nearer to 0; 3 and 4 to 1; 5 is as near to both and goes to the first."""
    choice = Choice(torch.zeros(1, 0, dtype=torch.long), torch.arange(6)[None], torch.tensor([0, 1]))
    found = contextual_tokens(FEATURES, KEYS, choice, rule)
    torch.testing.assert_close(found[0], floats(first, second), rtol=0, atol=1e-13)


@pytest.mark.parametrize("rule", ["code", "paper"])
def test_a_target_that_nothing_is_near_to_stays_itself(rule: Any) -> None:
    choice = Choice(torch.tensor([[0, 1, 2]]), torch.tensor([[3, 4, 5]]), torch.tensor([0, 1]))
    found = contextual_tokens(FEATURES, KEYS, choice, rule)
    assert found[0, 1].tolist() == [0, 10]
    assert found[0, 0].tolist() == ([5, 6] if rule == "code" else [2.5, 3])


def test_a_key_of_zeros_goes_to_the_first_target() -> None:
    choice = Choice(torch.tensor([[3, 4, 5]]), torch.tensor([[0, 1, 2]]), torch.tensor([0, 1]))
    found = contextual_tokens(FEATURES, KEYS * floats([1], [1], [0], [1], [1], [1]), choice)
    assert found[0].tolist() == [[101, 0], [10, 0]]


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3), cells=st.integers(1, 16), share=st.floats(0, 1), part=st.floats(0, 1),
    rule=st.sampled_from(["code", "paper"]), ties=st.booleans(), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_parity_with_the_literal_version(
    batch: int, cells: int, share: float, part: float, rule: Any, ties: bool, seed: int
) -> None:
    """Indexes equal and tokens to 1e-10: 1 to all tokens and any split of them."""
    total = 1 + round(share * cells)
    contextual = round(part * (total - 1))
    queries, keys = normal(batch, 2, 1 + cells, 3, seed=seed), normal(batch, 2, 1 + cells, 3, seed=seed + 1)
    features, attention = normal(batch, cells, 4, seed=seed + 2), cls_attention(3 * queries, keys).sum(1)
    slow = floats(*map(literal.class_attention, (3 * queries).tolist(), keys.tolist()))
    torch.testing.assert_close(attention, slow, rtol=0, atol=1e-12)
    metric = keys[:, :, 1:].mean(1)
    attention = attention.round(decimals=1) if ties else attention
    choice = choose(attention, total - contextual, contextual)
    found = contextual_tokens(features, metric, choice, rule)
    assert found.shape == (batch, contextual, 4)
    for row in range(batch):
        truth = literal.visionzip(
            features[row].tolist(),
            literal.metric(keys[row].tolist()),
            attention[row].tolist(),
            total - contextual,
            contextual,
            rule,
        )
        assert choice.dominant[row].tolist() == truth.dominant
        assert choice.rest[row, choice.targets].tolist() == truth.targets
        assert sorted([*truth.dominant, *choice.rest[row].tolist()]) == list(range(cells))
        if contextual:
            torch.testing.assert_close(found[row], floats(*truth.contextual), rtol=0, atol=1e-10)


# The method


def test_the_authors_settings_come_out_and_halves_round_to_even() -> None:
    for spec, keep, contextual in (
        ("visionzip@64", 64, 10), ("visionzip@128", 128, 20), ("visionzip@192", 192, 30), ("visionzip@144", 144, 22),
        ("visionzip:keep=221,contextual=30", 221, 30), ("visionzip@64:contextual=0", 64, 0),
    ):  # fmt: skip
        solved = get_method(spec).solve(LLAVA)
        assert isinstance(solved, VisionZip)
        assert (solved.keep, solved.contextual, solved.counts()) == (keep, contextual, (keep,))
        assert solved.positions == "contiguous"
    assert [split(16), split(48), split(80)] == [2, 8, 12]  # of 2.5, 7.5, 12.5
    assert [split(tokens) for tokens in (1, 2, 3, 4)] == [0, 0, 0, 1]
    assert all(0 <= split(tokens) < tokens for tokens in range(1, 577))


def test_a_split_may_be_given_to_a_budget_of_bytes() -> None:
    aimed = get_method("visionzip@kv=25%:contextual=100").solve(KNOWN["llava-hf/llava-1.5-7b-hf"])
    assert isinstance(aimed, VisionZip)
    assert (aimed.keep, aimed.contextual) == (144, 100)


def point(grid: tuple[int, int], batch: int = 2, seed: int = 0, rows: slice = slice(None)) -> Any:
    """Before the LLM, with a projector that doubles."""
    cells = grid[0] * grid[1]
    vision = SimpleNamespace(
        features=normal(batch, cells, 4, seed=seed)[rows],
        cls_feature=normal(batch, 4, seed=seed + 9)[rows],
        queries=lambda layer: 4 * normal(batch, 2, 1 + cells, 3, seed=seed + {"own": 1, "next": 2}[layer])[rows],
        keys=lambda layer: normal(batch, 2, 1 + cells, 3, seed=seed + {"own": 3, "next": 4}[layer])[rows],
        project=lambda x: 2 * x,
    )
    kept = torch.ones(len(vision.features), cells, dtype=torch.bool)
    return SimpleNamespace(layer=0, grid=grid, kept=kept, hidden=2 * vision.features, vision=vision)


def read(decision: Any, here: Any, row: int) -> tuple[list[int], Tensor]:
    """Cells whose place is taken, and the tokens, in the order of the sequence."""
    stay = (decision.keep | decision.carry)[row]
    places = sorted(torch.where(stay)[0].tolist(), key=lambda cell: int(decision.order[row, cell]))
    new = (decision.carry | decision.rewrite)[row]
    return places, torch.where(new[:, None], decision.values[row], here.hidden[row])[places]


@pytest.mark.parametrize("spec", [
    "visionzip@20", "visionzip@34", "visionzip:keep=1", "visionzip:keep=5,contextual=4", "visionzip@20:contextual=0",
    "visionzip:keep=13,rule=paper",
])  # fmt: skip
def test_cls_comes_first_then_dominant_in_raster_order_then_contextual(spec: str) -> None:
    """On 5 x 7 cells. CLS takes the place of a dropped cell; everything is of the layer that is projected."""
    method: Any = get_method(spec).solve(Geometry(4, (5, 7)))
    here = point((5, 7))
    decision = method.decide(here)
    for row in range(2):
        vision = here.vision
        queries, keys = vision.queries("own")[row].tolist(), vision.keys("own")[row].tolist()
        attention, features = literal.class_attention(queries, keys), vision.features[row].tolist()
        truth = literal.visionzip(
            features, literal.metric(keys), attention, method.keep - method.contextual, method.contextual, method.rule
        )
        places, tokens = read(decision, here, row)
        assert places[1:] == truth.dominant + truth.targets
        assert places[0] not in places[1:]
        assert torch.where(decision.carry[row])[0].tolist() == places[:1]
        assert torch.where(decision.rewrite[row])[0].tolist() == truth.targets
        expected = [vision.cls_feature[row].tolist(), *(features[cell] for cell in truth.dominant), *truth.contextual]
        torch.testing.assert_close(tokens, 2 * floats(*expected), rtol=0, atol=1e-10)
        assert decision.count == len(places) == method.keep


def test_a_sample_of_a_batch_is_chosen_as_alone() -> None:
    method = get_method("visionzip@12").solve(Geometry(4, (6, 6)))
    here = point((6, 6), batch=3)
    together = method.decide(here)
    for row in range(3):
        lone = point((6, 6), batch=3, rows=slice(row, row + 1))
        alone = method.decide(lone)
        assert read(alone, lone, 0)[0] == read(together, here, row)[0]
        torch.testing.assert_close(read(alone, lone, 0)[1], read(together, here, row)[1], rtol=0, atol=1e-12)


def test_the_full_image_changes_nothing() -> None:
    decision = get_method("visionzip@35").solve(Geometry(4, (5, 7))).decide(point((5, 7)))
    assert decision.keep.all()
    assert decision.count == 35
    assert (decision.carry, decision.rewrite, decision.values, decision.order) == (None,) * 4


@pytest.mark.parametrize("spec", ["visionzip@20", "visionzip:keep=9,contextual=8,rule=paper", "visionzip@3"])
@torch.no_grad()
def test_stock_llava_answers_the_same_with_the_literal_tokens_put_in(spec: str) -> None:
    """The attention is what the tower itself reports, eagerly."""
    model, batch = sharp_llava(), make_batch((4, 6))
    tower, method = model.model.vision_tower, get_method(spec).solve(Geometry(5, (6, 6)))
    assert isinstance(method, VisionZip)
    assert method.keep is not None
    assert method.contextual is not None
    assert batch.pixels is not None
    states = tower(batch.pixels, output_hidden_states=True).hidden_states
    own = tower.encoder.layers[-2]
    keys = own.self_attn.k_proj(own.layer_norm1(states[-3]))[0].unflatten(-1, (2, 8)).transpose(0, 1)
    tower.set_attn_implementation("eager")
    attention = tower(batch.pixels, output_attentions=True).attentions[-2][0, :, 0, 1:].sum(0).tolist()
    tower.set_attn_implementation("sdpa")
    features = states[-2][0].tolist()
    truth = literal.visionzip(
        features[1:],
        literal.metric(keys.tolist()),
        attention,
        method.keep - method.contextual,
        method.contextual,
        method.rule,
    )
    tokens = [features[0], *(features[1 + cell] for cell in truth.dominant), *truth.contextual]
    expected = spliced(model, batch, model.model.multi_modal_projector(floats(*tokens)), steps=4)
    with prune(model, method) as pruned:
        found = step_by_step(model, batch, steps=4)[0]
        assert pruned.trace.tokens_per_layer().tolist() == [method.keep] * 5
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("spec", "message"), [
    ("visionzip", "needs a budget"), ("visionzip@64:keep=64", "not both"), ("visionzip:keep=0", "leaves nothing"),
    ("visionzip@64:rule=codes", "code"), ("visionzip:contextual=3", "needs a budget"),
])  # fmt: skip
def test_bad_parameters_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        get_method(spec)


@pytest.mark.parametrize(("spec", "message"), [
    ("visionzip@577", "only 576"), ("visionzip:keep=577", "keep=577 is out of range"),
    ("visionzip@10:contextual=10", "10 of 10 tokens are out of range"),
    ("visionzip:keep=9,contextual=-1", "-1 of 9 tokens are out of range"),
])  # fmt: skip
def test_what_does_not_fit_the_image_is_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        get_method(spec).solve(LLAVA)


def test_a_tower_without_cls_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="visionzip@64 needs a vision tower with a CLS token"):
        get_method("visionzip@64").solve(Geometry(32, (24, 24), has_cls=False))
