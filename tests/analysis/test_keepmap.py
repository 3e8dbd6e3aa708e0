"""The map of what is kept: against masks one by one."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atp_eval.analysis.cells import Kept, Shape, read_kept
from atp_eval.analysis.keepmap import BLOCK, KeepCounts, bit_sums, keep_frame
from atp_eval.analysis.traces import as_words
from atp_eval.trace import KeepTrace, Stage

SHAPE = Shape(6, 3, 5)
stage = st.tuples(st.integers(0, 5), st.sets(st.integers(0, 14)))
samples = st.lists(st.lists(stage, max_size=3, unique_by=lambda s: s[0]).map(sorted), min_size=1, max_size=6)


def trace(*stages: tuple[int, set[int]], merged: int = 0) -> KeepTrace:
    found = tuple(Stage(layer, np.isin(np.arange(15), list(keep)), merged) for layer, keep in stages)
    return KeepTrace((3, 5), 6, found)


def read(*traces: KeepTrace | None) -> Kept:
    return read_kept(pd.Series([json.dumps(t.to_json()) if t else None for t in traces], dtype=object), SHAPE)


@given(samples, samples)
def test_rates_are_means_of_masks_in_whatever_pieces(first: list[list], second: list[list]) -> None:
    pieces = [[trace(*s) for s in part] for part in (first, second)]
    counts = KeepCounts(SHAPE)
    for piece in pieces:
        counts.add(read(*piece, None))
    everything = pieces[0] + pieces[1]
    layers = np.stack([np.mean([t.keep_at(layer) for t in everything], axis=0) for layer in range(6)])
    found = counts.map("m")
    if found is None:
        assert (layers == 1).all()
        return
    assert found.samples == len(everything)
    for layer in range(6):
        span = np.searchsorted(found.starts, layer, side="right") - 1
        expected = found.rates[span].ravel() if span >= 0 else np.ones(15)
        np.testing.assert_allclose(layers[layer], expected)
    steps = np.concatenate([np.ones((1, 15)), found.rates.reshape(-1, 15)])
    assert (steps[1:] != steps[:-1]).any(1).all()  # nothing is said twice
    np.testing.assert_allclose(found.uniform, found.rates.reshape(len(found.starts), -1).mean(1))


def test_bits_are_added_up_beyond_a_byte() -> None:
    masks = np.random.default_rng(0).random((3 * BLOCK + 7, 2, 15)) < 0.9
    assert (bit_sums(as_words(np.packbits(masks, axis=-1)), 15) == masks.sum(0)).all()
    assert (bit_sums(as_words(np.packbits(np.ones((2 * BLOCK, 1, 15), dtype=bool), axis=-1)), 15) == 2 * BLOCK).all()


def test_no_sample_and_nothing_pruned_give_no_map() -> None:
    counts = KeepCounts(SHAPE)
    assert counts.map("m") is None
    counts.add(read(None))
    assert counts.map("m") is None
    counts.add(read(trace()))
    assert counts.map("m") is None


def test_merged_tokens_lie_nowhere() -> None:
    counts = KeepCounts(SHAPE)
    counts.add(read(trace((2, set()), merged=9)))
    found = counts.map("m")
    assert found is not None and found.starts == (2,) and found.uniform.tolist() == [0.0]


def test_the_table_has_a_row_a_cell() -> None:
    counts = KeepCounts(SHAPE)
    counts.add(read(trace((1, {0, 7}), (4, {7})), trace((1, {7}))))
    found = counts.map("m")
    assert found is not None
    frame = keep_frame([found])
    assert len(frame) == 30 and frame["samples"].eq(2).all()
    at = frame.set_index(["first_layer", "row", "col"])["keep_rate"]
    assert (at[1, 0, 0], at[1, 1, 2], at[4, 0, 0], at[4, 1, 2], at[4, 2, 4]) == (0.5, 1.0, 0.0, 1.0, 0.0)
    assert frame[frame["first_layer"] == 1]["uniform"].iloc[0] == pytest.approx(1.5 / 15)
    assert keep_frame([]).empty
