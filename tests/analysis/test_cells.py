"""Kept cells as words of bits: against masks one by one."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atp_eval.analysis.cells import BLOCK, Shape, asked_words, cell_sums, read_kept, shape_of, side_by_side
from atp_eval.analysis.traces import as_words, count
from atp_eval.records import asked_text
from atp_eval.trace import KeepTrace, Stage

SHAPE = Shape(4, 3, 5)


def text(trace: KeepTrace) -> str:
    return json.dumps(trace.to_json())


def trace(*stages: tuple[int, set[int]], shape: Shape = SHAPE, merged: int = 0) -> KeepTrace:
    """Stages as (layer, cells)."""
    cells = np.arange(shape.cells)
    found = tuple(Stage(layer, np.isin(cells, list(keep)), merged) for layer, keep in stages)
    return KeepTrace((shape.rows, shape.cols), shape.layers, found)


def unpacked(words: np.ndarray, cells: int) -> np.ndarray:
    return np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1)[..., :cells].astype(bool)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6))
def test_bits_are_counted(words: list[int]) -> None:
    assert count(np.array([words], dtype=np.uint64)).tolist() == [sum(word.bit_count() for word in words)]


def test_all_bits_and_none() -> None:
    assert count(np.array([[2**64 - 1, 2**64 - 1], [0, 0]], dtype=np.uint64)).tolist() == [128, 0]


@given(
    st.lists(st.sets(st.integers(0, 14)), min_size=1, max_size=5),
    st.lists(st.integers(-9, 9), min_size=15, max_size=15),
)
def test_sums_over_cells(keeps: list[set[int]], weights: list[int]) -> None:
    masks = np.stack([np.isin(np.arange(15), list(keep)) for keep in keeps])
    table = np.stack([np.array(weights), np.ones(15)], axis=1).astype(np.float32)
    words = np.tile(as_words(np.packbits(masks, axis=1))[:, None], (1, BLOCK, 1))  # more than one block
    found = cell_sums(words, table)
    assert found.shape == (len(keeps), BLOCK, 2)
    for of, keep in zip(found, keeps, strict=True):
        assert (of == [sum(weights[i] for i in keep), len(keep)]).all()


stage = st.tuples(st.integers(0, 3), st.sets(st.integers(0, 14)))
samples = st.lists(st.lists(stage, max_size=3, unique_by=lambda s: s[0]).map(sorted), min_size=1, max_size=5)


@given(samples)
def test_cells_are_those_of_the_traces(stages: list[list[tuple[int, set[int]]]]) -> None:
    traces = [trace(*s) for s in stages]
    kept = read_kept(pd.Series([text(t) for t in traces]), SHAPE)
    assert kept.known.all() and not kept.merged and kept.starts[0] == 0
    for layer in range(SHAPE.layers):
        found = unpacked(kept.at([layer])[:, 0], SHAPE.cells)
        assert (found == np.stack([t.keep_at(layer) for t in traces])).all()
    assert count(kept.at([3])).ravel().tolist() == [int(t.keep_at(3).sum()) for t in traces]


def test_missing_traces_and_those_of_another_shape_are_not_known() -> None:
    other = trace((1, {0}), shape=Shape(4, 5, 3), merged=2)
    texts = pd.Series([text(trace((1, {2}))), None, text(other)], dtype=object)
    kept = read_kept(texts, SHAPE)
    assert kept.known.tolist() == [True, False, False]
    assert kept.starts == (0, 1) and not kept.merged
    assert not read_kept(pd.Series([None, None], dtype=object), SHAPE).known.any()


def test_merged_tokens_are_noticed_and_are_no_cells() -> None:
    kept = read_kept(pd.Series([text(trace((0, set()), merged=4))]), SHAPE)
    assert kept.merged and count(kept.words).tolist() == [[0]]


def test_a_mask_that_is_too_short_is_refused() -> None:
    data = trace((1, {2})).to_json()
    data["stages"][0][2] = "gA=="
    with pytest.raises(ValueError, match="1 bytes does not fit a grid of 3 x 5"):
        read_kept(pd.Series([json.dumps(data)]), SHAPE)


def test_a_trace_tells_its_shape() -> None:
    assert shape_of([None, text(trace((1, {2})))]) == SHAPE and SHAPE.cells == 15
    assert shape_of([None, float("nan")]) is None  # type: ignore[list-item]


def test_asked_cells_are_known_on_their_own_grid_only() -> None:
    texts = pd.Series([asked_text([0, 575]), None, asked_text([])], dtype=object)
    known, words = asked_words(texts, Shape(8, 24, 24))
    assert known.tolist() == [True, False, True]
    assert count(words).tolist() == [2, 0, 0]
    assert np.flatnonzero(unpacked(words, 576)[0]).tolist() == [0, 575]
    for shape in (Shape(8, 18, 32), Shape(8, 3, 5)):
        known, words = asked_words(texts, shape)
        assert not known.any() and not words.any()


def frames(*starts: tuple[int, int]) -> list[pd.DataFrame]:
    return [pd.DataFrame({"doc_id": range(a, b)}) for a, b in starts]


def test_pieces_hold_the_same_documents_side_by_side() -> None:
    pieces = {"a": frames((0, 4), (4, 8)), "b": frames((0, 3), (3, 6), (6, 8)), "c": frames((5, 6)), "d": []}
    found = [{n: f["doc_id"].tolist() for n, f in piece.items()} for piece in side_by_side(pieces)]
    assert found == [
        {"a": [0, 1, 2], "b": [0, 1, 2]},
        {"a": [3], "b": [3]},
        {"a": [4, 5], "b": [4, 5], "c": [5]},
        {"a": [6, 7], "b": [6, 7]},
    ]


@given(st.lists(st.tuples(st.sets(st.integers(0, 30)), st.integers(1, 7)), max_size=4))
def test_no_row_is_lost_or_doubled_and_a_document_is_in_one_piece(methods: list[tuple[set[int], int]]) -> None:
    pieces = {
        str(i): [pd.DataFrame({"doc_id": sorted(docs)[k : k + size]}) for k in range(0, len(docs), size)]
        for i, (docs, size) in enumerate(methods)
    }
    found = list(side_by_side(pieces))
    for i, (docs, _) in enumerate(methods):
        rows = [doc for piece in found if str(i) in piece for doc in piece[str(i)]["doc_id"]]
        assert rows == sorted(docs)
    pieces_of = [{doc for frame in piece.values() for doc in frame["doc_id"]} for piece in found]
    assert sum(len(p) for p in pieces_of) == len(set().union(*pieces_of))
