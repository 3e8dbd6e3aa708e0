"""Tokens of many samples against KeepTrace's own numbers, one by one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atp_eval.analysis.tokens import TokenStats, combine, entering, token_stats
from atp_eval.analysis.traces import read_traces
from atp_eval.trace import KeepTrace, Stage


@st.composite
def traces(draw: st.DrawFn, layers: int = 6) -> KeepTrace:
    grid = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    points = sorted(draw(st.sets(st.integers(0, layers - 1), max_size=3)))
    cells = grid[0] * grid[1]
    stages = tuple(
        Stage(p, np.array(draw(st.lists(st.booleans(), min_size=cells, max_size=cells))), draw(st.integers(0, 4)))
        for p in points
    )
    return KeepTrace(grid, layers, stages)


def text(trace: KeepTrace) -> str:
    return json.dumps(trace.to_json())


def stats_of(*texts: str | None) -> TokenStats | None:
    return token_stats(entering(read_traces(texts)))


@given(st.lists(traces(), min_size=1, max_size=12))
def test_averages_and_layers_are_those_of_the_traces(found: list[KeepTrace]) -> None:
    stats = stats_of(*map(text, found), None)
    assert stats is not None
    tokens = np.stack([t.tokens_per_layer() for t in found])
    assert stats.samples == len(found)
    assert stats.averages.input == pytest.approx(np.mean([t.average_input for t in found]))
    assert stats.averages.output == pytest.approx(np.mean([t.average_output for t in found]))
    assert stats.averages.final == pytest.approx(np.mean([t.final for t in found]))
    assert stats.averages.full == pytest.approx(np.mean([t.grid[0] * t.grid[1] for t in found]))
    np.testing.assert_allclose(stats.mean, tokens.mean(0))
    np.testing.assert_array_equal(stats.low, tokens.min(0))
    np.testing.assert_array_equal(stats.high, tokens.max(0))


@given(st.lists(traces(), min_size=1, max_size=6))
def test_what_enters_layers_question_by_question(found: list[KeepTrace]) -> None:
    tokens = entering(read_traces([None, *map(text, found)]))
    assert tokens is not None and tokens.starts[0] == 0
    assert tokens.rows.tolist() == list(range(1, len(found) + 1))
    expected = np.stack([t.tokens_per_layer() for t in found])
    np.testing.assert_array_equal(tokens.tokens[:, tokens.spans], expected)
    np.testing.assert_array_equal(np.stack([tokens.at(layer) for layer in range(6)], axis=1), expected)
    np.testing.assert_array_equal(tokens.averages, expected.mean(1))
    assert tokens.full.tolist() == [t.grid[0] * t.grid[1] for t in found]
    assert tokens.lengths.sum() == tokens.layers == 6


def test_samples_without_an_image_do_not_count() -> None:
    empty = text(KeepTrace((0, 0), 6))
    assert stats_of(None, float("nan"), empty) is None  # type: ignore[arg-type]
    stats = stats_of(empty, text(KeepTrace((2, 2), 6)))
    assert stats is not None and stats.samples == 1


def test_models_of_different_depth_are_not_averaged() -> None:
    with pytest.raises(ValueError, match="different numbers of layers"):
        stats_of(text(KeepTrace((2, 2), 6)), text(KeepTrace((2, 2), 7)))


def test_benchmarks_weigh_alike_whatever_their_size() -> None:
    keep = np.array([True, False, False, False])
    many = stats_of(*[text(KeepTrace((2, 2), 2, (Stage(0, keep),)))] * 9)
    few = stats_of(text(KeepTrace((2, 2), 2)))
    assert many is not None and few is not None
    both = combine([many, few])
    assert both is not None
    assert both.averages.input == pytest.approx(2.5)
    assert (both.low.tolist(), both.high.tolist(), both.samples) == ([1, 1], [4, 4], 10)
    assert combine([]) is None
