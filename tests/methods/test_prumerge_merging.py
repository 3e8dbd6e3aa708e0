"""PruMerge and PruMerge+: what kept tokens take in, by hand, and against a slow literal version."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import prumerge as literal

from atp_eval.methods.prumerge_math import (
    Selection,
    class_attention,
    merge,
    select_adaptive,
    select_exact,
    select_ratio,
)
from methods.outliers import floats, kept_of, normal, others_of

# What is merged

KEYS = floats([1, 0], [3, 0], [1, 1], [0, 2], [-1, 0])[None]
FEATURES = floats([1, 0], [10, 0], [100, 0], [0, 1], [0, 10])[None]
ATTENTION = floats([0.5, 0.1, 0.2, 0.04, 0.01])


def of_cells(*kept: int) -> Selection:
    pool = torch.tensor([[*kept, *(cell for cell in range(5) if cell not in kept)]])
    return Selection(pool, torch.tensor([len(kept)]), pool)


def test_a_kept_token_takes_in_its_nearest_by_key_kept_ones_too_from_the_original_features() -> None:
    """Nearest 2 to cell 0 are 1 and 2, to cell 2 are 0 and 1 (equal to 3, later) by direction alone."""
    found = merge(FEATURES, KEYS, ATTENTION, of_cells(0, 2), tokens=3, neighbours=2)
    extra = [0.1 * 10, 0.04 * 1 + 0.01 * 10]
    expected = floats([1 + 0.1 * 10 + 0.2 * 100, 0], [100 + 0.5 * 1 + 0.1 * 10, 0], extra)
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-12)


def test_the_papers_rule_takes_weighted_averages() -> None:
    found = merge(FEATURES, KEYS, ATTENTION, of_cells(0, 2), tokens=3, neighbours=2, rule="paper")
    both = (0.5 * 1 + 0.1 * 10 + 0.2 * 100) / 0.8
    expected = floats([both, 0], [both, 0], [0.1 * 10 / 0.15, (0.04 * 1 + 0.01 * 10) / 0.15])
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-12)


def test_of_equal_cosines_the_earlier_in_the_pool_is_nearer() -> None:
    """Cell 0 and 1 point the same way, 2 is as far from 1 as from 3: kept ones come first in the pool, then raster."""
    one = merge(FEATURES, KEYS, ATTENTION, of_cells(2), tokens=2, neighbours=1)
    assert one[0, 0].tolist() == [100 + 0.5 * 1, 0]  # 0, 1 and 3 tie
    kept_first = merge(FEATURES, KEYS, ATTENTION, of_cells(2, 3), tokens=3, neighbours=1)
    assert kept_first[0, 0].tolist() == [100, 0.04]


def test_on_a_small_grid_all_others_are_neighbours() -> None:
    found = merge(FEATURES, KEYS, ATTENTION, of_cells(4), tokens=2)
    torch.testing.assert_close(found[0], floats([21.5, 10.04], [21.5, 0.04]), rtol=0, atol=1e-12)


def test_a_cell_that_is_read_twice_is_its_own_nearest() -> None:
    pool = torch.tensor([[4, 4, 1, 2, 3]])
    found = merge(FEATURES, KEYS, ATTENTION, Selection(pool, torch.tensor([2]), pool), tokens=3, neighbours=1)
    expected = floats([0, 10 + 0.01 * 10], [0, 10 + 0.01 * 10], [0.1 * 10 + 0.2 * 100, 0.04])
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-12)


def test_half_precision_is_merged_in_single() -> None:
    x, keys, a = normal(1, 9, 4, seed=1).half(), normal(1, 9, 4, seed=2).half(), normal(1, 9, seed=3).softmax(1).float()
    selection = select_exact(a, 4, plus=False)
    found = merge(x, keys, a, selection, 4)
    assert found.dtype == torch.half
    assert torch.equal(found, merge(x.float(), keys.float(), a, selection, 4).half())


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3), cells=st.integers(2, 16), neighbours=st.sampled_from([1, 3, 32]), plus=st.booleans(),
    rule=st.sampled_from(["code", "paper"]), mode=st.sampled_from(["adaptive", "exact", "ratio"]),
    amount=st.floats(0, 1), ties=st.booleans(), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_parity_with_the_literal_version(
    batch: int, cells: int, neighbours: int, plus: bool, rule: Any, mode: str, amount: float, ties: bool, seed: int
) -> None:
    """Indexes equal and tokens to 1e-10, through any grid, batches with different counts, 1 to all tokens."""
    queries, keys = normal(batch, 2, 1 + cells, 3, seed=seed), normal(batch, 2, 1 + cells, 3, seed=seed + 1)
    features = normal(batch, cells, 4, seed=seed + 2)
    attention = class_attention(3 * queries, keys)
    torch.testing.assert_close(
        attention,
        floats(*map(literal.class_attention, (3 * queries).tolist(), keys.tolist())),
        rtol=0,
        atol=1e-12,
    )
    attention = attention.round(decimals=1) + 0.01 if ties else attention
    count, ratio = 1 + int(amount * (cells - 1)), max(1, int(amount * cells / 3)) / cells
    flat = keys[:, :, 1:].transpose(1, 2).flatten(2)
    if mode == "adaptive":
        selection, tokens = select_adaptive(attention, plus), cells
    elif mode == "exact":
        selection, tokens = select_exact(attention, count, plus), count
    else:
        selection = select_ratio(attention, ratio, plus)
        tokens = min(cells, int(selection.kept.max()) + 1)
    merged = merge(features, flat, attention, selection, tokens, neighbours, rule)
    for row in range(batch):
        a = attention[row].tolist()
        kept = {
            "adaptive": lambda a=a: literal.adaptive(a, plus),
            "exact": lambda a=a: literal.exact(a, count, plus),
            "ratio": lambda a=a: literal.fixed(a, ratio, plus),
        }[mode]()
        truth = literal.prumerge(features[row].tolist(), flat[row].tolist(), a, kept, neighbours, rule)
        assert kept_of(selection)[row] == truth.kept
        assert others_of(selection)[row] == truth.others
        assert sorted(selection.home[row].tolist()) == list(range(cells))
        if truth.tokens:
            torch.testing.assert_close(merged[row, : len(truth.tokens)], floats(*truth.tokens), rtol=0, atol=1e-10)
