"""SparseVLM: what its card says, on cases worked out by hand, and against a slow version."""

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
from atp_eval.errors import UserError
from atp_eval.methods import Embeddings, Geometry, get_method
from atp_eval.methods.budget import average_input
from atp_eval.methods.sparsevlm import SparseVLM, raters, solve_keep, sparsify, stage_counts, tokens_after

LLAVA, TINY, SMALL = Geometry(32, (24, 24)), Geometry(8, (24, 24)), Geometry(5, (6, 6))
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


# Counts


@pytest.mark.parametrize(("official", "after", "inputs", "outputs"), [
    ("192", (309, 204, 113), 206.5, 192.03125),
    ("128", (312, 117, 39), 145.40625, 128.625),
    ("96", (249, 55, 27), 114.09375, 96.9375),
    ("64", (82, 32, 18), 82.25, 64.8125),
])  # fmt: skip
def test_official_counts_and_their_averages(
    official: str, after: tuple[int, ...], inputs: float, outputs: float
) -> None:
    """The authors' log says 192.03125 for "192" (their repository, issue 24): the average of layer outputs."""
    method = get_method(f"sparsevlm:official={official}").solve(LLAVA)
    assert method.prune_layers == (3, 7, 16)
    assert method.counts() == after
    assert average_input(LLAVA, method.prune_layers, after) == inputs
    assert average_input(LLAVA, (2, 6, 15), after) == outputs


@pytest.mark.parametrize(("tokens", "keep", "counts"), [
    (576, 300, (300, 83, 9)), (309, 200, (200, 33, 4)), (204, 110, (110, 29, 3)),
    (576, 303, (303, 82, 9)), (312, 110, (110, 61, 7)), (117, 36, (36, 25, 3)),
    (576, 238, (238, 102, 11)), (249, 48, (48, 61, 7)), (55, 26, (26, 9, 1)),
    (576, 66, (66, 154, 16)), (82, 30, (30, 16, 2)), (32, 17, (17, 5, 1)),
])  # fmt: skip
def test_the_official_stages(tokens: int, keep: int, counts: tuple[int, ...]) -> None:
    assert stage_counts(tokens, keep) == counts


def test_at_least_one_token_is_dropped_and_at_least_one_recycled() -> None:
    assert stage_counts(204, 300) == (203, 1, 1)
    assert stage_counts(36, 36) == (35, 1, 1)
    assert stage_counts(2, 9) == (1, 1, 1)
    assert stage_counts(1, 1) == (0, 1, 1)  # one token becomes itself
    assert stage_counts(31, 1) == (1, 10, 2)  # int(10 / 10) + 1
    assert tokens_after(100, (60, 60, 60)) == (62, 61, 61)  # of 61 one is dropped, and comes back by itself


def test_layers_are_scaled_distinct_and_rising() -> None:
    def layers(depth: int) -> tuple[int, ...]:
        return get_method("sparsevlm").solve(Geometry(depth, (24, 24))).prune_layers

    assert [layers(n) for n in (32, 40, 16, 8, 5, 4)] == [
        (3, 7, 16), (4, 9, 20), (2, 4, 8), (1, 2, 4), (1, 2, 3), (1, 2, 3),
    ]  # fmt: skip
    with pytest.raises(UserError, match="layer=3 is not in this model; it has layers 0 to 2"):
        layers(3)


def test_official_counts_are_shares_of_other_images() -> None:
    assert get_method("sparsevlm").solve(TINY).keep == (300, 200, 110)  # type: ignore[attr-defined]
    assert get_method("sparsevlm:official=64").solve(SMALL).keep == (4, 2, 1)  # type: ignore[attr-defined]
    assert get_method("sparsevlm").solve(Geometry(32, (5, 7))).keep == (18, 12, 7)  # type: ignore[attr-defined]
    assert str(get_method("sparsevlm").solve(LLAVA)) == "sparsevlm:layers=3-7-16,keep=300-200-110"


