"""PyramidDrop: what its card says, on cases worked out by hand, and against a slow version."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine.reference import Reference
from engine.small import make_batch, small_llava, step_by_step
from engine.test_syncs import reads
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import pyramiddrop as literal

from atp_eval.engine import prune
from atp_eval.errors import UserError
from atp_eval.methods import Geometry, get_method
from atp_eval.methods.budget import average_input
from atp_eval.methods.pyramiddrop import PyramidDrop, pyramid, solve_ratio

LLAVA, TINY, SMALL = Geometry(32, (24, 24)), Geometry(8, (24, 24)), Geometry(5, (6, 6))


# Counts and layers


def test_the_published_setting() -> None:
    method = get_method("pyramiddrop").solve(LLAVA)
    assert str(method) == "pyramiddrop:layers=8-16-24,keep=288-144-72" and method.label == "pyramiddrop"
    assert method.counts() == (288, 144, 72)
    assert average_input(LLAVA, (8, 16, 24), (288, 144, 72)) == 270
    assert method.positions == "contiguous"


@pytest.mark.parametrize(("ratio", "grid", "counts"), [
    (0.5, (5, 7), (17, 8, 4)),  # 17.5, 8.75, 4.375: cut off, where rounding would give 18, 9, 4
    (0.7, (6, 6), (25, 17, 12)),  # of 36 each time; of the stage before, the last would be int(11.9)
    (0.1, (6, 6), (3, 1, 1)),  # int(0.36) and int(0.036) would leave nothing
    (1.0, (6, 6), (36, 36, 36)),
    (0.9, (1, 1), (1, 1, 1)),
])  # fmt: skip
def test_counts_are_cut_off_shares_of_the_unpruned_number(
    ratio: float, grid: tuple[int, int], counts: tuple[int, ...]
) -> None:
    assert pyramid(ratio, 3, grid[0] * grid[1]) == counts
    assert get_method(f"pyramiddrop:ratio={ratio}").solve(Geometry(32, grid)).counts() == counts


def test_layers_are_scaled_and_budgets_have_their_own() -> None:
    def layers(spec: str, depth: int) -> tuple[int, ...]:
        return get_method(spec).solve(Geometry(depth, (24, 24))).prune_layers

    assert [layers("pyramiddrop", n) for n in (32, 40, 8, 5)] == [(8, 16, 24), (10, 20, 30), (2, 4, 6), (1, 2, 4)]
    assert [layers("pyramiddrop@300", n) for n in (32, 40, 8, 5)] == [(2, 8, 16), (2, 10, 20), (1, 2, 4), (1, 2, 3)]
    assert layers("pyramiddrop@300:layers=2-4-6-8", 32) == (2, 4, 6, 8)  # the other advice: four stages


@pytest.mark.parametrize(("average", "ratio"), [(192, 0.56), (144, 0.461), (128, 0.421), (88, 0.297), (64, 0.193)])
def test_lambda_is_solved_for_a_budget(average: int, ratio: float) -> None:
    """An author's example for small budgets is 0.19 with layers 2, 8, 16."""
    layers = (2, 8, 16)
    found = solve_ratio(average, layers, LLAVA)
    assert abs(found - ratio) < 0.001
    method = get_method(f"pyramiddrop@{average}").solve(LLAVA)
    assert method.prune_layers == layers and method.counts() == pyramid(found, 3, 576)
    error = abs(average_input(LLAVA, layers, pyramid(found, 3, 576)) - average)
    nearby = [pyramid(found + step / 1e5, 3, 576) for step in range(-200, 201)]
    assert error <= 0.25 and error == min(abs(average_input(LLAVA, layers, counts) - average) for counts in nearby)


@settings(max_examples=60, deadline=None)
@given(
    depth=st.integers(4, 48), rows=st.integers(1, 24), cols=st.integers(1, 24), average=st.integers(1, 600),
)  # fmt: skip
def test_budgets_are_met_or_refused_with_a_nearest_that_works(depth: int, rows: int, cols: int, average: int) -> None:
    geometry = Geometry(depth, (rows, cols))
    try:
        method = get_method(f"pyramiddrop@{average}").solve(geometry)
    except UserError as error:
        if "The nearest is " in str(error):
            nearest = str(error).partition("The nearest is ")[2].partition(";")[0]
            lowest = average_input(geometry, get_method(nearest).solve(geometry).prune_layers, (1, 1, 1))
            assert average + 0.5 < lowest <= int(nearest.partition("@")[2]) < lowest + 1
        else:
            assert average > geometry.cells
        return
    counts = method.counts()
    assert counts is not None and list(counts) == sorted(counts, reverse=True)
    assert abs(average_input(geometry, method.prune_layers, counts) - average) <= 0.5


@pytest.mark.parametrize(("spec", "message"), [
    ("pyramiddrop:ratio=0", "ratio=0.0 must be above 0 and at most 1"),
    ("pyramiddrop:ratio=1.1", "ratio=1.1 must be above 0 and at most 1"),
    ("pyramiddrop:ratio=nan", "ratio must be a number"),
    ("pyramiddrop@144:ratio=0.5", "ratio=0.5 goes without a budget and without keep"),
    ("pyramiddrop:ratio=0.5,keep=9-5-3", "ratio=0.5 goes without a budget and without keep"),
    ("pyramiddrop@144:keep=9-5-3", "give a budget (@144) or keep=9-5-3, not both"),
    ("pyramiddrop:keep=9-5-6", "keep=9-5-6 must fall"),
    ("pyramiddrop:layers=8-8", "layers=8-8 must rise"),
    ("pyramiddrop:layers=0-8-16", "layers=0-8-16 must start at 1 or later"),
    ("pyramiddrop:layers=8-16,keep=9-5-3", "2 layers need as many counts in keep, not 3"),
])  # fmt: skip
def test_wrong_parameters_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_method(spec)
    assert message in str(error.value)


