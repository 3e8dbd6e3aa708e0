"""Down-sampling: which picture is encoded again, where its tokens go, and that the LLM reads just those."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine.small import IMAGE, answer, make_batch, small_llava, step_by_step
from engine.test_syncs import reads
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import downsample as literal
from torch.nn.functional import interpolate

from atp_eval.engine import prune
from atp_eval.errors import UserError
from atp_eval.methods import Geometry, get_method
from atp_eval.methods.bins import middle_cells
from atp_eval.methods.downsample import Downsample

LLAVA = Geometry(32, (24, 24))


class Picture:
    """A point before the LLM whose pictures, encoded again, give known numbers."""

    layer = 0

    def __init__(self, rows: int, cols: int) -> None:
        self.grid, self.asked_for = (rows, cols), []  # type: ignore[var-annotated]
        self.kept = torch.ones(2, rows * cols, dtype=torch.bool)
        self.hidden = torch.randn(2, rows * cols, 3, dtype=torch.float64)
        self.vision = SimpleNamespace(encode_resized=self.encode_resized)

    def encode_resized(self, rows: int, cols: int) -> torch.Tensor:
        self.asked_for.append((rows, cols))
        count = rows * cols
        return torch.arange(1.0, 2 * count * 3 + 1, dtype=torch.float64).view(2, count, 3)


@pytest.mark.parametrize(("grid", "shape"), [((6, 6), (3, 3)), ((6, 6), (2, 5)), ((5, 7), (4, 3)), ((5, 7), (1, 1))])
def test_tokens_take_the_middles_of_their_parts_in_raster_order(grid: tuple[int, int], shape: tuple[int, int]) -> None:
    point: Any = Picture(*grid)
    method = get_method(f"downsample:rows={shape[0]},cols={shape[1]}").solve(Geometry(4, grid))
    decision = method.decide(point)
    assert point.asked_for == [shape] and decision.count == shape[0] * shape[1]
    assert not decision.keep.any() and decision.carry is not None and decision.values is not None
    assert decision.order is None and decision.rewrite is None
    cells = literal.middles(*shape, grid)
    for sample in range(2):
        assert torch.where(decision.carry[sample])[0].tolist() == cells
        assert torch.equal(decision.values[sample, cells], Picture.encode_resized(point, *shape)[sample])


def test_the_middles_by_hand() -> None:
    assert middle_cells(2, 2, (4, 4)) == [5, 7, 13, 15]
    assert middle_cells(1, 3, (3, 3)) == [3, 4, 5]
    assert middle_cells(2, 3, (2, 4)) == [0, 2, 3, 4, 6, 7]


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 24), cols=st.integers(1, 24), data=st.data())
def test_places_equal_the_literal_version_on_any_grid(rows: int, cols: int, data: st.DataObject) -> None:
    shape = data.draw(st.integers(1, rows)), data.draw(st.integers(1, cols))
    cells = middle_cells(*shape, (rows, cols))
    assert cells == literal.middles(*shape, (rows, cols))
    assert cells == sorted(set(cells)) and cells[-1] < rows * cols


def test_the_full_size_encodes_nothing_and_keeps_all() -> None:
    point: Any = Picture(5, 7)
    for spec in ("downsample@35", "downsample:rows=5,cols=7", "downsample@35:positions=1d"):
        decision = get_method(spec).solve(Geometry(4, (5, 7))).decide(point)
        assert decision.keep.all() and decision.count == 35
        assert decision.carry is None and decision.values is None and decision.order is None
    assert point.asked_for == []


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 12), cols=st.integers(1, 12), average=st.integers(1, 144))
def test_a_budget_is_met_exactly_or_refused_with_the_nearest(rows: int, cols: int, average: int) -> None:
    geometry, grid = Geometry(8, (rows, cols)), (rows, cols)
    wanted = literal.shape(average, grid)
    try:
        method = get_method(f"downsample@{average}").solve(geometry)
    except UserError as error:
        assert wanted is None
        if average <= rows * cols:
            nearest = int(str(error).rpartition("downsample@")[2])
            found = min(
                (n for n in range(1, rows * cols + 1) if literal.shape(n, grid)), key=lambda n: abs(n - average)
            )
            assert nearest == found
        return
    assert wanted is not None and isinstance(method, Downsample) and method.rows and method.cols
    assert method.counts() == (average,) == (method.rows * method.cols,)
    stretch = [max(a / b, b / a) for a, b in ((rows / r, cols / c) for r, c in (wanted, (method.rows, method.cols)))]
    assert stretch[0] == pytest.approx(stretch[1], abs=1e-9)


def test_the_default_numbers_tokens_without_gaps_and_1d_by_their_middles() -> None:
    assert get_method("downsample@144").positions == "contiguous"
    assert get_method("downsample@144:positions=1d").positions == "1d"
    assert get_method("downsample@144:positions=1d").label == "downsample@144:positions=1d"
    assert str(get_method("downsample@144").solve(LLAVA)) == "downsample:rows=12,cols=12"


@pytest.mark.parametrize(("spec", "message"), [
    ("downsample", "downsample needs a budget or a shape: write downsample@144"),
    ("downsample:rows=3", "downsample needs a budget or a shape"),
    ("downsample@9:rows=3,cols=3", "downsample needs a budget or a shape"),
    ("downsample:rows=0,cols=3", "downsample: rows=0, cols=3 must be at least 1"),
    ("downsample@0", "downsample@0: the budget"),
    ("downsample@144:positions=2d", "unknown value of positions for downsample '2d'"),
])  # fmt: skip
def test_bad_parameters_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_method(spec)
    assert message in str(error.value)


@pytest.mark.parametrize(("spec", "message"), [
    ("downsample@131", "no 131 bins on 24 x 24 cells are nearly square. The nearest is downsample@130"),
    ("downsample@577", "downsample@577: an image has only 576"),
    ("downsample:rows=25,cols=3", "downsample: 25 x 3 bins do not fit a grid of 24 x 24"),
])  # fmt: skip
def test_what_does_not_fit_the_picture_is_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_method(spec).solve(LLAVA)
    assert message in str(error.value)


def test_placing_casts_to_the_width_of_the_hidden_states() -> None:
    like = torch.zeros(1, 4, 2, dtype=torch.float64)
    decision = Downsample(rows=2, cols=1).placed(torch.ones(1, 2, 2), (2, 2), like)
    assert decision.values is not None and decision.values.dtype == torch.float64 and decision.count == 2
    assert decision.values[0].sum(1).tolist() == [0.0, 2.0, 0.0, 2.0]


@torch.no_grad()
def test_the_model_answers_as_if_it_were_given_the_small_picture() -> None:
    """The stock LLM on the prompt with 6 tokens of the picture at 3 x 2 patches in the place of 36."""
    model, batch = small_llava(), make_batch((5, 9))
    pixels = interpolate(batch.pixels.float(), (24, 16), mode="bicubic", antialias=True).double()  # type: ignore[union-attr]
    tokens = model.model.get_image_features(pixel_values=pixels, interpolate_pos_encoding=True).pooler_output[0]
    with prune(model, "downsample:rows=3,cols=2") as pruned:
        found = step_by_step(model, batch, 3)[0]
        assert pruned.trace.tokens_per_layer().tolist() == [6] * 5
    words, image = model.get_input_embeddings(), batch.ids[0] == IMAGE
    first = int(image.int().argmax())
    embeds = torch.cat([words(batch.ids[0, :first]), tokens, words(batch.ids[0, first + 36 :])])[None]
    for step in range(3):
        hidden = model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        torch.testing.assert_close(found[step], model.lm_head(hidden[0, -1]), rtol=0, atol=1e-10)
        embeds = torch.cat([embeds, words(found[step].argmax()[None, None])], 1)


@torch.no_grad()
def test_each_sample_of_a_batch_reads_its_own_picture() -> None:
    model, batch = small_llava(), make_batch((5, 9), (2, 4))
    with prune(model, "downsample@9"):
        together = answer(model, batch)
        alone = [answer(model, batch.single(row)) for row in range(2)]
    assert together.logits is not None
    for row, one in enumerate(alone):
        assert one.logits is not None
        torch.testing.assert_close(together.logits[row], one.logits[0], rtol=0, atol=1e-5)
    assert not torch.allclose(together.logits[0], together.logits[1])


def test_nothing_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads(monkeypatch, "downsample:rows=3,cols=2") == 0
