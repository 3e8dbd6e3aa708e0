"""PruMerge and PruMerge+: hand-computed cases, a slow literal version, and stock LLaVA with the tokens put in."""

from __future__ import annotations

from math import log
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine.small import make_batch, step_by_step
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import prumerge as literal
from torch import Tensor

from atp_eval.engine import prune
from atp_eval.errors import UserError
from atp_eval.methods import Geometry, get_method
from atp_eval.methods.prumerge_math import (
    Selection,
    class_attention,
    merge,
    outlier_count,
    ratio_line,
    select_adaptive,
    select_exact,
    select_ratio,
)
from methods.spliced import sharp_llava, spliced

LLAVA = Geometry(32, (24, 24))


def floats(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kept_of(selection: Selection) -> list[list[int]]:
    return [row[:n].tolist() for row, n in zip(selection.pool, selection.kept.tolist(), strict=True)]


def others_of(selection: Selection) -> list[list[int]]:
    return [row[n:].tolist() for row, n in zip(selection.pool, selection.kept.tolist(), strict=True)]


def with_outliers(count: int, cells: list[int]) -> Tensor:
    """[1, 576], the `count` first of these cells far above the others, falling."""
    attention = torch.linspace(1, 2, 576, dtype=torch.float64)
    attention[cells[:count]] = torch.arange(2000, 2000 - count, -1, dtype=torch.float64)
    return attention[None]


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


# The method


def point(grid: tuple[int, int], batch: int = 2, seed: int = 0) -> Any:
    """Before the LLM, with a projector that doubles."""
    cells = grid[0] * grid[1]
    vision = SimpleNamespace(
        features=normal(batch, cells, 4, seed=seed),
        queries=lambda layer: 4 * normal(batch, 2, 1 + cells, 3, seed=seed + {"own": 1, "next": 2}[layer]),
        keys=lambda layer: normal(batch, 2, 1 + cells, 3, seed=seed + {"own": 3, "next": 4}[layer]),
        project=lambda x: 2 * x,
    )
    return SimpleNamespace(layer=0, grid=grid, kept=torch.ones(batch, cells, dtype=torch.bool), vision=vision)


def read(decision: Any, row: int) -> tuple[list[int], Tensor]:
    """Cells whose place is taken, and the tokens, in the order of the sequence."""
    stay = (decision.keep | decision.carry)[row]
    places = sorted(torch.where(stay)[0].tolist(), key=lambda cell: int(decision.order[row, cell]))
    return places, decision.values[row, places]


@pytest.mark.parametrize("spec", [
    "prumerge", "prumerge_plus", "prumerge:keep=5", "prumerge_plus:keep=5,rule=paper", "prumerge_plus@15",
    "prumerge_plus:ratio=1/4", "prumerge:ratio=1/3,neighbours=2", "prumerge_plus:keep=1", "prumerge:keep=34",
])  # fmt: skip
def test_tokens_are_read_high_ones_first_then_the_line_then_the_extra_one(spec: str) -> None:
    """On 5 x 7 cells; the scores and keys are those of the layer after the projected one, the values are projected."""
    method: Any = get_method(spec).solve(Geometry(4, (5, 7)))
    here = point((5, 7))
    decision = method.decide(here)
    flat = here.vision.keys("next")[:, :, 1:].transpose(1, 2).flatten(2)
    for row in range(2):
        a = literal.class_attention(here.vision.queries("next")[row].tolist(), here.vision.keys("next")[row].tolist())
        kept = literal.adaptive(a, method.plus)
        if method.keep is not None:
            kept = literal.exact(a, method.keep, method.plus)
        if method.ratio is not None:
            kept = literal.fixed(a, method.ratio, method.plus)
        assert kept or method.keep == 1
        truth = literal.prumerge(
            here.vision.features[row].tolist(), flat[row].tolist(), a, kept, method.neighbours, method.rule
        )
        places, tokens = read(decision, row)
        torch.testing.assert_close(tokens, 2 * floats(*truth.tokens), rtol=0, atol=1e-10)
        owned = [cell if cell not in kept[:i] else None for i, cell in enumerate(kept)] + [None] * bool(truth.others)
        for place, cell in zip(places, owned, strict=True):
            assert place == cell if cell is not None else place not in kept
        assert torch.where(decision.keep[row])[0].tolist() == sorted(set(kept))
        assert decision.count in (None, len(places))
        assert method.counts() in (None, (len(places),))
    assert torch.equal(decision.rewrite, decision.keep)
    assert not (decision.keep & decision.carry).any()


def test_counts_are_exact_or_the_images_own() -> None:
    for spec, count in (
        ("prumerge@144", 144), ("prumerge_plus@144", 144), ("prumerge_plus:ratio=1/8", 145), ("prumerge:ratio=1/8", 73),
        ("prumerge:keep=33", 33),
    ):  # fmt: skip
        assert get_method(spec).solve(LLAVA).counts() == (count,)
    assert get_method("prumerge").solve(LLAVA).counts() is None
    assert get_method("prumerge_plus").solve(LLAVA).counts() is None
    assert get_method("prumerge").solve(LLAVA).positions == "contiguous"


def test_a_sample_of_a_batch_is_chosen_as_alone() -> None:
    """Their adaptive counts differ."""
    here = point((6, 6), batch=4, seed=11)
    method = get_method("prumerge_plus").solve(Geometry(4, (6, 6)))
    together = method.decide(here)
    assert together.carry is not None
    assert len(set((together.keep | together.carry).sum(1).tolist())) > 1
    for row in range(4):
        alone = point((6, 6), batch=4, seed=11)
        for name in ("queries", "keys"):
            of_all = getattr(here.vision, name)
            setattr(alone.vision, name, lambda layer, f=of_all, r=row: f(layer)[r : r + 1])
        alone.vision.features, alone.kept = here.vision.features[row : row + 1], here.kept[row : row + 1]
        single = method.decide(alone)
        assert read(single, 0)[0] == read(together, row)[0]
        torch.testing.assert_close(read(single, 0)[1], read(together, row)[1], rtol=0, atol=1e-12)


def test_the_full_image_changes_nothing() -> None:
    for spec in ("prumerge@35", "prumerge_plus:keep=35"):
        decision = get_method(spec).solve(Geometry(4, (5, 7))).decide(point((5, 7)))
        assert decision.keep.all()
        assert decision.count == 35
        assert (decision.carry, decision.rewrite, decision.values, decision.order) == (None,) * 4


@pytest.mark.parametrize(
    "spec", ["prumerge", "prumerge_plus", "prumerge_plus@17", "prumerge_plus:ratio=1/4", "prumerge:keep=7,rule=paper"]
)
@torch.no_grad()
def test_stock_llava_answers_the_same_with_the_literal_tokens_put_in(spec: str) -> None:
    model, batch = sharp_llava(), make_batch((4, 6))
    tower, method = model.model.vision_tower, get_method(spec).solve(Geometry(5, (6, 6)))
    assert batch.pixels is not None
    entering = tower(batch.pixels, output_hidden_states=True).hidden_states[-2]  # the last layer's input
    last = tower.encoder.layers[-1]
    query, key = (
        getattr(last.self_attn, name)(last.layer_norm1(entering))[0].tolist() for name in ("q_proj", "k_proj")
    )
    a = literal.class_attention([query], [key])
    kept = literal.adaptive(a, "plus" in spec)
    if "@17" in spec or "keep" in spec:
        kept = literal.exact(a, 17 if "@17" in spec else 7, "plus" in spec)
    elif "ratio" in spec:
        kept = literal.fixed(a, 0.25, True)
    assert kept
    tokens = literal.prumerge(
        entering[0, 1:].tolist(), key[1:], a, kept, 32, "paper" if "paper" in spec else "code"
    ).tokens
    truth = spliced(model, batch, model.model.multi_modal_projector(floats(*tokens)), steps=4)
    with prune(model, method) as pruned:
        found = step_by_step(model, batch, steps=4)[0]
        assert pruned.trace.tokens_per_layer().tolist() == [len(tokens)] * 5
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("spec", "message"), [
    ("prumerge@144:keep=144", "give one of"), ("prumerge:keep=9,ratio=1/8", "give one of"),
    ("prumerge:keep=0", "keep=0 leaves nothing"), ("prumerge_plus:ratio=0", "above 0 and below 1"),
    ("prumerge:ratio=1", "above 0 and below 1"), ("prumerge:neighbours=0", "at least 1"),
    ("prumerge:rule=codes", "code"), ("prumerge:tokens=5", "tokens"),
])  # fmt: skip
def test_bad_parameters_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        get_method(spec)


@pytest.mark.parametrize(("spec", "message"), [
    ("prumerge@577", "only 576"), ("prumerge:keep=577", "keep=577 is out of range"),
    ("prumerge:ratio=0.001", "keeps none of 576"), ("prumerge_plus:ratio=0.6", "makes 921 tokens"),
])  # fmt: skip
def test_what_does_not_fit_the_image_is_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        get_method(spec).solve(LLAVA)


@pytest.mark.parametrize("name", ["prumerge", "prumerge_plus"])
def test_a_tower_without_cls_is_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=rf"{name}@144 needs a vision tower with a CLS token"):
        get_method(f"{name}@144").solve(Geometry(32, (24, 24), has_cls=False))