@pytest.mark.parametrize(("spec", "geometry", "message"), [
    ("pyramiddrop@577", LLAVA, "an image has only 576 visual tokens"),
    ("pyramiddrop@20", LLAVA, "pyramiddrop@20 is out of reach with layers=2-8-16 of 32: those before layer 2 see all "
     "576 tokens. The nearest is pyramiddrop@37; earlier layers= go lower"),
    ("pyramiddrop@64:layers=8-16-24", LLAVA, "The nearest is pyramiddrop@145:layers=8-16-24;"),
    ("pyramiddrop@64", TINY, "The nearest is pyramiddrop@73;"),
    ("pyramiddrop@2", SMALL, "layer 1 see all 36 tokens. The nearest is pyramiddrop@8"),
    ("pyramiddrop:keep=577-5-3", LLAVA, "keep=577 is out of range"),
    ("pyramiddrop:keep=9-5", LLAVA, "3 layers need as many counts in keep, not 2"),
    ("pyramiddrop:layers=8-32", LLAVA, "layer=32 is not in this model"),
    ("pyramiddrop@144:layers=8-32", LLAVA, "layer=32 is not in this model"),
    ("pyramiddrop", Geometry(3, (6, 6)), "layer=3 is not in this model; it has layers 0 to 2"),
])  # fmt: skip
def test_what_does_not_fit_the_model_is_refused(spec: str, geometry: Geometry, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_method(spec).solve(geometry)
    assert message in str(error.value)
    assert ("go lower" in str(error.value)) == ("out of reach" in str(error.value) and geometry != SMALL)


# What stays


def test_the_most_attended_stay_in_raster_order_and_of_equal_ones_the_earlier() -> None:
    scores = torch.tensor([[0.1, 0.4, 0.1, -math.inf, 0.4, 0.2], [0.0, 0.0, 0.0, 0.0, -math.inf, 0.3]])
    method = PyramidDrop(layers=(1, 2), keep=(5, 3)).solve(Geometry(8, (2, 3)))
    for layer, kept in ((1, [[0, 1, 2, 4, 5], [0, 1, 2, 3, 5]]), (2, [[1, 4, 5], [0, 1, 5]])):
        point: Any = SimpleNamespace(layer=layer, coming_row=lambda: scores)
        decision = method.decide(point)
        assert [torch.where(row)[0].tolist() for row in decision.keep] == kept
        assert decision.count == len(kept[0]) and decision.order is None and decision.carry is None


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_pruned_model_equals_the_slow_version(heads: int) -> None:
    """The coming layer's own norm, projections and rotary embedding at the renumbered places, written out."""
    model, batch = small_llava(kv_heads=heads, layers=6), make_batch((4, 7))
    for norm in (layer.input_layernorm for layer in model.model.language_model.layers):
        norm.weight.data.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
    slow = literal.LiteralPyramidDrop((1, 3, 5), (18, 9, 4))
    reference = Reference(model, slow)  # type: ignore[arg-type]
    truth = reference.logits_of(batch, 3)
    seen: dict[int, torch.Tensor] = {}

    class Watching(PyramidDrop):
        def decide(self, point: Any) -> Any:
            seen[point.layer] = point.coming_row()
            return super().decide(point)

    with prune(model, Watching(layers=(1, 3, 5), keep=(18, 9, 4))) as pruned:
        found = step_by_step(model, batch, 3)[0]
        trace = pruned.trace
    for layer, scores in slow.scores.items():
        # transformers makes its rotary tables in fp32, the slow version in fp64
        torch.testing.assert_close(seen[layer][0], torch.tensor(scores, dtype=torch.float64), rtol=0, atol=1e-6)
    for layer in range(6):
        assert trace.keep_at(layer).tolist() == reference.kept[layer].tolist()
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-10)


def test_the_layer_that_is_entered_scores_not_the_one_before() -> None:
    """Or the literal version would prove little."""
    model, batch = small_llava(), make_batch((4, 7))
    rows: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Watching(PyramidDrop):
        def decide(self, point: Any) -> Any:
            rows.append((point.coming_row(), point.last_row()))
            return super().decide(point)

    with prune(model, Watching(keep=(18, 9, 4))):
        step_by_step(model, batch, 1)
    assert all((a.argsort() != b.argsort()).any() for a, b in rows)


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 24), cols=st.integers(1, 24), halvings=st.integers(1, 4))
def test_published_counts_equal_the_slow_version(rows: int, cols: int, halvings: int) -> None:
    ratios = [0.5, 0.25, 0.125, 0.0625][:halvings]
    assert list(pyramid(0.5, halvings, rows * cols)) == [max(1, n) for n in literal.counts(ratios, rows * cols)]


def test_a_batch_of_unequal_prompts_is_pruned_like_its_samples() -> None:
    """On the slow point, so that it is not the engine compared with itself."""
    model, batch = small_llava(), make_batch((5, 9), (2, 3))
    with prune(model, "pyramiddrop:layers=1-3,keep=14-6") as pruned:
        step_by_step(model, batch, 1)
        traces = pruned.traces
    for row in range(2):
        reference = Reference(model, PyramidDrop(layers=(1, 3), keep=(14, 6)))
        reference.logits_of(batch.single(row), 1)
        for layer in range(5):
            assert traces[row].keep_at(layer).tolist() == reference.kept[layer].tolist()


def test_choosing_never_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads(monkeypatch, "pyramiddrop") == 0
