"""The controls: thresholds at their means, counts of other samples, one count for all; and `decide` at given points."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from engine.small import small_llava

from atp_eval.methods.atp.rules import margin
from atp_eval.methods.atp.scores import normalise, redundant_score, spatial_score
from methods.adapters import random_adapter
from methods.atp.proofs import made


class Point:
    """Scores of samples by name; the same name has the same scores in any batch."""

    grid = (6, 6)

    def __init__(self, layer: int, names: str, kept: torch.Tensor | None = None) -> None:
        self.layer, self.sample_ids = layer, tuple(names)
        generators = [torch.Generator().manual_seed(ord(name)) for name in names]
        self._raw = torch.stack([torch.randn(2, 36, generator=g, dtype=torch.float64) for g in generators], 1)
        self.kept = torch.ones(len(names), 36, dtype=torch.bool) if kept is None else kept

    def self_score(self, causal: bool = False) -> torch.Tensor:
        return self._raw[0].masked_fill(~self.kept, float("-inf"))

    def cross_score(self) -> torch.Tensor:
        return self._raw[1].abs().masked_fill(~self.kept, float("-inf"))


@pytest.fixture(scope="module")
def adapter() -> Any:
    return random_adapter(small_llava())


def walk(method: Any, names: str) -> list[torch.Tensor]:
    """[B, 36] kept after each of the two prune points."""
    first = method.decide(Point(1, names)).keep
    point = Point(3, names, first)
    return [first, method.decide(point).keep & point.kept]


def test_static_thresholds_are_the_same_for_every_sample(adapter: Any) -> None:
    """And are read from the adapter: a token stays if it passes one of them."""
    found = walk(made(adapter, control="static"), "abcd")[0]
    point = Point(1, "abcd")
    own, cross = (normalise(s, point.kept, "minmax", "self") for s in (point.self_score(), point.cross_score()))
    theta_r, theta_s = adapter.theta[0].tolist()
    passed = (redundant_score(own, cross) >= theta_r) | (spatial_score((6, 6)) >= theta_s)
    assert torch.equal(found, passed)
    assert not torch.equal(found, walk(made(adapter), "abcd")[0])


def test_shuffled_counts_are_those_of_one_training_sample(adapter: Any) -> None:
    """The same one at every prune point, by the sample's name alone, and not the sample's own."""
    names = "abcdefghij"
    counts = torch.stack([kept.sum(1) for kept in walk(made(adapter, control="shuffled"), names)], 1).tolist()
    known = adapter.counts.tolist()
    assert all(pair in known for pair in counts)
    assert len({tuple(pair) for pair in counts}) > 4
    own = torch.stack([kept.sum(1) for kept in walk(made(adapter), names)], 1).tolist()
    assert counts != own
    for place, name in enumerate(names):
        (alone,) = torch.stack([k.sum(1) for k in walk(made(adapter, control="shuffled"), name)], 1).tolist()
        assert alone == counts[place]


def test_shuffled_counts_keep_the_best_by_the_margin(adapter: Any) -> None:
    """And all survivors where fewer are left than the count."""
    few = torch.arange(36)[None] < torch.tensor([[2], [36], [36]])
    point = Point(1, "abc", few)
    found = made(adapter, control="shuffled").decide(point).keep
    own = normalise(point.self_score(), few, "minmax", "self")
    cross = normalise(point.cross_score(), few, "minmax", "cross")
    theta = [t.double() for t in adapter.modules[0](own, cross, (6, 6))]
    passed = margin(redundant_score(own, cross), spatial_score((6, 6)), *theta)
    assert (found <= few).all()
    for row in range(3):
        stay, leave = passed[row][found[row]], passed[row][few[row] & ~found[row]]
        assert len(stay) and (not len(leave) or stay.min() > leave.max())


def test_fixed_counts_are_scaled_means_that_never_rise(adapter: Any) -> None:
    counts = torch.tensor([[30, 12], [20, 10], [11, 3]])  # means 20 1/3 and 8 1/3
    known = replace(adapter, counts=counts)
    for scale, expected in [(1.0, (20, 8)), (0.5, (10, 4)), (0.01, (1, 1)), (3.0, (36, 25)), (9.0, (36, 36))]:
        assert made(known, control="fixed", scale=scale).fixed_counts == expected
    assert made(replace(adapter, counts=counts.flip(1)), control="fixed").fixed_counts == (8, 8)


def test_fixed_keeps_the_same_count_of_every_sample_and_knows_it(adapter: Any) -> None:
    known = replace(adapter, counts=torch.tensor([[25, 9], [16, 4]]))  # 20 or 21 of 36, then 6 or 7
    method = made(known, control="fixed")
    kept = None
    for layer, count in zip((1, 3), method.fixed_counts, strict=True):
        found = method.decide(Point(layer, "abcd", kept))
        assert found.count == count
        assert found.keep.sum(1).tolist() == [count] * 4
        assert kept is None or (found.keep <= kept).all()
        kept = found.keep


def test_fixed_ranks_by_the_thresholds_that_static_keeps_by(adapter: Any) -> None:
    """With static's own count it keeps what static keeps: only the varying count tells the two apart."""
    static = walk(made(adapter, control="static"), "abcd")[0]
    assert len(set(static.sum(1).tolist())) > 1
    for row, name in enumerate("abcd"):
        count = int(static[row].sum())
        same = replace(adapter, counts=torch.full((5, 2), count))
        assert torch.equal(made(same, control="fixed").decide(Point(1, name)).keep[0], static[row])


@pytest.mark.parametrize("control", ["fixed", "shuffled"])
def test_equal_margins_go_by_the_redundant_score(control: str) -> None:
    """By the spatial rule alone cells of one grid are equal: the better ones stay, wherever they lie."""
    adapter = random_adapter(small_llava(), rules="spatial", scores="cross")
    (found,) = made(replace(adapter, counts=torch.full((4, 2), 5)), control=control).decide(Point(1, "a")).keep
    spatial, cross = spatial_score((6, 6)), Point(1, "a").cross_score()[0]
    order = sorted(range(36), key=lambda i: (-spatial[i], -cross[i]))
    assert found.nonzero().flatten().tolist() == sorted(order[:5])
    assert sorted(order[:5]) != sorted(sorted(range(36), key=lambda i: -spatial[i])[:5])


@pytest.mark.parametrize("options", [{}, {"scores": "self"}, {"scores": "cross"}, {"rules": "redundant"}])
def test_the_module_sees_both_scores_whatever_the_switches(options: dict[str, str]) -> None:
    """Tab. 4 and 5 remove a score from the average or a rule, not from the module's input."""
    adapter, seen = random_adapter(small_llava(), **options), []
    adapter.modules[0].register_forward_pre_hook(lambda module, args: seen.append(args))
    point = Point(1, "ab")
    made(adapter).decide(point)
    ((own, cross, grid),) = seen
    assert torch.equal(own, normalise(point.self_score(), point.kept, "minmax", "self"))
    assert torch.equal(cross, normalise(point.cross_score(), point.kept, "minmax", "cross"))
    assert grid == (6, 6)
