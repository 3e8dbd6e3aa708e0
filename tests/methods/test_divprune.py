"""DivPrune: greedy max-min diversity, against hand-computed cases and a slow literal version."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import divprune as literal

from atp_eval.errors import UserError
from atp_eval.methods import Geometry, get_method
from atp_eval.methods.divprune import cosine_distances, divprune, max_min

LLAVA = Geometry(32, (24, 24))


def line(*places: float) -> torch.Tensor:
    """[1, V, V]: distances of points on a line."""
    at = torch.tensor(places, dtype=torch.float64)
    return (at[:, None] - at).abs()[None]


def features(batch: int, cells: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(batch, cells, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def point(hidden: torch.Tensor, grid: tuple[int, int]) -> Any:
    return SimpleNamespace(layer=0, grid=grid, hidden=hidden, kept=torch.ones(hidden.shape[:2], dtype=torch.bool))


def test_the_first_is_the_token_whose_nearest_neighbour_is_farthest() -> None:
    """Nearest neighbours of 0, 1, 5, 9, 11 on a line are 1, 1, 4, 2, 2 away: not the outermost, the loneliest."""
    assert max_min(line(0, 1, 5, 9, 11), 1).tolist() == [[2]]


def test_each_next_is_the_farthest_from_those_chosen() -> None:
    """5 first; 11 is 6 away, 0 is 5; then 0 (5 from 5) before 9 (2 from 11); then 9 before 1."""
    assert max_min(line(0, 1, 5, 9, 11), 5).tolist() == [[2, 4, 0, 3, 1]]


def test_of_equal_distances_the_earlier_token_wins() -> None:
    assert max_min(line(0, 1, 2, 3), 4).tolist() == [[0, 3, 1, 2]]  # all nearest at 1; then 1 and 2 both at 1
    assert max_min(torch.zeros(1, 4, 4), 3).tolist() == [[0, 1, 2]]


def test_duplicates_and_negative_distances_never_name_a_token_twice() -> None:
    """The authors' code falls back to a chosen token here: its own distance 0 is above -1e-16."""
    distances = torch.tensor([[[0.0, -1e-16, 1.0], [-1e-16, 0.0, 1.0], [1.0, 1.0, 0.0]]], dtype=torch.float64)
    assert max_min(distances, 3).tolist() == [[2, 0, 1]]
    same = torch.ones(1, 6, 3, dtype=torch.float64)
    assert sorted(divprune(same, 6)[0].tolist()) == list(range(6))


