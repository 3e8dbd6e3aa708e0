"""PruMerge and PruMerge+: which tokens are chosen, by hand."""

from __future__ import annotations

from math import log

import pytest
import torch
from reference import prumerge as literal

from atp_eval.methods.prumerge_math import (
    class_attention,
    merge,
    outlier_count,
    ratio_line,
    select_adaptive,
    select_exact,
    select_ratio,
)
from methods.outliers import floats, kept_of, normal, others_of, with_outliers

# The score


def test_attention_takes_all_heads_as_one_vector_and_leaves_cls_out_of_the_result_only() -> None:
    """Logits (2 x + 2 y) / sqrt(4): 0 for CLS, ln 2 and ln 5 for the patches, so 2/8 and 5/8; CLS has the last 1/8."""
    queries = torch.full((1, 2, 3, 2), 9.0, dtype=torch.float64)
    queries[0, :, 0] = floats([2, 0], [0, 2])
    keys = floats([[0, 7], [log(2), 7], [log(5) / 2, 7]], [[7, 0], [7, 0], [7, log(5) / 2]])[None]
    torch.testing.assert_close(class_attention(queries, keys), floats([2 / 8, 5 / 8]), rtol=0, atol=1e-15)


def test_half_precision_is_scored_in_single() -> None:
    queries, keys = normal(1, 2, 5, 4, seed=1).half(), normal(1, 2, 5, 4, seed=2).half()
    found = class_attention(queries, keys)
    assert found.dtype == torch.float32
    assert torch.equal(found, class_attention(queries.float(), keys.float()))


def test_an_outlier_is_strictly_above_the_third_quartile_by_one_and_a_half_distances() -> None:
    """0, 1, 2, 3, x: quartiles 1 and 3, so the fence is at 6. 0, 1, 2, x: 0.75 and 1.5 + x / 4; x is out above 7."""
    assert outlier_count(floats([3, 6, 0, 2, 1], [3, 6.001, 0, 2, 1], [1, 1, 1, 1, 1])).tolist() == [0, 1, 0]
    assert outlier_count(floats([0, 1, 2, 6.99], [0, 1, 2, 7.01])).tolist() == [0, 1]
    assert outlier_count(floats([0, 0, 0, 0, 1e-9])).tolist() == [1]
    assert outlier_count(floats([0.3], [0.0])).tolist() == [0, 0]


@pytest.mark.parametrize("cells", [2, 3, 7, 35, 36, 576])
def test_outliers_are_numpys_and_of_each_sample_alone(cells: int) -> None:
    attention = (3 * normal(8, cells, seed=cells)).softmax(1)
    assert outlier_count(attention).tolist() == [literal.outliers(row) for row in attention.tolist()]


# What is kept


def test_adaptive_keeps_outliers_from_the_highest_down_and_ties_by_the_earlier_cell() -> None:
    selection = select_adaptive(floats([0, 5, 0, 9, 0, 0, 5, 0, 0, 0, 0, 0], [0] * 11 + [1]), plus=False)
    assert kept_of(selection) == [[3, 1, 6], [11]]
    assert others_of(selection) == [[0, 2, 4, 5, 7, 8, 9, 10, 11], list(range(11))]
    assert torch.equal(selection.home, selection.pool)


@pytest.mark.parametrize("plus", [False, True])
def test_without_outliers_the_extra_token_stands_alone(plus: bool) -> None:
    attention, features = torch.full((1, 6), 0.1, dtype=torch.float64), normal(1, 6, 2, seed=3)
    selection = select_adaptive(attention, plus)
    assert kept_of(selection) == [[]]
    assert others_of(selection) == [list(range(6))]
    found = merge(features, normal(1, 6, 3, seed=4), attention, selection, tokens=1)
    torch.testing.assert_close(found, 0.1 * features.sum(1, keepdim=True))


@pytest.mark.parametrize(("count", "stride", "tokens"), [
    (1, 192, 5), (24, 8, 97), (32, 6, 129), (36, 5, 152), (40, 4, 185), (48, 4, 193), (64, 3, 257), (72, 2, 361),
])  # fmt: skip
def test_plus_adds_a_line_whose_stride_is_a_third_of_the_outliers_distance(
    count: int, stride: int, tokens: int
) -> None:
    """The numbers of tokens when no outlier is on the line; those that are are not read twice."""
    beside = [cell for cell in range(576) if cell % stride]
    kept = kept_of(select_adaptive(with_outliers(count, beside), plus=True))[0]
    assert kept == beside[:count] + list(range(0, 575, stride))
    assert len(kept) + 1 == tokens
    on_line = [stride, 0, *beside]
    overlapping = kept_of(select_adaptive(with_outliers(count, on_line), plus=True))[0]
    assert overlapping == on_line[:count] + [c for c in range(0, 575, stride) if c not in on_line[:count]]


