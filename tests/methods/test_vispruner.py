"""VisPruner: tokens by CLS attention, the rest without its duplicates; by hand and against a slow literal version."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import vispruner as literal

from atp_eval.errors import UserError
from atp_eval.methods import Geometry, get_method
from atp_eval.methods.tensors import cls_attention
from atp_eval.methods.vispruner import vispruner, without_duplicates

LLAVA = Geometry(32, (24, 24))


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def falling(cells: int) -> torch.Tensor:
    """[1, cells]: attention that makes the order of importance raster order."""
    return torch.arange(cells, 0, -1, dtype=torch.float64)[None]


def alike(pairs: dict[tuple[int, int], float], cells: int) -> torch.Tensor:
    """[1, cells, cells]: these similarities, 0 for all other pairs."""
    similarity = torch.zeros(1, cells, cells, dtype=torch.float64)
    for (i, j), value in pairs.items():
        similarity[0, i, j] = similarity[0, j, i] = value
    return similarity


def point(features: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor, grid: tuple[int, int]) -> Any:
    def read(values: torch.Tensor) -> Any:
        return lambda layer: values if layer == "own" else values.flip(2)

    vision = SimpleNamespace(features=features, queries=read(queries), keys=read(keys))
    return SimpleNamespace(
        layer=0, grid=grid, vision=vision, hidden=None, kept=torch.ones(features.shape[:2], dtype=torch.bool)
    )


def test_attention_is_the_cls_row_over_cls_and_patches_and_the_mean_over_heads() -> None:
    """Two heads of size 4, CLS and two patches: logits (0, ln 2, ln 5) and (0, 0, 0)."""
    queries = torch.zeros(1, 2, 3, 4, dtype=torch.float64)
    queries[0, 0, 0, 0] = 2.0  # times 1 / sqrt(4)
    queries[0, :, 1:] = 9.0  # rows of patches, which do not count
    keys = torch.zeros(1, 2, 3, 4, dtype=torch.float64)
    keys[0, 0, 1, 0], keys[0, 0, 2, 0] = math.log(2), math.log(5)
    expected = torch.tensor([[(2 / 8 + 1 / 3) / 2, (5 / 8 + 1 / 3) / 2]], dtype=torch.float64)
    torch.testing.assert_close(cls_attention(queries, keys).mean(1), expected, rtol=0, atol=1e-15)
    assert cls_attention(queries.half(), keys.half()).dtype == torch.float32


@pytest.mark.parametrize(("count", "ratio", "important"), [(192, 0.5, 96), (128, 0.5, 64), (64, 0.5, 32), (65, 0.5, 32),
    (1, 0.5, 0), (1, 1.0, 1), (10, 0.0, 0), (10, 0.29, 2)])  # fmt: skip
def test_the_important_share_is_rounded_down(count: int, ratio: float, important: int) -> None:
    found = vispruner(drawn(2, 200, 4, seed=1), drawn(2, 200, seed=2), count, ratio)
    assert [part.shape for part in found] == [(2, important), (2, count - important)]


def test_the_important_are_those_with_most_attention_earlier_ones_first() -> None:
    attention = torch.tensor([[0.1, 0.3, 0.2, 0.3, 0.3, 0.0]], dtype=torch.float64)
    assert vispruner(drawn(1, 6, 3, seed=1), attention, 4)[0].tolist() == [[1, 3]]


def test_places_in_the_order_of_importance_are_split_even_and_odd() -> None:
    """Ranks 0, 2, 4 against 1, 3, 5. 0 and 2 are most alike, but in one half they are not compared."""
    similarity = alike({(0, 2): 0.99, (4, 3): 0.9, (2, 1): 0.5, (0, 5): 0.4}, 6)
    order = torch.arange(6)[None]
    assert without_duplicates(similarity, order, 5).tolist() == [[2, 0, 1, 3, 5]]  # 4 goes; 2 is likelier than 0
    assert without_duplicates(similarity, order, 4).tolist() == [[0, 1, 3, 5]]


def test_a_round_drops_eight_and_its_order_decides_the_next_split() -> None:
    """Of 20 tokens, 8 of the ten at even ranks go; of the other two, 2 is more alike and comes first.

    The second round splits into 2, 1, 5, 9, 13, 17 and 0, 3, 7, 11, 15, 19: the first has not compared 5 with 3, 17
    with 19 and 2 with 0.
    """
    pairs = {(2 * i, 2 * i + 1): 0.1 * i for i in range(10)} | {(5, 3): 0.7, (17, 19): 0.8, (2, 0): 0.05}
    similarity, order = alike(pairs, 20), torch.arange(20)[None]
    after = without_duplicates(similarity, order, 12)
    assert after.tolist() == [[2, 0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19]]
    after = without_duplicates(similarity, order, 10)
    assert after.tolist() == [[2, 1, 9, 13, 0, 3, 7, 11, 15, 19]]


def test_of_equally_like_tokens_the_more_important_goes_first() -> None:
    order = torch.tensor([[4, 0, 3, 1, 2, 5]])
    assert without_duplicates(torch.ones(1, 6, 6), order, 5).tolist() == [[3, 2, 0, 1, 5]]


def test_an_odd_list_gives_the_odd_token_to_the_half_that_is_dropped_from() -> None:
    """Ranks 0, 2, 4 against 1, 3."""
    similarity = alike({(4, 3): 0.9, (2, 1): 0.5}, 5)
    assert without_duplicates(similarity, torch.arange(5)[None], 4).tolist() == [[2, 0, 1, 3]]


def test_a_round_drops_at_most_the_half_it_drops_from() -> None:
    """6 tokens to 1: 3 of 3, then 2 of 2 (of 3 tokens), and the last odd one stays; none drops by itself."""
    similarity = alike({}, 6)
    assert without_duplicates(similarity, torch.arange(6)[None], 1).tolist() == [[3]]
    assert without_duplicates(similarity, torch.arange(6)[None], 0).shape == (1, 0)
    assert without_duplicates(similarity, torch.arange(6)[None], 6).tolist() == [list(range(6))]


def test_features_of_zeros_are_like_nothing() -> None:
    features = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 0.1], [0.0, 0.0]]], dtype=torch.float64)
    assert vispruner(features, falling(4), 3, 0.0)[1].tolist() == [[0, 1, 3]]


@pytest.mark.parametrize(("spec", "keep"), [("vispruner@144", 144), ("vispruner:keep=65", 65), ("vispruner@576", 576)])
def test_the_budget_is_the_count(spec: str, keep: int) -> None:
    solved = get_method(spec).solve(LLAVA)
    assert str(solved) == f"vispruner:keep={keep}" and solved.counts() == (keep,) and solved.prune_layers == (0,)


@pytest.mark.parametrize(("spec", "message"), [
    ("vispruner", "vispruner needs a budget: write vispruner@144"),
    ("vispruner@9:important_ratio=1.1", "important_ratio=1.1 must be from 0 to 1"),
    ("vispruner@9:important_ratio=-0.1", "important_ratio=-0.1 must be from 0 to 1"),
    ("vispruner:keep=0", "keep=0 leaves nothing"),
    ("vispruner@9:keep=9", "give a budget (@9) or keep=9, not both"),
    ("vispruner@577", "an image has only 576 visual tokens"),
    ("vispruner:keep=577", "keep=577 is out of range"),
])  # fmt: skip
def test_wrong_parameters_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_method(spec).solve(LLAVA)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_tower_without_cls_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"^vispruner@9 needs a vision tower with a CLS token.*divprune works without$"):
        get_method("vispruner@9").solve(Geometry(4, (6, 6), has_cls=False))


@pytest.mark.parametrize("grid", [(6, 6), (3, 7), (1, 9)])
def test_the_method_keeps_what_the_literal_version_names(grid: tuple[int, int]) -> None:
    """From the tower's own layer, in any count, odd ones too; the batch's samples as alone."""
    cells = grid[0] * grid[1]
    x, queries, keys = (
        drawn(3, cells, 4, seed=1),
        drawn(3, 2, cells + 1, 4, seed=2),
        drawn(3, 2, cells + 1, 4, seed=3),
    )
    for keep in range(1, cells + 1):
        method = get_method(f"vispruner:keep={keep},important_ratio=0.4").solve(Geometry(4, grid))
        decision = method.decide(point(x, queries, keys, grid))
        assert decision.count == keep and decision.values is None and decision.order is None
        for i in range(3):
            s = literal.cls_attention(queries[i, :, 0].tolist(), keys[i].tolist())
            important, diverse = literal.vispruner(x[i].tolist(), s, keep, 0.4)
            assert torch.where(decision.keep[i])[0].tolist() == sorted(important + diverse)
            alone = method.decide(point(x[i : i + 1], queries[i : i + 1], keys[i : i + 1], grid))
            assert torch.equal(alone.keep[0], decision.keep[i])


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3), cells=st.integers(1, 40), ratio=st.floats(0, 1), seed=st.integers(0, 999), data=st.data()
)
def test_indexes_equal_the_literal_version(
    batch: int, cells: int, ratio: float, seed: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, cells))
    x, attention = drawn(batch, cells, 3, seed=seed), drawn(batch, cells, seed=seed + 1)
    important, diverse = vispruner(x, attention, count, ratio)
    for i in range(batch):
        expected = literal.vispruner(x[i].tolist(), attention[i].tolist(), count, ratio)
        assert (important[i].tolist(), diverse[i].tolist()) == expected


@settings(max_examples=30, deadline=None)
@given(heads=st.integers(1, 4), cells=st.integers(1, 9), size=st.integers(1, 5), seed=st.integers(0, 999))
def test_attention_equals_the_literal_version(heads: int, cells: int, size: int, seed: int) -> None:
    queries, keys = drawn(2, heads, cells + 1, size, seed=seed), drawn(2, heads, cells + 1, size, seed=seed + 1)
    expected = [literal.cls_attention(q[:, 0].tolist(), k.tolist()) for q, k in zip(queries, keys, strict=True)]
    torch.testing.assert_close(
        cls_attention(queries, keys).mean(1), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10
    )


def test_the_choice_never_reads_a_value_on_the_host() -> None:
    """Meta tensors have no values to read."""
    important, diverse = vispruner(torch.empty(2, 30, 4, device="meta"), torch.empty(2, 30, device="meta"), 11)
    assert (important.shape, diverse.shape) == ((2, 5), (2, 6))