@pytest.mark.parametrize("geometry", [LLAVA, TINY, Geometry(40, (16, 20))])
def test_every_budget_is_met_within_two_fifths_of_a_token(geometry: Geometry) -> None:
    lowest = None
    for average in range(1, geometry.cells + 1, 5):
        try:
            solved = get_method(f"sparsevlm@{average}").solve(geometry)
        except UserError as error:
            assert lowest is None, "above a budget that is met all are"
            nearest = str(error).partition("The nearest is ")[2].partition(";")[0]
            counts = get_method(nearest).solve(geometry).counts()
            assert counts is not None and counts[-1] <= 2  # nothing smaller exists
            continue
        lowest = lowest or average
        counts = solved.counts()
        assert counts is not None and abs(average_input(geometry, solved.prune_layers, counts) - average) <= 0.4
    assert lowest


def test_the_official_lists_lie_on_the_line_of_the_budgets() -> None:
    for shape in ((300, 200, 110), (303, 110, 36), (238, 48, 26), (66, 30, 17)):
        assert solve_keep(average_input(LLAVA, (3, 7, 16), tokens_after(576, shape)), (3, 7, 16), LLAVA) == shape
    between = get_method("sparsevlm@144").solve(LLAVA)
    assert str(between) == "sparsevlm:layers=3-7-16,keep=300-107-36" and between.counts() == (309, 114, 39)


def test_the_full_image_is_left_alone() -> None:
    method = get_method("sparsevlm@24").solve(Geometry(8, (4, 6)))
    assert method.keep == (24, 24, 24) and method.counts() == (24, 24, 24)  # type: ignore[attr-defined]
    point: Any = FakePoint(1, random_tensor(2, 24), random_tensor(2, 24, 4))
    decision = method.decide(point)
    assert decision.keep.all() and decision.carry is None and decision.order is None and decision.values is None


@pytest.mark.parametrize(("spec", "message"), [
    ("sparsevlm:keep=9-5-3,layers=1-2", "2 layers need as many counts in keep, not 3"),
    ("sparsevlm:keep=9-10-3", "keep=9-10-3 must fall"),
    ("sparsevlm:keep=9-5-0", "keep=9-5-0 must fall and end at 1 or more"),
    ("sparsevlm:layers=7-3-16", "layers=7-3-16 must rise"),
    ("sparsevlm:layers=0-3-16", "layers=0-3-16 must start at 1 or later"),
    ("sparsevlm@144:keep=9-5-3", "give a budget (@144) or keep=9-5-3, not both"),
    ("sparsevlm@144:official=96", "official=96 goes without a budget and without keep"),
    ("sparsevlm:official=96,keep=9-5-3", "official=96 goes without a budget and without keep"),
    ("sparsevlm:official=144", "unknown value of official for sparsevlm '144'"),
    ("sparsevlm:cells=9", "unknown parameter of sparsevlm 'cells'"),
])  # fmt: skip
def test_wrong_parameters_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_method(spec)
    assert message in str(error.value)


@pytest.mark.parametrize(("spec", "geometry", "message"), [
    ("sparsevlm@577", LLAVA, "an image has only 576 visual tokens"),
    ("sparsevlm@40", LLAVA, "sparsevlm@40 is out of reach with layers=3-7-16 of 32: those before layer 3 see all 576 "
     "tokens. The nearest is sparsevlm@58"),
    ("sparsevlm@144:layers=16-20-24", LLAVA, "The nearest is sparsevlm@292:layers=16-20-24"),
    ("sparsevlm:keep=577-5-3", LLAVA, "keep=577 is out of range"),
    ("sparsevlm:keep=9-5", LLAVA, "3 layers need as many counts in keep, not 2"),
    ("sparsevlm:layers=3-16", LLAVA, "2 layers need as many counts in keep, not 3"),
    ("sparsevlm@144:layers=3-16", LLAVA, "2 layers need as many counts in keep, not 3"),
    ("sparsevlm:layers=3-16-32", LLAVA, "layer=32 is not in this model"),
])  # fmt: skip
def test_what_does_not_fit_the_model_is_refused(spec: str, geometry: Geometry, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_method(spec).solve(geometry)
    assert message in str(error.value)


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


def test_what_a_spec_leaves_open_is_solved_once() -> None:
    solved = get_method("sparsevlm@20").solve(SMALL)
    assert isinstance(solved, SparseVLM)
    assert solved.cells == 36 and solved == get_method(str(solved)) and solved.positions == "contiguous"
    with pytest.raises(AssertionError, match="solve"):
        get_method(str(solved)).counts()


def test_choosing_never_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads(monkeypatch, "sparsevlm") == 0
