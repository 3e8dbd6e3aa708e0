"""Budgets: the papers' figures, and every depth and grid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from engine.small import answer, make_batch, small_llava
from hypothesis import given, settings
from hypothesis import strategies as st

from atp_eval.cost import KNOWN, ModelGeometry, Place, VisionGeometry, averages, tokens_per_layer
from atp_eval.cost.calibration import Calibration, calibration_path, find_calibration, save_calibration
from atp_eval.cost.flops import engine_prefill
from atp_eval.engine import model_geometry, prune
from atp_eval.errors import UserError
from atp_eval.methods import Geometry, Method, get_method, method_names
from atp_eval.methods.budget import average_input, scale_layer
from atp_eval.methods.fastv import FastV
from atp_eval.methods.grid import uniform_cells, uniform_order
from atp_eval.methods.pool import Pool
from atp_eval.methods.schedule import Schedule
from atp_eval.paper import printed_tables

LLAVA, TINY = Geometry(32, (24, 24)), Geometry(8, (24, 24))
LLAVA_7B = KNOWN["llava-hf/llava-1.5-7b-hf"]
HERE = Place("an abacus, 2 threads", "float32", "sdpa")


@pytest.mark.parametrize(("layer", "counts"), [(2, (166, 115, 98, 55, 30)), (3, (152, 99, 82, 38, 11))])
def test_fastv_counts_for_the_papers_budgets(layer: int, counts: tuple[int, ...]) -> None:
    for average, count in zip((192, 144, 128, 88, 64), counts, strict=True):
        solved = get_method(f"fastv@{average}:layer={layer}").solve(LLAVA)
        assert isinstance(solved, FastV) and solved.keep == count


def test_the_default_layer_is_the_papers_on_its_depth_and_leaves_room_on_others() -> None:
    assert [scale_layer(2, n) for n in (1, 8, 16, 24, 32, 40, 80)] == [1, 1, 1, 2, 2, 2, 5]
    for name in ("fastv", "random", "grid"):  # equal schedules, so that only the choice differs
        assert str(get_method(f"{name}@144").solve(LLAVA)) == f"{name}:layer=2,keep=115"
        assert str(get_method(f"{name}@144").solve(TINY)) == f"{name}:layer=1,keep=82"
    assert str(get_method("fastv").solve(LLAVA)) == "fastv:layer=2,keep=288"


def test_table_2_averages_reproduce() -> None:
    """ATP-LLaVA, Tab. 2, from the figures that ship: the exact averages of what is printed as 144 and 88."""
    rows = printed_tables()["pruning_strategy"]["rows"]
    found = [average_input(LLAVA, row["layers"], row["kept"]) for row in rows]
    assert found == [576, 143.9375, 144.0, 144.25, 143.875, 87.875]
    assert [round(average) for average in found] == [row["tokens"] for row in rows]


def test_schedules_solve_for_their_budget() -> None:
    assert str(get_method("schedule@144").solve(LLAVA)) == "schedule:layers=4-14-24,keep=135-68-34"
    assert str(get_method("schedule@144:ratio=1/3").solve(LLAVA)).startswith("schedule:layers=4-14-24,keep=162-54-18")
    assert str(get_method("schedule@144").solve(TINY)).startswith("schedule:layers=1-4-6,")


@settings(max_examples=150, deadline=None)
@given(
    num_layers=st.integers(2, 48), rows=st.integers(1, 24), cols=st.integers(1, 24), average=st.integers(1, 600),
    name=st.sampled_from(["fastv", "random", "grid", "schedule"]),
)  # fmt: skip
def test_budgets_are_met_or_refused_with_a_nearest_that_works(
    num_layers: int, rows: int, cols: int, average: int, name: str
) -> None:
    geometry = Geometry(num_layers, (rows, cols))
    try:
        solved = get_method(f"{name}@{average}").solve(geometry)
    except UserError as error:
        if "The nearest is " in str(error):
            nearest = str(error).partition("The nearest is ")[2].partition(";")[0]
            get_method(nearest).solve(geometry)
        return
    keep = solved.keep if isinstance(solved.keep, tuple) else (solved.keep,)  # type: ignore[attr-defined]
    assert len(keep) == len(solved.prune_layers) and all(1 <= k <= rows * cols for k in keep)
    found = average_input(geometry, solved.prune_layers, keep)
    room = (num_layers - solved.prune_layers[0]) / num_layers
    assert abs(found - average) <= max(0.5, room * (1.5 if isinstance(solved, Schedule) else 0.5)) + 1e-9


@settings(max_examples=200, deadline=None)
@given(rows=st.integers(1, 24), cols=st.integers(1, 24), data=st.data())
def test_uniform_cells_are_as_many_as_asked_and_even(rows: int, cols: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, rows * cols))
    cells = uniform_cells(count, (rows, cols))
    assert (
        len(cells) == count == len(set(cells)) and cells == sorted(cells) and cells[0] >= 0 and cells[-1] < rows * cols
    )
    per_row = [sum(cell // cols == row for cell in cells) for row in range(rows)]
    assert max(per_row) - min(n for n in per_row if n) <= 1


def test_uniform_cells_of_a_square_are_a_lattice() -> None:
    cells = uniform_cells(144, (24, 24))
    assert {cell // 24 for cell in cells} == {cell % 24 for cell in cells} == set(range(1, 24, 2))
    assert sorted(uniform_order((5, 7))) == list(range(35))
    first = [divmod(cell, 24) for cell in uniform_order((24, 24))[:5]]
    assert min(max(abs(a - c), abs(b - d)) for (a, b) in first for (c, d) in first if (a, b) != (c, d)) >= 11


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 24), cols=st.integers(1, 24), average=st.integers(1, 576))
def test_pooled_grids_have_exactly_the_budget(rows: int, cols: int, average: int) -> None:
    geometry = Geometry(8, (rows, cols))
    try:
        solved = get_method(f"pool@{average}").solve(geometry)
    except UserError:
        return
    assert isinstance(solved, Pool) and solved.rows and solved.cols
    assert solved.rows * solved.cols == average and solved.rows <= rows and solved.cols <= cols


# ------------------------------------------------------------------ bytes, FLOPs, time


def in_layers(solved: Method, geometry: Geometry) -> list[int]:
    counts = solved.counts()
    assert counts is not None
    return tokens_per_layer(geometry, solved.prune_layers, counts)


def cost(kind: str, geometry: ModelGeometry, tokens: list[int], early: bool = False) -> float:
    """Of the three kinds of budgets, by the formulas themselves; early: of the method."""
    if kind == "kv":
        return sum(tokens) * 2 * 2 * geometry.kv_heads * geometry.head_dim
    if kind == "flops":
        return engine_prefill(geometry, [count + 64 for count in tokens], geometry.cells + 64, early).total
    return find_calibration(geometry).seconds(tokens)


@pytest.fixture
def times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder."""
    monkeypatch.setenv("ATP_EVAL_CACHE", str(tmp_path))
    yield tmp_path


