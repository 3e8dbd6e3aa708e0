"""FastV: counts, the last row and the paper's rows; by hand and against a slow literal version."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine import proofs
from engine.small import make_batch, small_llava
from engine.test_syncs import reads
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import fastv as literal

from atp_eval.engine import prune
from atp_eval.engine.scores import rows_score
from atp_eval.errors import UserError
from atp_eval.methods import Geometry, get_method
from atp_eval.methods.fastv import FastV, fastv, rows_from_image

LLAVA = Geometry(32, (24, 24))
TEXT = [[True, True]]


def solved(spec: str, geometry: Geometry = LLAVA) -> FastV:
    method = get_method(spec).solve(geometry)
    assert isinstance(method, FastV)
    return method


@pytest.mark.parametrize(("layer", "counts"), [(2, (166, 115, 98, 55, 30)), (3, (152, 99, 82, 38, 11))])
def test_counts_for_an_input_average_are_those_of_the_card(layer: int, counts: tuple[int, ...]) -> None:
    for average, count in zip((192, 144, 128, 88, 64), counts, strict=True):
        assert solved(f"fastv@{average}:layer={layer}").keep == count == literal.count_for_average(average, layer)


@pytest.mark.parametrize(("r", "count"), [("0.5", 288), ("0.75", 144), ("0.778", 128), ("0.889", 64), ("0", 576)])
def test_the_removed_share_is_rounded_as_in_the_authors_port(r: str, count: int) -> None:
    """0.778 leaves 127.87 and 0.889 leaves 63.94: cutting off, as their lmms-eval version does, would give 127, 63."""
    assert solved(f"fastv:r={r}").keep == count == literal.count(576, float(r))


def test_halves_go_to_the_even_number() -> None:
    small = Geometry(5, (6, 6))
    assert [solved(f"fastv:r={r}", small).keep for r in (0.875, 0.625, 0.375)] == [4, 14, 22]  # 4.5, 13.5, 22.5
    assert [literal.count(36, r) for r in (0.875, 0.625, 0.375)] == [4, 14, 22]
    assert solved("fastv", Geometry(5, (5, 5))).keep == solved("fastv:r=0.5", Geometry(5, (5, 5))).keep == 12


def test_a_share_solves_to_a_count_that_remembers_the_share() -> None:
    method = solved("fastv:r=0.75")
    assert str(method) == "fastv:layer=2,keep=144" and method.label == "fastv:r=0.75"
    assert get_method(str(method)) == method
    assert str(solved("fastv")) == "fastv:layer=2,keep=288"


@pytest.mark.parametrize(("spec", "message"), [
    ("fastv:r=1", "fastv: r=1.0 is the share that is removed"),
    ("fastv:r=-0.1", "fastv: r=-0.1 is the share that is removed"),
    ("fastv:r=nan", "r must be a number, not 'nan'"),
    ("fastv:r=0.5,keep=9", "fastv: give r=0.5 or keep=9, not both"),
    ("fastv@144:r=0.5", "fastv: give r=0.5 or a budget (@144), not both"),
    ("fastv:rule=papers", "unknown value of rule for fastv 'papers'. Did you mean: paper?"),
])  # fmt: skip
def test_bad_parameters_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_method(spec)
    assert message in str(error.value)


def test_a_share_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="keep=0 leaves nothing"):
        solved("fastv:r=0.999", Geometry(5, (2, 2)))


def test_the_kept_come_in_raster_order_and_of_equal_ones_the_earlier() -> None:
    attention = torch.tensor([[0.1, 0.3, 0.1, 0.3, 0.1], [0.2, 0.2, 0.2, 0.2, 0.2]])
    assert fastv(attention, 3).tolist() == [[0, 1, 3], [0, 1, 2]]
    assert fastv(attention, 1).tolist() == [[1], [0]]
    assert fastv(attention, 5).tolist() == [[0, 1, 2, 3, 4]] * 2
    assert fastv(attention, 0).tolist() == [[], []]


# Rows see: prefix (place 0), image (1, 2, 3), text (4, 5). Given as what each row gives to the three visual tokens.
MAP = torch.tensor(
    [[0.0, 0.0, 0.0], [0.9, 0.0, 0.0], [0.6, 0.1, 0.0], [0.5, 0.0, 0.4], [0.0, 0.1, 0.8], [0.1, 0.7, 0.2]],
    dtype=torch.float64,
)


def hand_point(is_text: list[list[bool]]) -> Any:
    def rows(weights: torch.Tensor) -> torch.Tensor:
        share = weights[0] / weights.sum()
        return (MAP[-weights.shape[1] :] * share[:, None]).sum(0)[None]

    return SimpleNamespace(
        kept=torch.ones(1, 3, dtype=torch.bool),
        grid=(1, 3),
        last_row=lambda: MAP[-1:],
        rows=rows,
        text=SimpleNamespace(is_text=torch.tensor(is_text)),
    )


def test_by_code_the_last_row_alone_counts_and_by_the_paper_all_rows() -> None:
    """Sums over rows: 2.1, 0.9, 1.4. The last row prefers token 1, which all rows together like least."""
    geometry = Geometry(4, (1, 3))
    by_code, by_paper = (solved(f"fastv:keep=1,rule={rule}", geometry) for rule in ("code", "paper"))
    assert by_code.decide(hand_point(TEXT)).keep.tolist() == [[False, True, False]]
    assert by_paper.decide(hand_point(TEXT)).keep.tolist() == [[True, False, False]]
    assert by_paper.decide(hand_point(TEXT)).count == 1


def test_rows_of_the_paper_reach_from_the_image_to_the_end_of_each_prompt() -> None:
    """Two visual tokens; the second sample's text is shorter, so its image stands a slot further back."""
    is_text = torch.tensor([[True, True, True], [False, True, True]])
    assert rows_from_image(is_text, 2).tolist() == [[True] * 5, [False, True, True, True, True]]


