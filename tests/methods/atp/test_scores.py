"""Eq. 3-5 and the scales on which scores meet thresholds, against the literal versions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import atp as literal

from atp_eval.engine.scores import causal_self_score, self_score
from atp_eval.methods.atp.scores import STRIDES, normalise, redundant_score, spatial_score

NORMS = ("minmax", "rel", "rank", "zscore", "none")
# Few different values, so that ties are common, or any; not so close that the literal version loses digits.
values = st.one_of(st.sampled_from([-1.5, 0.0, 0.1, 3.0]), st.floats(-50, 50).map(lambda x: round(x, 4)))
shares = st.one_of(st.sampled_from([0.0, 0.001, 0.5]), st.floats(0, 1).map(lambda x: round(x, 6)))


@st.composite
def batches(draw: st.DrawFn, value: st.SearchStrategy[float] = values) -> list[list[tuple[float, bool]]]:
    """Samples of (score, is it still there); each has a survivor."""
    cells = draw(st.integers(1, 12))
    sample = st.lists(st.tuples(value, st.booleans()), min_size=cells, max_size=cells)
    batch = draw(st.lists(sample, min_size=1, max_size=3))
    return [[(s, kept or not any(k for _, k in sample)) for s, kept in sample] for sample in batch]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["self", "cross"])
@given(data=st.data())
def test_normalise_equals_the_literal_version(norm: str, kind: str, data: st.DataObject) -> None:
    batch = data.draw(batches(values if kind == "self" else shares))
    kept = torch.tensor([[there for _, there in sample] for sample in batch])
    raw = torch.tensor([[s if there else -math.inf for s, there in sample] for sample in batch], dtype=torch.float64)
    found = normalise(raw, kept, norm, kind)  # type: ignore[arg-type]
    assert (found[~kept] == 0).all()
    for row, sample in enumerate(batch):
        truth = literal.normalise([s for s, there in sample if there], norm, kind)
        torch.testing.assert_close(found[row][kept[row]].tolist(), truth, rtol=1e-9, atol=1e-7)
    if norm in ("minmax", "rank", "rel"):
        assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize(("norm", "kind", "scores", "truth"), [
    ("minmax", "self", [3.0, 1.0, 2.0], [1.0, 0.0, 0.5]),
    ("minmax", "self", [5.0, 5.0, 5.0], [0.0, 0.0, 0.0]),
    ("minmax", "cross", [0.2], [0.0]),
    ("rank", "self", [7.0, 1.0, 1.0, 9.0], [2 / 3, 1 / 6, 1 / 6, 1.0]),
    ("rank", "cross", [0.4, 0.4], [0.5, 0.5]),
    ("rank", "self", [-4.0], [0.0]),
    ("zscore", "self", [1.0, 3.0], [-1.0, 1.0]),
    ("zscore", "cross", [0.1], [0.0]),
    ("zscore", "self", [0.1, 0.1, 0.1], [0.0, 0.0, 0.0]),
    ("rel", "self", [2.0, 2.0], [0.5, 0.5]),
    ("rel", "self", [1.0, 3.0], [1 / (1 + math.e), math.e / (1 + math.e)]),
    ("rel", "cross", [0.3, 0.1], [0.6, 1 / 3]),
    ("rel", "cross", [0.0, 0.0], [0.0, 0.0]),
    ("rel", "cross", [0.7], [0.5]),
    ("none", "self", [-4.0, 2.0], [-4.0, 2.0]),
])  # fmt: skip
def test_normalise_by_hand(norm: str, kind: str, scores: list[float], truth: list[float]) -> None:
    """Alone, and with a token that is gone and was the best: it counts nowhere."""
    for extra in ([], [1e3]):
        raw = torch.tensor([[*scores, *extra]], dtype=torch.float64)
        kept = torch.tensor([[True] * len(scores) + [False] * len(extra)])
        found = normalise(raw, kept, norm, kind)[0]  # type: ignore[arg-type]
        torch.testing.assert_close(found.tolist(), [*truth, *[0.0] * len(extra)], rtol=0, atol=1e-12)


def test_half_precision_is_normalised_in_fp32_and_a_sample_alone_like_in_a_batch() -> None:
    raw = torch.randn(4, 9, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16)
    kept = torch.rand(4, 9, generator=torch.Generator().manual_seed(3)) < 0.7
    for norm in NORMS:
        found = normalise(raw, kept, norm, "self")  # type: ignore[arg-type]
        assert found.dtype == torch.float32
        for row in range(4):
            one = normalise(raw[row : row + 1], kept[row : row + 1], norm, "self")  # type: ignore[arg-type]
            torch.testing.assert_close(one[0], found[row], rtol=0, atol=1e-6)


@pytest.mark.parametrize("scores", ["both", "self", "cross"])
@given(pairs=st.lists(st.tuples(values, values), min_size=1, max_size=9), mix=st.none() | st.floats(0, 1))
def test_redundant_score_equals_the_literal_version(
    scores: str, pairs: list[tuple[float, float]], mix: float | None
) -> None:
    own, cross = torch.tensor(pairs, dtype=torch.float64).T[:, None]
    weight = None if mix is None else torch.tensor([mix], dtype=torch.float64)
    found = redundant_score(own, cross, scores, weight)[0].tolist()  # type: ignore[arg-type]
    truth = literal.s_redundant(own[0].tolist(), cross[0].tolist(), scores, 0.5 if mix is None else mix)
    torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-12)


def test_spatial_score_of_24_by_24() -> None:
    """The sparsest grid that holds a cell counts: stride 2, 3, 4, 6, 8, 12, 24."""
    score = spatial_score((24, 24)).view(24, 24)
    by_stride = [score[2, 2], score[3, 3], score[4, 4], score[6, 6], score[8, 8], score[12, 12], score[0, 0]]
    truth = [0.25, 2 / 3, 0.8125, 11 / 12, 0.953125, 1 - 3 * 4 / 576, 1 - 3 / 576]
    torch.testing.assert_close(torch.stack(by_stride).tolist(), truth, rtol=0, atol=1e-15)
    assert (score[1::2] * (torch.arange(1, 24, 2)[:, None] % 3 > 0) == 0).all()  # rows on no grid
    passing = [(score >= theta).sum().item() for theta in (0.2, 0.5, 0.8, 0.9, 0.95, 0.97, 0.99, 1.0)]
    assert passing == [192, 96, 48, 24, 12, 4, 1, 0]


@given(
    grid=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    factor=st.floats(0.1, 9),
    strides=st.lists(st.integers(1, 30), min_size=1, max_size=5),
)
def test_spatial_score_equals_the_literal_version(grid: tuple[int, int], factor: float, strides: list[int]) -> None:
    found = spatial_score(grid, factor, tuple(strides))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.tolist(), literal.s_spatial(grid, factor, strides), rtol=0, atol=1e-12)
    torch.testing.assert_close(spatial_score(grid).tolist(), literal.s_spatial(grid, 3.0, STRIDES), rtol=0, atol=1e-12)


@given(
    heads=st.sampled_from([(1, 1), (4, 2), (6, 1)]),
    visual=st.lists(st.booleans(), min_size=2, max_size=9),
    causal=st.booleans(),
    seed=st.integers(0, 99),
)
def test_self_score_equals_the_literal_version(
    heads: tuple[int, int], visual: list[bool], causal: bool, seed: int
) -> None:
    """Eq. 3 from queries and keys, with grouped heads; with and without a causal mask."""
    generator, length = torch.Generator().manual_seed(seed), len(visual)
    query = torch.randn(1, heads[0], length, 4, generator=generator, dtype=torch.float64)
    key = torch.randn(1, heads[1], length, 4, generator=generator, dtype=torch.float64)
    logits = (query @ key.repeat_interleave(heads[0] // heads[1], 1).transpose(2, 3) * 0.3)[0].tolist()
    places = [place for place, is_visual in enumerate(visual) if is_visual]
    score = causal_self_score if causal else self_score
    found = score(query, key, torch.tensor([visual]), 0.3)[0][places].tolist()
    torch.testing.assert_close(found, literal.s_self(logits, places, causal), rtol=0, atol=1e-12)
