"""SparseVLM: raters, recycling and stages, on cases worked out by hand, and against a slow version."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from engine.reference import Reference
from engine.small import make_batch, small_llava, step_by_step
from engine.test_syncs import reads
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import sparsevlm as literal
from torch import Tensor

from atp_eval.engine import prune
from atp_eval.methods import Embeddings, Geometry, get_method
from atp_eval.methods.sparsevlm import SparseVLM, raters, sparsify

DOUBLE = torch.float64


class FakePoint:
    """A point of B samples with given scores and, unless told, tokens in raster order; every text token is alike."""

    sample_ids: tuple[str, ...] = ()

    def __init__(self, layer: int, scores: Tensor, hidden: Tensor, order: Tensor | None = None) -> None:
        batch, cells = scores.shape
        self.layer, self.hidden, self.grid = layer, hidden, (1, cells)
        self.order = torch.arange(cells).expand(batch, -1) if order is None else order
        self.kept = self.order < cells
        self.embeddings = Embeddings(hidden, hidden[:, :3] * 0, torch.tensor([[False, True, True]] * batch))
        self._scores = scores.masked_fill(~self.kept, -math.inf)

    def rows(self, weights: Tensor) -> Tensor:
        assert torch.equal(weights.bool(), self.embeddings.is_text)
        return self._scores


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def test_the_full_image_is_left_alone() -> None:
    method = get_method("sparsevlm@24").solve(Geometry(8, (4, 6)))
    assert method.keep == (24, 24, 24) and method.counts() == (24, 24, 24)  # type: ignore[attr-defined]
    point: Any = FakePoint(1, random_tensor(2, 24), random_tensor(2, 24, 4))
    decision = method.decide(point)
    assert decision.keep.all() and decision.carry is None and decision.order is None and decision.values is None


# Raters


def test_raters_are_above_the_mean_without_a_scale_on_the_logits() -> None:
    """exp(3, 2.2, 0) is 20.1, 9.0, 1: the first alone is above their mean, 10.04. Over sqrt(4), both would be."""
    visual = torch.tensor([[[1.0, 0, 0, 0]]])
    text = torch.tensor([[[3.0, 9, 9, 9], [2.2, 9, 9, 9], [0.0, 9, 9, 9]]])
    is_text = torch.ones(1, 3, dtype=torch.bool)
    assert raters(visual, text, is_text).tolist() == [[True, False, False]]
    assert raters(visual / 2, text, is_text).tolist() == [[True, True, False]]


def test_raters_are_those_of_the_mean_over_visual_tokens() -> None:
    """Shares of text over two visual tokens: (1 - e, e, e) and (e, 1/2, 1/2): means 1/2, 1/4, 1/4."""
    visual = torch.tensor([[[1.0, 0], [0, 1.0]]])
    text = torch.tensor([[[50.0, 0], [0, 50.0], [0, 50.0]]])
    assert raters(visual, text, torch.ones(1, 3, dtype=torch.bool)).tolist() == [[True, False, False]]


def test_a_token_at_the_mean_rates_not() -> None:
    """Of 8 visual tokens 4, 2, 1 and 1 speak to one text token alone: m is 1/2, 1/4, 1/8, 1/8, and its mean 1/4."""
    one_hot = torch.eye(4, dtype=DOUBLE)
    visual = 60 * one_hot[[0, 0, 0, 0, 1, 1, 2, 3]][None]
    assert raters(visual, one_hot[None], torch.ones(1, 4, dtype=torch.bool)).tolist() == [[True, False, False, False]]


def test_where_none_is_above_the_mean_all_rate() -> None:
    visual = random_tensor(2, 5, 4)
    is_text = torch.tensor([[False, False, True], [False, True, True]])
    alike = random_tensor(1, 1, 4, seed=1).expand(2, 3, 4)
    assert torch.equal(raters(visual, alike, is_text), is_text)


def test_only_text_after_the_image_rates_or_counts() -> None:
    """The prompts of a batch are of unequal length: what stands before the text of a shorter one changes nothing."""
    visual, text = random_tensor(3, 9, 4), random_tensor(3, 12, 4, seed=1)
    lengths = [12, 7, 1]
    is_text = torch.stack([torch.arange(12) >= 12 - n for n in lengths])
    text[1, :5] = 40.0
    found = raters(visual, text, is_text)
    assert not (found & ~is_text).any()
    for sample, length in enumerate(lengths):
        whole = torch.ones(1, length, dtype=torch.bool)
        alone = raters(visual[sample : sample + 1], text[sample : sample + 1, 12 - length :], whole)
        assert torch.equal(found[sample, 12 - length :], alone[0])


# One stage


def test_the_best_stay_in_order_the_next_best_are_recycled_and_the_rest_is_gone() -> None:
    """9 tokens, 4 stay; of 5 dropped int(1.5) + 1 = 2 become int(0.2) + 1 = 1: tokens 6 and 2, with scores 5 and 4."""
    scores = torch.tensor([[9.0, 1, 4, 8, 2, 7, 5, 3, 6]])
    hidden = torch.arange(9, dtype=DOUBLE)[None, :, None].expand(-1, -1, 2) ** 2
    found = sparsify(scores, hidden, 4)
    assert found.kept.tolist() == [[0, 3, 5, 8]]
    assert found.clusters.tolist() == [[6]]  # one cluster: all tie, the best dropped one is first
    assert found.merged.tolist() == [[[20.0, 20.0]]]  # (36 + 4) / 2


def test_of_equal_scores_the_earlier_token_stays_and_is_recycled_first() -> None:
    found = sparsify(torch.zeros(1, 9), torch.arange(9.0)[None, :, None], 4)
    assert found.kept.tolist() == [[0, 1, 2, 3]]
    assert found.clusters.tolist() == [[4]] and found.merged.tolist() == [[[4.5]]]


def test_clusters_come_after_the_kept_in_falling_order_of_rho_delta() -> None:
    """60 tokens, 4 stay, 17 are recycled into 2: token 40 and its twins near it are the densest.

    With 2 clusters the two closest tie (see the clustering's tests): 41 and 40, 41 having the higher score.
    """
    hidden = torch.arange(60.0, dtype=DOUBLE)[None, :, None] * 3
    hidden[0, 41] = hidden[0, 40] + 0.5
    scores = torch.arange(60.0, dtype=DOUBLE)[None]  # the last 4 stay, 39 to 55 are recycled
    point: Any = FakePoint(1, scores, hidden)
    decision = SparseVLM(layers=(1,), keep=(4,)).solve(Geometry(8, (1, 60))).decide(point)
    assert torch.where(decision.keep[0])[0].tolist() == [56, 57, 58, 59]
    assert decision.carry is not None and decision.order is not None and decision.values is not None
    assert torch.where(decision.carry[0])[0].tolist() == [40, 41]
    assert decision.order[0, [56, 57, 58, 59, 41, 40]].tolist() == [0, 1, 2, 3, 4, 5]
    near = [hidden[0, list(range(41, 56))].mean(), hidden[0, [39, 40]].mean()]
    torch.testing.assert_close(decision.values[0, [41, 40], 0], torch.stack(near))
    assert decision.count == 6


def test_earlier_clusters_are_tokens_like_others_where_they_stand() -> None:
    """Cells 2 and 7 left their places: 2 is now last. Of equal scores those earlier in the sequence stay."""
    order = torch.tensor([[1, 9, 4, 2, 9, 9, 3, 0, 9]])  # sequence: cells 7, 0, 3, 6, 2
    point: Any = FakePoint(2, torch.zeros(1, 9), torch.arange(9.0)[None, :, None], order)
    decision = SparseVLM(layers=(1, 2), keep=(4, 2)).solve(Geometry(8, (3, 3))).decide(point)
    assert SparseVLM(layers=(1, 2), keep=(4, 2)).solve(Geometry(8, (3, 3))).counts() == (5, 3)
    assert torch.where(decision.keep[0])[0].tolist() == [0, 7]
    assert decision.carry is not None and decision.order is not None and decision.values is not None
    assert torch.where(decision.carry[0])[0].tolist() == [3]  # recycled: int(0.9) + 1 = 1
    assert decision.order[0, [7, 0, 3]].tolist() == [0, 1, 2]
    high = torch.tensor([[0.0, 9, 5, 0, 9, 9, 0, 1, 9]])  # the scores of cells that are gone are to be ignored
    point = FakePoint(2, high, torch.arange(9.0)[None, :, None], order)
    decision = SparseVLM(layers=(1, 2), keep=(4, 2)).solve(Geometry(8, (3, 3))).decide(point)
    assert torch.where(decision.keep[0])[0].tolist() == [2, 7]
    assert decision.order is not None and decision.order[0, [7, 2]].tolist() == [0, 1]


def test_a_single_token_becomes_its_own_cluster() -> None:
    method = SparseVLM(layers=(1, 2), keep=(1, 1)).solve(Geometry(8, (2, 2)))
    assert method.counts() == (2, 2)
    found = sparsify(torch.zeros(1, 1), torch.full((1, 1, 3), 7.0), 1)
    assert found.kept.shape == (1, 0) and found.clusters.tolist() == [[0]] and found.merged.tolist() == [[[7.0] * 3]]


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3), tokens=st.integers(1, 80), keep=st.integers(1, 90), channels=st.integers(1, 6),
    seed=st.integers(0, 2**32), digits=st.sampled_from([0, 1, 12]),
)  # fmt: skip
def test_a_stage_equals_the_slow_version(
    batch: int, tokens: int, keep: int, channels: int, seed: int, digits: int
) -> None:
    scores = random_tensor(batch, tokens, seed=seed).round(decimals=digits)
    hidden = random_tensor(batch, tokens, channels, seed=seed + 1)
    found = sparsify(scores, hidden, keep)
    for sample in range(batch):
        kept, clusters, merged = literal.stage(scores[sample].tolist(), hidden[sample].tolist(), keep)
        assert found.kept[sample].tolist() == kept
        assert found.clusters[sample].tolist() == clusters
        torch.testing.assert_close(found.merged[sample], torch.tensor(merged, dtype=DOUBLE), rtol=0, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(
    visual=st.integers(1, 12), lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3), size=st.integers(1, 5),
    seed=st.integers(0, 2**32), scale=st.sampled_from([0.1, 1.0, 4.0]),
)  # fmt: skip
def test_raters_equal_the_slow_version(visual: int, lengths: list[int], size: int, seed: int, scale: float) -> None:
    batch, longest = len(lengths), max(lengths)
    images = random_tensor(batch, visual, size, seed=seed) * scale
    text = random_tensor(batch, longest, size, seed=seed + 1)
    is_text = torch.stack([torch.arange(longest) >= longest - n for n in lengths])
    found = raters(images, text, is_text)
    for sample, length in enumerate(lengths):
        expected = literal.raters(images[sample].tolist(), text[sample, longest - length :].tolist())
        assert found[sample, longest - length :].tolist() == expected
        assert not found[sample, : longest - length].any()


def test_a_sample_is_pruned_alike_in_every_batch() -> None:
    scores, hidden = random_tensor(4, 63).float(), random_tensor(4, 63, 8, seed=1).float()
    order = torch.stack([torch.randperm(63, generator=torch.Generator().manual_seed(i)) for i in range(4)])
    method = SparseVLM(layers=(2,), keep=(9,)).solve(Geometry(8, (7, 9)))
    point: Any = FakePoint(2, scores, hidden, order)
    together = method.decide(point)
    for i in range(4):
        one: Any = FakePoint(2, scores[i : i + 1], hidden[i : i + 1], order[i : i + 1])
        alone = method.decide(one)
        for name in ("keep", "carry", "order"):
            assert torch.equal(getattr(together, name)[i], getattr(alone, name)[0])
        assert together.values is not None and alone.values is not None
        torch.testing.assert_close(together.values[i], alone.values[0])


# In the model


@pytest.mark.parametrize("text", [1, 9])
@pytest.mark.parametrize("heads", [2, 4])
def test_the_pruned_model_equals_the_slow_version(text: int, heads: int) -> None:
    """Raters of the first embeddings in every stage, scores of full maps, clusters that live on, other numbering."""
    model, batch = small_llava(kv_heads=heads, layers=6), make_batch((4, text))
    layers, keep = (1, 3, 4), (12, 8, 5)
    slow = literal.LiteralSparseVLM(layers, keep)
    reference = Reference(model, slow)  # type: ignore[arg-type]
    truth = reference.logits_of(batch, 3)
    with prune(model, f"sparsevlm:layers={'-'.join(map(str, layers))},keep={'-'.join(map(str, keep))}") as pruned:
        found = step_by_step(model, batch, 3)[0]
        trace = pruned.trace
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-10)
    assert trace.tokens_per_layer().tolist() == reference.kept.sum(1).tolist() == [36, 13, 13, 9, 6, 6]
    clusters: set[int] = set()
    for stage in trace.stages:
        kept, merged = set(slow.kept[stage.layer]), set(slow.merged[stage.layer])
        clusters = clusters & kept | merged
        assert set(np.flatnonzero(stage.keep)) == kept - clusters and stage.merged == len(clusters)


def test_raters_are_a_choice_on_the_small_model() -> None:
    """Or the test above would not tell raters from all text."""
    model, batch = small_llava(), make_batch((4, 9))
    seen: list[Tensor] = []

    class Watching(SparseVLM):
        def decide(self, point: Any) -> Any:
            seen.append(raters(*point.embeddings))
            return super().decide(point)

    with prune(model, Watching()):
        step_by_step(model, batch, 1)
    assert len(seen) == 3 and 0 < seen[0].sum() < 9
    assert all(torch.equal(a, b) for a, b in itertools.pairwise(seen))


def test_choosing_never_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads(monkeypatch, "sparsevlm") == 0
