"""PruMerge and PruMerge+ as methods: counts, batches, stock LLaVA with the tokens put in, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine.small import make_batch, step_by_step
from reference import prumerge as literal
from torch import Tensor

from atp_eval.engine import prune
from atp_eval.errors import UserError
from atp_eval.methods import Geometry, get_method
from methods.outliers import LLAVA, floats, normal
from methods.spliced import sharp_llava, spliced

# The method


def point(grid: tuple[int, int], batch: int = 2, seed: int = 0) -> Any:
    """Before the LLM, with a projector that doubles."""
    cells = grid[0] * grid[1]
    vision = SimpleNamespace(
        features=normal(batch, cells, 4, seed=seed),
        queries=lambda layer: 4 * normal(batch, 2, 1 + cells, 3, seed=seed + {"own": 1, "next": 2}[layer]),
        keys=lambda layer: normal(batch, 2, 1 + cells, 3, seed=seed + {"own": 3, "next": 4}[layer]),
        project=lambda x: 2 * x,
    )
    return SimpleNamespace(layer=0, grid=grid, kept=torch.ones(batch, cells, dtype=torch.bool), vision=vision)


def read(decision: Any, row: int) -> tuple[list[int], Tensor]:
    """Cells whose place is taken, and the tokens, in the order of the sequence."""
    stay = (decision.keep | decision.carry)[row]
    places = sorted(torch.where(stay)[0].tolist(), key=lambda cell: int(decision.order[row, cell]))
    return places, decision.values[row, places]


@pytest.mark.parametrize("spec", [
    "prumerge", "prumerge_plus", "prumerge:keep=5", "prumerge_plus:keep=5,rule=paper", "prumerge_plus@15",
    "prumerge_plus:ratio=1/4", "prumerge:ratio=1/3,neighbours=2", "prumerge_plus:keep=1", "prumerge:keep=34",
])  # fmt: skip
def test_tokens_are_read_high_ones_first_then_the_line_then_the_extra_one(spec: str) -> None:
    """On 5 x 7 cells; the scores and keys are those of the layer after the projected one, the values are projected."""
    method: Any = get_method(spec).solve(Geometry(4, (5, 7)))
    here = point((5, 7))
    decision = method.decide(here)
    flat = here.vision.keys("next")[:, :, 1:].transpose(1, 2).flatten(2)
    for row in range(2):
        a = literal.class_attention(here.vision.queries("next")[row].tolist(), here.vision.keys("next")[row].tolist())
        kept = literal.adaptive(a, method.plus)
        if method.keep is not None:
            kept = literal.exact(a, method.keep, method.plus)
        if method.ratio is not None:
            kept = literal.fixed(a, method.ratio, method.plus)
        assert kept or method.keep == 1
        truth = literal.prumerge(
            here.vision.features[row].tolist(), flat[row].tolist(), a, kept, method.neighbours, method.rule
        )
        places, tokens = read(decision, row)
        torch.testing.assert_close(tokens, 2 * floats(*truth.tokens), rtol=0, atol=1e-10)
        owned = [cell if cell not in kept[:i] else None for i, cell in enumerate(kept)] + [None] * bool(truth.others)
        for place, cell in zip(places, owned, strict=True):
            assert place == cell if cell is not None else place not in kept
        assert torch.where(decision.keep[row])[0].tolist() == sorted(set(kept))
        assert decision.count in (None, len(places))
        assert method.counts() in (None, (len(places),))
    assert torch.equal(decision.rewrite, decision.keep)
    assert not (decision.keep & decision.carry).any()


def test_counts_are_exact_or_the_images_own() -> None:
    for spec, count in (
        ("prumerge@144", 144), ("prumerge_plus@144", 144), ("prumerge_plus:ratio=1/8", 145), ("prumerge:ratio=1/8", 73),
        ("prumerge:keep=33", 33),
    ):  # fmt: skip
        assert get_method(spec).solve(LLAVA).counts() == (count,)
    assert get_method("prumerge").solve(LLAVA).counts() is None
    assert get_method("prumerge_plus").solve(LLAVA).counts() is None
    assert get_method("prumerge").solve(LLAVA).positions == "contiguous"


def test_a_sample_of_a_batch_is_chosen_as_alone() -> None:
    """Their adaptive counts differ."""
    here = point((6, 6), batch=4, seed=11)
    method = get_method("prumerge_plus").solve(Geometry(4, (6, 6)))
    together = method.decide(here)
    assert together.carry is not None
    assert len(set((together.keep | together.carry).sum(1).tolist())) > 1
    for row in range(4):
        alone = point((6, 6), batch=4, seed=11)
        for name in ("queries", "keys"):
            of_all = getattr(here.vision, name)
            setattr(alone.vision, name, lambda layer, f=of_all, r=row: f(layer)[r : r + 1])
        alone.vision.features, alone.kept = here.vision.features[row : row + 1], here.kept[row : row + 1]
        single = method.decide(alone)
        assert read(single, 0)[0] == read(together, row)[0]
        torch.testing.assert_close(read(single, 0)[1], read(together, row)[1], rtol=0, atol=1e-12)


def test_the_full_image_changes_nothing() -> None:
    for spec in ("prumerge@35", "prumerge_plus:keep=35"):
        decision = get_method(spec).solve(Geometry(4, (5, 7))).decide(point((5, 7)))
        assert decision.keep.all()
        assert decision.count == 35
        assert (decision.carry, decision.rewrite, decision.values, decision.order) == (None,) * 4


@pytest.mark.parametrize(
    "spec", ["prumerge", "prumerge_plus", "prumerge_plus@17", "prumerge_plus:ratio=1/4", "prumerge:keep=7,rule=paper"]
)
@torch.no_grad()
def test_stock_llava_answers_the_same_with_the_literal_tokens_put_in(spec: str) -> None:
    model, batch = sharp_llava(), make_batch((4, 6))
    tower, method = model.model.vision_tower, get_method(spec).solve(Geometry(5, (6, 6)))
    assert batch.pixels is not None
    entering = tower(batch.pixels, output_hidden_states=True).hidden_states[-2]  # the last layer's input
    last = tower.encoder.layers[-1]
    query, key = (
        getattr(last.self_attn, name)(last.layer_norm1(entering))[0].tolist() for name in ("q_proj", "k_proj")
    )
    a = literal.class_attention([query], [key])
    kept = literal.adaptive(a, "plus" in spec)
    if "@17" in spec or "keep" in spec:
        kept = literal.exact(a, 17 if "@17" in spec else 7, "plus" in spec)
    elif "ratio" in spec:
        kept = literal.fixed(a, 0.25, True)
    assert kept
    tokens = literal.prumerge(
        entering[0, 1:].tolist(), key[1:], a, kept, 32, "paper" if "paper" in spec else "code"
    ).tokens
    truth = spliced(model, batch, model.model.multi_modal_projector(floats(*tokens)), steps=4)
    with prune(model, method) as pruned:
        found = step_by_step(model, batch, steps=4)[0]
        assert pruned.trace.tokens_per_layer().tolist() == [len(tokens)] * 5
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("spec", "message"), [
    ("prumerge@144:keep=144", "give one of"), ("prumerge:keep=9,ratio=1/8", "give one of"),
    ("prumerge:keep=0", "keep=0 leaves nothing"), ("prumerge_plus:ratio=0", "above 0 and below 1"),
    ("prumerge:ratio=1", "above 0 and below 1"), ("prumerge:neighbours=0", "at least 1"),
    ("prumerge:rule=codes", "code"), ("prumerge:tokens=5", "tokens"),
])  # fmt: skip
def test_bad_parameters_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        get_method(spec)


@pytest.mark.parametrize(("spec", "message"), [
    ("prumerge@577", "only 576"), ("prumerge:keep=577", "keep=577 is out of range"),
    ("prumerge:ratio=0.001", "keeps none of 576"), ("prumerge_plus:ratio=0.6", "makes 921 tokens"),
])  # fmt: skip
def test_what_does_not_fit_the_image_is_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        get_method(spec).solve(LLAVA)


@pytest.mark.parametrize("name", ["prumerge", "prumerge_plus"])
def test_a_tower_without_cls_is_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=rf"{name}@144 needs a vision tower with a CLS token"):
        get_method(f"{name}@144").solve(Geometry(32, (24, 24), has_cls=False))