def test_what_75_6_mb_and_their_likes_are() -> None:
    """144 tokens on average are 75.5 MB in bf16; 75.6 leave room for nothing more."""
    assert str(get_method("fastv@kv=75.6MB").solve(LLAVA_7B)) == "fastv:layer=2,keep=115"
    assert str(get_method("grid@kv=75.6MB:layer=0").solve(LLAVA_7B)) == "grid:layer=0,keep=144"
    assert str(get_method("grid@kv=72MiB:layer=0").solve(LLAVA_7B)) == "grid:layer=0,keep=144"  # 75.497472 MB
    assert str(get_method("grid@kv=25%:layer=0").solve(LLAVA_7B)) == "grid:layer=0,keep=144"
    assert str(get_method("grid@kv=75.497471MB:layer=0").solve(LLAVA_7B)) == "grid:layer=0,keep=143"
    assert str(get_method("grid@kv=100%:layer=0").solve(LLAVA_7B)) == "grid:layer=0,keep=576"


def test_a_pruned_model_keeps_to_its_target() -> None:
    model, batch = small_llava(), make_batch((5, 9), (3, 4))
    full = 36 * 5 * 2 * 2 * 8 * 2  # tokens, layers, key and value, key heads, their size, bf16
    for spec in ("grid@kv=50%", "random@kv=5.76kB", "pool@flops=70%"):
        with prune(model, spec) as pruned:
            answer(model, batch, steps=2)
            assert pruned.method.label == spec
            tokens = pruned.traces[1].tokens_per_layer()
        if "kv" in spec:
            assert full * 0.45 < int(tokens.sum()) * 2 * 2 * 8 * 2 <= full / 2 == 5760
        else:
            assert tokens.tolist() == in_layers(pruned.method, model_geometry(model.config)) and tokens[0] < 36


def above(name: str, average: int) -> Iterator[list[int]]:
    """Tokens in the layers for each average above that can be had; pool has no grid of 145 bins."""
    for more in range(average + 1, 577):
        with suppress(UserError):
            yield in_layers(get_method(f"{name}@{more}").solve(LLAVA_7B), LLAVA_7B)


COUNTED = [name for name in method_names() if name not in ("upper_bound", "atp")]


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("budget", ["kv=75.6MB", "flops=35%"])
def test_every_method_with_an_average_meets_other_budgets(name: str, budget: str) -> None:
    """As large as an average of whole tokens can be without costing more than was asked for."""
    kind = budget.partition("=")[0]
    full = cost(kind, LLAVA_7B, [576] * 32)
    limit = 75.6e6 if kind == "kv" else 0.35 * full
    solved = get_method(f"{name}@{budget}").solve(LLAVA_7B)
    assert solved.label == f"{name}@{budget}"
    tokens = in_layers(solved, LLAVA_7B)
    assert cost(kind, LLAVA_7B, tokens, solved.early) <= limit
    larger = next(more for more in above(name, int(averages(tokens).input)) if more != tokens)
    assert cost(kind, LLAVA_7B, larger, solved.early) > limit