def test_the_last_cell_is_on_no_line_and_a_line_of_stride_1_may_keep_all() -> None:
    """The authors' code then adds an extra token of zeros, the 577th; here there is none."""
    first, last = list(range(576)), list(range(575, -1, -1))
    assert others_of(select_adaptive(with_outliers(100, first), plus=True)) == [[575]]
    everything = select_adaptive(with_outliers(100, last), plus=True)
    assert kept_of(everything) == [last[:100] + first[:476]]
    assert others_of(everything) == [[]]


def test_strides_and_counts_in_floats_are_those_in_whole_numbers() -> None:
    """The authors' code goes through ratio = n / 576; this does not."""
    for n in range(1, 577):
        assert (int(576 * (n / 576)), int(1 / (n / 576))) == (n, 576 // n)


def test_exactly_144_tokens_of_plus_are_71_high_ones_the_official_line_and_the_extra_one() -> None:
    attention = normal(3, 576, seed=5).softmax(1)
    official = list(range(4, 575, 8))
    for row, kept in zip(attention, kept_of(select_exact(attention, 144, plus=True)), strict=True):
        outside = [cell for cell in literal.highest(row.tolist(), 576) if cell not in official][:71]
        assert set(kept) == set(outside) | set(official)
        assert len(kept) == 143
        high = 1 + kept.index(outside[-1])
        assert kept[:high] == literal.highest(row.tolist(), 576)[:high]
        assert kept[high:] == sorted(kept[high:])


def test_exact_counts_refill_duplicates_by_the_next_scores() -> None:
    """7 of 12: a line of 3 (cells 2, 6, 10) and 3 high ones outside of it; 6 is read where its score stands."""
    attention = floats([0, 0.8, 0, 0, 0.4, 0, 0.9, 0.3, 0, 0, 0.1, 0.2], [0.0] * 12)
    assert kept_of(select_exact(attention, 7, plus=True)) == [[6, 1, 4, 7, 2, 10], [0, 1, 2, 3, 6, 10]]
    assert kept_of(select_exact(attention, 4, plus=False)) == [[6, 1, 4], [0, 1, 2]]
    assert kept_of(select_exact(attention, 1, plus=True)) == [[], []]
    assert kept_of(select_exact(attention, 2, plus=True)) == [[6], [6]]
    assert len(kept_of(select_exact(attention, 12, plus=True))[0]) == 11


def test_the_official_fixed_ratio_reads_duplicates_twice_and_loses_as_many_of_the_others() -> None:
    """1/4 of 12: 3 high ones and cells 2, 6, 10. 6 and 2 are both: the lowest others, 0 and 1, go nowhere."""
    attention = floats([0, 0, 0.5, 0, 0, 0, 0.9, 0.8, 0, 0, 0, 0])
    attention = torch.cat([attention, attention.flip(1)])
    selection = select_ratio(attention, 0.25, plus=True)
    assert kept_of(selection) == [[6, 7, 2, 2, 6, 10], [5, 4, 9, 2, 6, 10]]
    assert others_of(selection) == [[3, 4, 5, 8, 9, 11], [0, 1, 3, 7, 8, 11]]
    assert selection.home.tolist()[0] == [6, 7, 2, 0, 1, 10, 3, 4, 5, 8, 9, 11]
    assert torch.equal(selection.home[1], selection.pool[1])
    zero_is_kept = select_ratio(floats([0.9, 0, 0.5, 0, 0, 0, 0.8, 0, 0, 0, 0, 0]), 0.25, plus=True)
    assert zero_is_kept.home.tolist() == [[0, 6, 2, 1, 3, 10, 4, 5, 7, 8, 9, 11]]
    assert kept_of(select_ratio(attention, 0.25, plus=False)) == [[6, 7, 2], [5, 4, 9]]


def test_the_official_line_at_an_eighth() -> None:
    assert ratio_line(576, 1 / 8) == list(range(4, 575, 8))
    assert len(ratio_line(576, 1 / 8)) == 72
