"""Which cells methods keep, against a slow literal version; sums that come in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from analysis.kept import CELLS, LAYERS, Keep, measured, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from atp_eval.analysis import measure_agreement
from atp_eval.analysis.tally import Running


def literal(
    a: Sequence[Keep | None], b: Sequence[Keep | None], asked: Sequence[set[int]], layer: int
) -> dict[str, list[float]]:
    """Sample by sample, with sets."""
    everything = set(range(CELLS))
    found: dict[str, list[float]] = {"jaccard": [], "recall": [], "row": []}
    for one, other, wanted in zip(a, b, asked, strict=True):
        sets = []
        for keep in (one, other):
            entering = everything
            for start, cells in sorted((keep or {}).items()):
                entering = cells if start <= layer else entering
            sets.append(entering if keep is not None else set())
        first, second = sets
        if first and second:
            found["jaccard"].append(len(first & second) / len(first | second))
        if first and wanted:
            found["recall"].append(len(first & wanted) / len(wanted))
        if first:
            found["row"].append(sum(cell // 24 / 23 for cell in first) / len(first))
    return found


some_cells = st.sets(st.integers(0, CELLS - 1), max_size=12)


keeps_of = st.one_of(st.none(), st.dictionaries(st.integers(0, LAYERS - 1), some_cells, max_size=3))


questions = st.lists(st.tuples(keeps_of, keeps_of, some_cells), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(questions, st.integers(1, 4))
def test_it_is_what_a_literal_version_gives_in_any_pieces(samples: list[Any], size: int) -> None:
    a, b, asked = ([s[i] for s in samples] for i in range(3))
    frames = {"a": rows(a, asked), "b": rows(b, asked)}

    def pieces() -> Iterator[tuple[str, dict[str, pd.DataFrame]]]:
        for start in range(0, len(samples), size):
            yield "gqa", {label: frame.iloc[start : start + size] for label, frame in frames.items()}

    found = measure_agreement(pieces(), [["a", "b"]], resamples=20)
    if all(keep is None for keep in (*a, *b)):
        assert found is None
        return
    assert found is not None
    for layer in range(LAYERS):
        want = literal(a, b, asked, layer)
        overlap, place = found.overlap("a", "b"), found.place("a")
        if want["jaccard"]:
            assert overlap is not None
            value = overlap.at(layer)
            assert value.value.value == pytest.approx(np.mean(want["jaccard"]))
            assert 0 <= value.value.value <= 1 and 0 < value.chance <= 1 + 1e-12
            assert value.gain.value == pytest.approx(value.value.value - value.chance)
        if want["row"]:
            assert place is not None
            assert place.row[place.span(layer)].value == pytest.approx(np.mean(want["row"]))
            assert 0 <= place.row[place.span(layer)].value <= 1
        if want["recall"]:
            assert place is not None
            recall = place.recall[place.span(layer)]
            assert recall.value.value == pytest.approx(np.mean(want["recall"]))
            assert 0 <= recall.value.value <= 1 and 0 <= recall.chance <= 1


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(some_cells, some_cells), min_size=1, max_size=5))
def test_overlap_is_symmetric_and_whole_with_oneself(samples: list[tuple[set[int], set[int]]]) -> None:
    a, b = rows([{1: first} for first, _ in samples]), rows([{1: second} for _, second in samples])
    found = measured({"a": a, "b": b, "same": a}, resamples=20)
    turned = measured({"b": b, "a": a}, resamples=20)
    for layer in range(LAYERS):
        one, other = found.overlap("a", "b"), turned.overlap("a", "b")
        assert one is not None and other is not None
        assert one.at(layer).value.value == pytest.approx(other.at(layer).value.value, nan_ok=True)
        assert one.at(layer).chance == pytest.approx(other.at(layer).chance, nan_ok=True)
    same = found.overlap("a", "same")
    assert same is not None
    assert all(v.value.value == pytest.approx(1.0) for v in same.values if v.value.value == v.value.value)


def test_a_layer_at_which_something_changes_may_come_late() -> None:
    """The first pieces change at layer 2 only, a later one at layer 1: before, layer 1 was like layer 0."""
    running = Running(2)
    one = sparse.csr_array(np.ones((1, 1)))
    running.add((0, 2), np.array([[[10.0, 1], [20, 1]]]), one)
    running.add((0, 1), np.array([[[1.0, 1], [2, 1]]]), one)
    running.add((0,), np.array([[[np.nan, np.nan]]]), one)
    assert running.starts == (0, 1, 2)
    assert running.sums.tolist() == [[[11, 2], [12, 2], [22, 2]]]
    assert running.samples == 2