@settings(max_examples=60, deadline=None)
@given(
    layers=st.integers(2, 40), rows=st.integers(1, 12), cols=st.integers(1, 12), heads=st.sampled_from([1, 2, 4]),
    name=st.sampled_from(["fastv", "grid", "pool", "schedule", "random"]), percent=st.integers(1, 100),
    kind=st.sampled_from(["kv", "flops"]),
)  # fmt: skip
def test_targets_are_met_or_refused_with_a_nearest_that_works(
    layers: int, rows: int, cols: int, heads: int, name: str, percent: int, kind: str
) -> None:
    vision = VisionGeometry(2, 16, 2, 32, image_size=48, patch_size=8, feature_layer=-2)
    geometry = ModelGeometry(layers, (rows, cols), 32, 4, heads, 8, 64, 200, vision)
    spec = f"{name}@{kind}={percent}%"
    try:
        solved = get_method(spec).solve(geometry)
    except UserError as error:
        if "The nearest is " in str(error):
            nearest = get_method(str(error).partition("The nearest is ")[2]).solve(geometry)
            least = in_layers(nearest, geometry)
            full = cost(kind, geometry, [rows * cols] * layers)
            assert cost(kind, geometry, least, nearest.early) > percent / 100 * full
        else:  # a schedule's layers do not fit a model of so few
            assert name == "schedule" and layers < 8
        return
    full = cost(kind, geometry, [rows * cols] * layers)
    assert cost(kind, geometry, in_layers(solved, geometry), solved.early) <= percent * full / 100 * (1 + 1e-12)


MEASURED = Calibration(HERE, 64, 3, (1, 101, 576), (1.0, 2.0, 10.0))


def test_seconds_of_a_schedule_are_the_mean_of_its_layers() -> None:
    assert MEASURED.seconds([1]) == 1 and MEASURED.seconds([576, 576]) == 10
    assert MEASURED.seconds([576, 101, 1, 1]) == (10 + 2 + 1 + 1) / 4
    assert MEASURED.seconds([51]) == 1.5
    noisy = replace(MEASURED, tokens=(1, 10, 20, 30), medians=(1.0, 3.0, 2.0, 4.0))
    assert [noisy.seconds([n]) for n in (1, 10, 15, 20, 30)] == [1, 2.5, 2.5, 2.5, 4]  # more tokens take no less time


def test_budgets_of_time_are_met_by_measured_times(times: Path) -> None:
    here = replace(LLAVA_7B, place=HERE)
    assert save_calibration(here, MEASURED).parent.parent == times
    assert find_calibration(here) == MEASURED
    assert str(get_method("grid@time=20%:layer=0").solve(here)) == "grid:layer=0,keep=101"
    assert str(get_method("grid@time=1999ms:layer=0").solve(here)) == "grid:layer=0,keep=100"
    solved = get_method("fastv@time=2.5s").solve(here)
    assert MEASURED.seconds(in_layers(solved, here)) <= 2.5
    with pytest.raises(
        UserError, match=r"fastv@time=1s is out of reach on this model. The nearest is (fastv@time=\S+s)"
    ) as e:
        get_method("fastv@time=1s").solve(here)
    get_method(str(e.value).rpartition(" ")[2]).solve(here)


def test_times_of_another_place_or_size_do_not_count(times: Path) -> None:
    save_calibration(replace(LLAVA_7B, place=HERE), MEASURED)
    for other in (
        replace(LLAVA_7B, place=HERE._replace(device="a GPU")),
        replace(LLAVA_7B, place=HERE._replace(dtype="bfloat16")),
        replace(LLAVA_7B, place=HERE._replace(attention="eager")),
        replace(LLAVA_7B, place=HERE, num_layers=31),
    ):
        with pytest.raises(UserError, match=r"was timed on .*; run: atp-eval budget --measure --model MODEL") as error:
            get_method("fastv@time=30%").solve(other)
        assert other.place is not None and other.place.dtype in str(error.value)
    small_tower = replace(LLAVA_7B, place=HERE, vision=VisionGeometry(1, 8, 1, 8, 336, 14, -1), has_cls=False)
    assert find_calibration(small_tower) == MEASURED  # the LLM alone is timed


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"version": 9}', '{"version": 1, "tokens": [], "medians": []}'])
def test_broken_times_are_one_line_with_the_command(times: Path, text: str) -> None:
    here = replace(LLAVA_7B, place=HERE)
    path = save_calibration(here, MEASURED)
    assert path == calibration_path(here) and json.loads(path.read_text())["rounds"] == 3
    path.write_text(text)
    with pytest.raises(UserError, match=r"cannot read the measured times in .*; measure again: atp-eval budget"):
        find_calibration(here)
