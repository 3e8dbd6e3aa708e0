"""The controls that know the ground truth: what stays first, and what is drawn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine.small import answer, make_batch, small_llava
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import truth as literal

from atp_eval.engine import prune
from atp_eval.errors import UserError
from atp_eval.methods import Geometry, get_method
from atp_eval.methods.random import random_scores

GRID = (3, 4)


def point(*asked: list[int], names: tuple[str, ...] | None = None) -> Any:
    known = torch.zeros(len(asked), 12, dtype=torch.bool)
    for row, cells in enumerate(asked):
        known[row, cells] = True
    ids = names or tuple(f"sample {i}" for i in range(len(asked)))
    return SimpleNamespace(kept=torch.ones(len(asked), 12, dtype=torch.bool), grid=GRID, asked=known, sample_ids=ids)


def kept(spec: str, at: Any) -> list[list[int]]:
    decision = get_method(spec).solve(Geometry(5, GRID)).decide(at)
    assert decision.count is not None and decision.carry is None and decision.order is None
    return [torch.where(row)[0].tolist() for row in decision.keep]


def test_the_oracle_keeps_what_is_asked_about_before_all_else() -> None:
    asked = [2, 5, 11]
    assert kept("oracle:keep=3", point(asked)) == [asked]
    for count in (1, 2):
        assert set(kept(f"oracle:keep={count}", point(asked))[0]) < set(asked)
    (more,) = kept("oracle:keep=7", point(asked))
    assert set(asked) < set(more) and len(more) == 7


def test_the_background_keeps_all_else_before_what_is_asked_about() -> None:
    asked = [2, 5, 11]
    others = [0, 1, 3, 4, 6, 7, 8, 9, 10]
    assert kept("background:keep=9", point(asked)) == [others]
    assert set(kept("background:keep=4", point(asked))[0]) < set(others)
    (more,) = kept("background:keep=10", point(asked))
    assert set(others) < set(more) and len(more) == 10


def test_the_rest_is_drawn_by_sample_and_seed_as_random_does() -> None:
    """Nothing asked about, or everything: both controls are `random`."""
    nothing, everything = [], list(range(12))
    drawn = kept("random:keep=5,seed=2", point(nothing, everything))
    assert kept("oracle:keep=5,seed=2", point(nothing, everything)) == drawn
    assert kept("background:keep=5,seed=2", point(nothing, everything)) == drawn
    assert kept("oracle:keep=5,seed=3", point(nothing, everything)) != drawn
    assert drawn[0] != drawn[1]


def test_a_sample_keeps_the_same_in_any_batch() -> None:
    together = kept("oracle:keep=6", point([1, 2, 3], [], list(range(8))))
    for row, asked in enumerate(([1, 2, 3], [], list(range(8)))):
        assert kept("oracle:keep=6", point(asked, names=(f"sample {row}",))) == [together[row]]


@pytest.mark.parametrize("name", ["oracle", "background"])
def test_one_token_and_all_tokens(name: str) -> None:
    assert [len(row) for row in kept(f"{name}:keep=1", point([3], []))] == [1, 1]
    assert kept(f"{name}:keep=12", point([3], [])) == [list(range(12))] * 2


@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=st.integers(0, 1000), name=st.sampled_from(["oracle", "background"]))
def test_equals_the_literal_version(data: st.DataObject, seed: int, name: str) -> None:
    rows, cols, batch = (data.draw(st.integers(1, high)) for high in (6, 6, 3))
    cells = rows * cols
    count = data.draw(st.integers(1, cells))
    asked = [sorted(data.draw(st.sets(st.integers(0, cells - 1)))) for _ in range(batch)]
    names = [f"{seed} {i}" for i in range(batch)]
    known = torch.zeros(batch, cells, dtype=torch.bool)
    for row, those in enumerate(asked):
        known[row, those] = True
    at: Any = SimpleNamespace(kept=torch.ones_like(known), grid=(rows, cols), asked=known, sample_ids=names)
    method = get_method(f"{name}:keep={count},seed={seed}").solve(Geometry(5, (rows, cols)))
    found = method.decide(at)
    drawn = random_scores(seed, names, cells).tolist()
    assert found.count == count
    for row in range(batch):
        expected = literal.keep(asked[row], drawn[row], count, name)
        assert torch.where(found.keep[row])[0].tolist() == expected


@pytest.mark.parametrize(("spec", "message"), [
    ("oracle", "oracle needs a budget: write oracle@144 or oracle:keep=72"),
    ("background:keep=0", "background: keep=0 leaves nothing"),
    ("oracle@9:seed=-1", "oracle: seed=-1 must not be negative"),
    ("background:layer=-1,keep=9", "background: layer=-1 is too small; the first is 0"),
])  # fmt: skip
def test_bad_parameters_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_method(spec)
    assert message in str(error.value)


def test_the_layer_and_count_are_those_of_random() -> None:
    llava = Geometry(32, (24, 24))
    for name in ("oracle", "background"):
        assert str(get_method(f"{name}@144").solve(llava)) == f"{name}:layer=2,keep=115"
        assert str(get_method(f"{name}@144:layer=0").solve(llava)) == f"{name}:layer=0,keep=144"


def test_the_engine_hands_over_the_cells_of_each_question() -> None:
    """Prompts with and without an image, padded; the second question is about nothing."""
    model, batch = small_llava(), make_batch((5, 9), 20, (3, 14))
    asked = [(7, 8, 14), None, (35,)]
    with prune(model, "oracle:layer=2,keep=3", sample_ids=range(3), asked=asked) as pruned:
        answer(model, batch, steps=1)
        first, _, last = pruned.traces
    assert torch.where(torch.tensor(first.keep_at(2)))[0].tolist() == [7, 8, 14]
    assert torch.tensor(last.keep_at(2))[35] and last.keep_at(2).sum() == 3


@pytest.mark.parametrize("asked", [None, [None]])
def test_without_ground_truth_the_run_is_refused(asked: Any) -> None:
    model = small_llava()
    with pytest.raises(UserError, match="ground truth"), prune(model, "background:layer=1,keep=3", asked=asked):
        answer(model, make_batch((5, 9)), steps=1)
