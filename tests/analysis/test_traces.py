"""Traces read in columns: against KeepTrace, one by one."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_tokens import text, traces

from atp_eval.analysis.traces import read_traces
from atp_eval.trace import KeepTrace, Stage


@given(st.lists(st.none() | traces(), max_size=12))
def test_every_trace_is_read_once_and_whole(found: list[KeepTrace | None]) -> None:
    seen: dict[int, KeepTrace] = {}
    for kind in read_traces([text(t) if t else None for t in found]):
        bits = np.unpackbits(kind.words.view(np.uint8), axis=-1)[..., : kind.cells].astype(bool)
        assert kind.tokens.shape == kind.merged.shape == (len(kind.rows), len(kind.starts))
        for row, keep, merged, tokens in zip(kind.rows, bits, kind.merged, kind.tokens, strict=True):
            assert row not in seen
            stages = tuple(Stage(*s) for s in zip(kind.starts, keep, merged.tolist(), strict=True))
            assert [s.tokens for s in stages] == tokens.tolist()
            seen[int(row)] = KeepTrace(kind.grid, kind.layers, stages)
    assert {i: json.dumps(t.to_json()) for i, t in seen.items()} == {i: text(t) for i, t in enumerate(found) if t}


def test_texts_of_one_length_that_differ_in_more_than_masks_are_kept_apart() -> None:
    keep = np.arange(6) < 2
    found = [KeepTrace((2, 3), 9, (Stage(layer, keep, merged),)) for layer, merged in [(1, 12), (3, 12), (1, 70)]]
    kinds = read_traces(pd.Series([text(t) for t in found]))
    assert [(k.starts, k.rows.tolist(), k.merged.tolist()) for k in kinds] == [
        ((1,), [0, 2], [[12], [70]]),
        ((3,), [1], [[12]]),
    ]


def test_rows_behind_missing_ones_keep_their_place() -> None:
    whole = text(KeepTrace((2, 3), 9))
    (kind,) = read_traces(pd.Series(["x", None, whole, np.nan, whole], dtype=object).iloc[1:])
    assert kind.rows.tolist() == [1, 3] and kind.tokens.shape == (2, 0)
    assert read_traces([]) == read_traces([None, None]) == []


@pytest.mark.parametrize("bad", ["", "null", "{}", "[1, 2]", '{"grid": [2], "layers": 3, "stages": []}', "x" * 200])
def test_what_is_no_trace_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="is no trace"):
        read_traces([text(KeepTrace((2, 3), 9)), bad])


@pytest.mark.parametrize(("mask", "size"), [("gA==", 1), ("gAAAAAAA", 6), ("", 0)])
def test_masks_of_another_size_are_refused(mask: str, size: int) -> None:
    data = KeepTrace((3, 5), 4, (Stage(1, np.ones(15, dtype=bool)),)).to_json()
    data["stages"][0][2] = mask
    with pytest.raises(ValueError, match=f"{size} bytes does not fit a grid of 3 x 5"):
        read_traces([json.dumps(data)])


def test_a_mask_that_is_no_base64_is_refused() -> None:
    good = text(KeepTrace((3, 5), 4, (Stage(1, np.ones(15, dtype=bool)),)))
    for bad in (good.replace("//4=", "//4*"), good.replace("//4=", "/*4=")):
        assert bad != good
        with pytest.raises(ValueError):
            read_traces([good, bad])