def test_none_one_and_all_tokens() -> None:
    x = features(2, 5, 3, seed=1)
    assert divprune(x, 0).shape == (2, 0)
    assert divprune(x[:, :1], 1).tolist() == [[0], [0]]
    assert divprune(x, 5).sort(1).values.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_distances_are_one_minus_the_cosine_whatever_the_lengths() -> None:
    x = torch.tensor([[[2.0, 0.0], [0.0, 0.1], [-3.0, 0.0], [1.0, 1.0], [0.0, 0.0]]], dtype=torch.float64)
    half = 1 - 0.5**0.5
    expected = [[0, 1, 2, half, 1], [1, 0, 1, half, 1], [2, 1, 0, 2 - half, 1], [half, half, 2 - half, 0, 1], [1] * 5]
    torch.testing.assert_close(cosine_distances(x)[0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)


def test_two_that_are_each_others_nearest_tie_exactly() -> None:
    """As in this drawing, where a matrix product's rounding would prefer 9 to 5."""
    drawn = features(2, 10, 5, seed=66)
    distances = cosine_distances(drawn)
    assert torch.equal(distances, distances.transpose(1, 2))
    nearest = distances.masked_fill(torch.eye(10, dtype=torch.bool), 9.0).min(1)
    assert nearest.indices[0, [5, 9]].tolist() == [9, 5] and nearest.values[0].max() == nearest.values[0, 5]
    assert divprune(drawn, 1)[0].tolist() == [5]


def test_half_precision_is_compared_in_single() -> None:
    x = features(1, 4, 8, seed=2).half()
    assert cosine_distances(x).dtype == torch.float32
    assert torch.equal(cosine_distances(x), cosine_distances(x.float()))


@pytest.mark.parametrize(("spec", "keep"), [
    ("divprune", 56), ("divprune@192", 192), ("divprune@144", 144), ("divprune:keep=3", 3),
    ("divprune:ratio=1/3", 192), ("divprune:ratio=2/9", 128), ("divprune:ratio=1/9", 64), ("divprune:ratio=1", 576),
])  # fmt: skip
def test_counts_of_the_readme_and_of_budgets(spec: str, keep: int) -> None:
    solved = get_method(spec).solve(LLAVA)
    assert str(solved) == f"divprune:keep={keep}" and solved.counts() == (keep,) and solved.prune_layers == (0,)


@pytest.mark.parametrize(("rows", "cols", "keep"), [(5, 1, 2), (7, 1, 4), (1, 9, 4), (11, 1, 6)])
def test_shares_round_halves_to_the_even_number(rows: int, cols: int, keep: int) -> None:
    """2.5, 3.5, 4.5 and 5.5 tokens."""
    assert str(get_method("divprune:ratio=0.5").solve(Geometry(4, (rows, cols)))) == f"divprune:keep={keep}"


@pytest.mark.parametrize(("spec", "message"), [
    ("divprune:ratio=0", "ratio=0.0 must be above 0 and at most 1"),
    ("divprune:ratio=1.5", "ratio=1.5 must be above 0"),
    ("divprune@9:ratio=0.5", "give a count (9) or ratio=0.5, not both"),
    ("divprune:keep=9,ratio=0.5", "give a count (9) or ratio=0.5, not both"),
    ("divprune:keep=0", "keep=0 leaves nothing"),
    ("divprune@9:keep=9", "give a budget (@9) or keep=9, not both"),
    ("divprune:layer=2", "unknown parameter of divprune 'layer'"),
    ("divprune@577", "an image has only 576 visual tokens"),
    ("divprune:keep=577", "keep=577 is out of range"),
    ("divprune:ratio=0.0005", "keep=0 is out of range"),
])  # fmt: skip
def test_wrong_parameters_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_method(spec).solve(LLAVA)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("grid", [(6, 6), (3, 5), (1, 8)])
def test_the_method_keeps_what_the_literal_version_names(grid: tuple[int, int]) -> None:
    cells = grid[0] * grid[1]
    x = features(3, cells, 4, seed=cells)
    for keep in range(1, cells + 1):
        decision = get_method(f"divprune:keep={keep}").solve(Geometry(4, grid)).decide(point(x, grid))
        assert decision.count == keep and decision.values is None and decision.order is None
        for sample in range(3):
            assert torch.where(decision.keep[sample])[0].tolist() == sorted(literal.divprune(x[sample].tolist(), keep))


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3), cells=st.integers(1, 14), width=st.integers(1, 6), seed=st.integers(0, 999), data=st.data()
)
def test_indexes_equal_the_literal_version(batch: int, cells: int, width: int, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, cells))
    x = features(batch, cells, width + 1, seed)
    expected = [literal.divprune(sample.tolist(), count) for sample in x]
    assert divprune(x, count).tolist() == expected
    assert divprune(x[-1:], count).tolist() == expected[-1:]


@settings(max_examples=30, deadline=None)
@given(cells=st.integers(1, 12), levels=st.integers(1, 4), seed=st.integers(0, 999), data=st.data())
def test_ties_equal_the_literal_version(cells: int, levels: int, seed: int, data: st.DataObject) -> None:
    """Distances of a few whole numbers: most choices are between equals."""
    count = data.draw(st.integers(0, cells))
    drawn = torch.randint(0, levels, (2, cells, cells), generator=torch.Generator().manual_seed(seed)).double()
    distances = (drawn + drawn.transpose(1, 2)) * (1 - torch.eye(cells, dtype=torch.float64))
    assert max_min(distances, count).tolist() == [literal.max_min(d.tolist(), count) for d in distances]


def test_the_choice_never_reads_a_value_on_the_host() -> None:
    """Meta tensors have no values to read."""
    assert divprune(torch.empty(2, 9, 4, device="meta"), 5).shape == (2, 5)
