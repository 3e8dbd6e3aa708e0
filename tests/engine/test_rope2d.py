"""The image by rows and columns (2-D RoPE) against tables that are written down token by token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import atp as literal
from torch import Tensor

from atp_eval.engine import prune
from atp_eval.engine.layout import read_prompts
from atp_eval.engine.rope2d import coordinates, rotary_2d
from atp_eval.methods import Decision, Geometry, Method
from engine import tables
from engine.proofs import MODES, batch_equals_singles, mixed
from engine.small import IMAGE, Batch, answer, make_batch, small_llava, step_by_step
from engine.test_block import attached


@pytest.fixture(scope="module")
def model() -> Any:
    return small_llava()


class ByRowAndColumn(Method):
    """Keeps every cell; the image's positions are rows and columns."""

    name = "by_row_and_column"
    prune_layers = (1, 3)
    positions = "2d"

    def solve(self, geometry: Geometry) -> ByRowAndColumn:
        return self

    def decide(self, point: Any) -> Decision:
        return Decision(point.kept)


class Sparse(ByRowAndColumn):
    """Keeps every second cell from layer 1 on, every fourth from layer 3 on."""

    def decide(self, point: Any) -> Decision:
        cells = torch.arange(point.kept.shape[1]).expand(point.kept.shape)
        return Decision(cells % (point.layer + 1) == 0)


@torch.no_grad()
def slow_answer(model: Any, batch: Batch, steps: int) -> Tensor:
    """[steps, vocab] of one prompt, greedy, all of it computed again at every step with the tables as written."""
    ids, found = batch.ids, []
    with tables.as_written(model, ids[0]):
        for _ in range(steps):
            found.append(model(input_ids=ids, pixel_values=batch.pixels, use_cache=False).logits[:, -1])
            ids = torch.cat([ids, found[-1].argmax(-1, keepdim=True)], 1)
    return torch.cat(found)


rows = st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(1, 4)), min_size=1, max_size=4)


@given(shapes=rows, grid=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_coordinates_are_those_of_a_walk_along_the_prompt(
    shapes: list[tuple[int, bool, int]], grid: tuple[int, int]
) -> None:
    cells = grid[0] * grid[1]
    lists = [[1] * before + [IMAGE] * (cells if image else 0) + [2] * after for before, image, after in shapes]
    longest = max(map(len, lists))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in lists])
    layout = read_prompts(ids, ids > 0, IMAGE, cells).layout
    found = coordinates(layout, grid)
    assert found.shape == (2, len(lists), longest)
    for row, tokens in enumerate(lists):
        assert found[:, row, longest - len(tokens) :].T.tolist() == [
            list(place) for place in literal.coordinates(tokens, IMAGE, grid)
        ]


def test_the_coordinates_of_an_example() -> None:
    """Two words, an image of 2 x 3, one word: the image starts at 2, the word after it is at 2 + 3."""
    layout = read_prompts(torch.tensor([[5, 5, *[IMAGE] * 6, 5]]), None, IMAGE, 6).layout
    row, col = coordinates(layout, (2, 3))[:, 0].tolist()
    assert row == [0, 1, 2, 2, 2, 3, 3, 3, 5]
    assert col == [0, 1, 2, 3, 4, 2, 3, 4, 5]


def test_the_fast_half_of_the_frequencies_turns_with_the_row(model: Any) -> None:
    ids = make_batch((5, 9)).ids
    layout = read_prompts(ids, None, IMAGE, 36).layout
    like = torch.zeros(1, dtype=torch.float64)
    rotary, places = model.model.language_model.rotary_emb, coordinates(layout, (6, 6))
    truth = literal.rotary(literal.coordinates(ids[0].tolist(), IMAGE, (6, 6)), *tables.size_and_base(model))
    for found, table in zip(rotary_2d(rotary, like, places), truth, strict=True):
        torch.testing.assert_close(found, table, rtol=0, atol=1e-5)
    with tables.exact(model):
        for found, table in zip(rotary_2d(rotary, like, places), truth, strict=True):
            torch.testing.assert_close(found, table, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lengths", [(5, 9), (0, 1), (1, 20)])
def test_keeping_everything_equals_a_forward_pass_with_the_tables_as_written(
    model: Any, lengths: tuple[int, int]
) -> None:
    """The prompt, and four tokens after it: decoding goes on from the right position."""
    batch = make_batch(lengths)
    truth = slow_answer(model, batch, 5)
    with tables.exact(model), prune(model, ByRowAndColumn()):
        found = step_by_step(model, batch, 5)[0]
        generated = answer(model, batch, 5)
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-11)
    torch.testing.assert_close(generated.logits[0], truth.float(), rtol=0, atol=1e-6)
    with prune(model, ByRowAndColumn()):  # with the tables of transformers, which are fp32
        torch.testing.assert_close(step_by_step(model, batch, 5)[0], truth, rtol=0, atol=1e-4)
    with prune(model, "upper_bound"):
        assert (step_by_step(model, batch, 5)[0] - truth).abs().max() > 1e-2


