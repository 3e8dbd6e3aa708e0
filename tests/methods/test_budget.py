"""Budgets: the papers' figures, and every depth and grid."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atp_eval.errors import UserError
from atp_eval.methods import Geometry, get_method
from atp_eval.methods.budget import average_input, scale_layer
from atp_eval.methods.fastv import FastV
from atp_eval.methods.grid import uniform_cells, uniform_order
from atp_eval.methods.pool import Pool
from atp_eval.methods.schedule import Schedule

LLAVA, TINY = Geometry(32, (24, 24)), Geometry(8, (24, 24))


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


@pytest.mark.parametrize(("layers", "keep", "average"), [
    ((1,), (130,), 143.9375),
    ((4, 14, 24), (162, 54, 18), 144.0),
    ((4, 14, 24), (136, 68, 34), 144.25),
    ((4, 14, 24), (126, 88, 20), 143.875),
    ((1, 13, 25), (98, 79, 16), 87.875),
])  # fmt: skip
def test_table_2_averages_reproduce(layers: tuple[int, ...], keep: tuple[int, ...], average: float) -> None:
    """ATP-LLaVA, Tab. 2: printed as 144 and 88."""
    assert average_input(LLAVA, layers, keep) == average
    assert round(average) in (144, 88)


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