def engine_point(query: torch.Tensor, key: torch.Tensor, prefix: list[int], text: list[int], cells: int) -> Any:
    """Left-padded samples with the engine's scores of them."""
    length, batch = query.shape[2], len(text)
    slots = torch.arange(length)
    ends = length - torch.tensor(text)[:, None]  # where the image ends
    valid = slots >= ends - cells - torch.tensor(prefix)[:, None]
    image = ends - cells + torch.arange(cells)
    is_text = torch.arange(max(text), 0, -1) <= torch.tensor(text)[:, None]

    def rows(weights: torch.Tensor) -> torch.Tensor:
        return rows_score(query, key, weights, valid, query.shape[3] ** -0.5).gather(1, image)

    return SimpleNamespace(
        kept=torch.ones(batch, cells, dtype=torch.bool),
        last_row=lambda: rows(torch.ones(batch, 1)),
        rows=rows,
        text=SimpleNamespace(is_text=is_text),
    )


@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_equals_the_literal_version_in_ragged_batches(data: st.DataObject, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    grid = data.draw(st.sampled_from([(1, 1), (2, 3), (3, 2), (1, 7), (3, 3)]))
    cells, batch = grid[0] * grid[1], data.draw(st.integers(1, 3))
    prefix = data.draw(st.lists(st.integers(0, 4), min_size=batch, max_size=batch))
    text = data.draw(st.lists(st.integers(1, 6), min_size=batch, max_size=batch))
    groups, share, size = data.draw(st.sampled_from([(1, 1, 4), (2, 2, 2), (2, 1, 3)]))
    length = max(p + t for p, t in zip(prefix, text, strict=True)) + cells
    query = torch.randn(batch, groups * share, length, size, generator=generator, dtype=torch.float64)
    key = torch.randn(batch, groups, length, size, generator=generator, dtype=torch.float64)
    keep = data.draw(st.integers(1, cells))
    rule = data.draw(st.sampled_from(["code", "paper"]))
    decision = solved(f"fastv:layer=1,keep={keep},rule={rule}", Geometry(4, grid)).decide(
        engine_point(query, key, prefix, text, cells)
    )
    assert decision.count == keep
    for sample, (before, after) in enumerate(zip(prefix, text, strict=True)):
        start = length - before - cells - after
        maps = literal.maps(query[sample, :, start:].tolist(), key[sample, :, start:].tolist())
        expected = literal.keep(maps, range(before, before + cells), keep, rule)
        assert torch.where(decision.keep[sample])[0].tolist() == expected


@pytest.mark.parametrize("rule", ["code", "paper"])
def test_nothing_waits_for_the_device(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads(monkeypatch, f"fastv:layer=2,keep=9,rule={rule}") == 0


def test_the_papers_rule_goes_through_the_engine() -> None:
    """As every method of the matrix does; its row there ranks by the last row."""
    model, spec = small_llava(), "fastv:layer=2,keep=9,rule=paper"
    proofs.keep_everything(prune, model, "fastv:layer=1,keep=36,rule=paper", proofs.mixed())
    proofs.masked_reference(prune, model, spec, make_batch((4, 8)))
    proofs.batch_equals_singles(prune, model, spec, proofs.mixed())