@pytest.mark.parametrize("method", [ByRowAndColumn(), Sparse()])
@pytest.mark.parametrize("mode", ["greedy", "beams"])
def test_a_ragged_batch_equals_its_samples_alone(model: Any, mode: str, method: Method) -> None:
    batch_equals_singles(prune, model, method, mixed(), **MODES[mode])


@torch.no_grad()
def loop(model: Any, batch: Batch) -> Tensor:
    """[B, 3, vocab] by a greedy loop that passes masks and no positions: transformers then counts padding too."""
    found, given, cache = [], batch.inputs(), None
    for _ in range(3):
        out = model(**given, past_key_values=cache, use_cache=True)
        found.append(out.logits[:, -1])
        ids, cache = found[-1].argmax(-1, keepdim=True), out.past_key_values
        given = {"input_ids": ids, "attention_mask": torch.cat([given["attention_mask"], torch.ones_like(ids)], 1)}
    return torch.stack(found, 1)


@pytest.mark.parametrize("method", [ByRowAndColumn(), Sparse()])
def test_a_padded_loop_without_positions_equals_its_samples_alone(model: Any, method: Method) -> None:
    batch = make_batch((5, 9), 20, (3, 1))
    with prune(model, method):
        together = loop(model, batch)
        for row in range(len(batch.rows)):
            torch.testing.assert_close(together[row], loop(model, batch.single(row))[0], rtol=0, atol=1e-4)


def test_a_second_turn_goes_on_from_the_right_position(model: Any) -> None:
    batch = make_batch((5, 9))
    with prune(model, Sparse()):
        whole, first = answer(model, batch, steps=6), answer(model, batch, steps=3)
        ids = torch.cat([batch.ids, first.tokens], 1)
        turn = Batch(ids, torch.ones_like(ids), None, [ids[0]], [None])
        then = answer(model, turn, steps=3, past_key_values=first.cache)
    torch.testing.assert_close(then.logits, whole.logits[:, 3:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_prompts_without_an_image_are_answered_as_by_the_untouched_model(model: Any, mode: str) -> None:
    batch, words = mixed(), make_batch(12, 7)
    plain, alone = answer(model, batch, **MODES[mode]), answer(model, words, **MODES[mode])
    with prune(model, Sparse()):
        pruned = answer(model, batch, **MODES[mode])
        only = answer(model, words, **MODES[mode])
    text = [row for row, image in enumerate(batch.images) if image is None]
    assert text and torch.equal(pruned.tokens[text], plain.tokens[text])
    assert torch.equal(only.tokens, alone.tokens)
    if plain.logits is not None:
        torch.testing.assert_close(pruned.logits[text], plain.logits[text], rtol=0, atol=1e-6)
        assert torch.equal(only.logits, alone.logits)
        image = [row for row in range(len(batch.rows)) if row not in text]
        assert (pruned.logits[image] - plain.logits[image]).abs().max() > 1e-2


def test_nothing_stays_attached(model: Any) -> None:
    batch = mixed()
    plain, before = answer(model, batch).logits, attached(model)
    with prune(model, Sparse()):
        inside = answer(model, batch).logits
    assert not torch.equal(inside, plain)
    with pytest.raises(RuntimeError, match="inside"), prune(model, Sparse()):
        answer(model, batch)
        raise RuntimeError("inside")
    assert attached(model) == before
    assert torch.equal(answer(model, batch).logits, plain)
