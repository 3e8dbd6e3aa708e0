"""KeepTrace: counts, averages, and the packed form that goes into every record."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atp_eval.trace import KeepTrace, Stage


def trace_of(counts: list[tuple[int, int]], layers: int = 32, grid: tuple[int, int] = (24, 24)) -> KeepTrace:
    """A trace that keeps the first `count` cells from each layer on."""
    cells = np.arange(grid[0] * grid[1])
    return KeepTrace(grid, layers, tuple(Stage(layer, cells < count) for layer, count in counts))


def test_averages_of_the_papers_schedule() -> None:
    """ATP-LLaVA's 144: (4*576 + 10*126 + 10*88 + 8*20) / 32 = 143.9 at layer inputs."""
    trace = trace_of([(4, 126), (14, 88), (24, 20)])
    assert trace.average_input == pytest.approx((4 * 576 + 10 * 126 + 10 * 88 + 8 * 20) / 32)
    assert trace.average_output == pytest.approx((3 * 576 + 10 * 126 + 10 * 88 + 9 * 20) / 32)
    assert trace.final == 20
    assert trace.tokens_per_layer().tolist() == [576] * 4 + [126] * 10 + [88] * 10 + [20] * 8


def test_no_stage_means_that_everything_stays() -> None:
    trace = KeepTrace((24, 24), 8)
    assert trace.average_input == trace.average_output == trace.final == 576
    assert trace.keep_at(7).all()
    assert (trace.died_before() == 8).all()


def test_merged_tokens_count_but_are_no_cells() -> None:
    stage = Stage(0, np.zeros(16, dtype=bool), merged=4)
    trace = KeepTrace((4, 4), 2, (stage,))
    assert trace.tokens_per_layer().tolist() == [4, 4]
    assert not trace.keep_at(1).any()


def test_died_before_names_the_first_layer_without_the_cell() -> None:
    trace = trace_of([(1, 3), (2, 1)], layers=3, grid=(2, 2))
    assert trace.died_before().tolist() == [3, 2, 2, 1]


@pytest.mark.parametrize("layers", [[2, 1], [1, 1], [8], [-1]])
def test_layers_must_rise_within_the_model(layers: list[int]) -> None:
    with pytest.raises(ValueError, match="prune layers"):
        trace_of([(layer, 3) for layer in layers], layers=8)


def test_masks_must_fit_the_grid() -> None:
    with pytest.raises(ValueError, match="24 x 24"):
        KeepTrace((24, 24), 8, (Stage(1, np.ones(575, dtype=bool)),))


def test_a_packed_mask_of_another_grid_is_refused() -> None:
    data = trace_of([(1, 3)], layers=3, grid=(4, 4)).to_json()
    with pytest.raises(ValueError, match="grid"):
        KeepTrace.from_json({**data, "grid": [8, 8]})


def test_size_of_a_record() -> None:
    """Three prune points on 576 tokens fit in 0.4 kB of JSON: 90 MB for VQAv2's 214k samples."""
    assert len(json.dumps(trace_of([(4, 126), (14, 88), (24, 20)]).to_json())) < 400


@st.composite
def traces(draw: st.DrawFn) -> KeepTrace:
    """Any trace: grids that fill no byte, gone cells that stay gone, merged tokens."""
    rows, cols, layers = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 12))
    keep = np.ones(rows * cols, dtype=bool)
    stages = []
    for layer in sorted(draw(st.sets(st.integers(0, layers - 1), max_size=4))):
        keep = keep & np.array(draw(st.lists(st.booleans(), min_size=rows * cols, max_size=rows * cols)))
        stages.append(Stage(layer, keep, draw(st.integers(0, 5))))
    return KeepTrace((rows, cols), layers, tuple(stages))


@given(traces())
def test_json_round_trip(trace: KeepTrace) -> None:
    back = KeepTrace.from_json(json.loads(json.dumps(trace.to_json())))
    assert back.grid == trace.grid and back.num_layers == trace.num_layers
    assert back.tokens_per_layer().tolist() == trace.tokens_per_layer().tolist()
    for layer in range(trace.num_layers):
        assert (back.keep_at(layer) == trace.keep_at(layer)).all()


@given(traces())
def test_a_cell_is_kept_until_it_died(trace: KeepTrace) -> None:
    died = trace.died_before()
    for layer in range(trace.num_layers):
        assert (trace.keep_at(layer) == (died > layer)).all()
