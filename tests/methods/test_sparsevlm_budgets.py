"""SparseVLM: the official counts, budgets, and what is refused."""

from __future__ import annotations

import pytest

from atp_eval.errors import UserError
from atp_eval.methods import Geometry, get_method
from atp_eval.methods.budget import average_input
from atp_eval.methods.sparsevlm import SparseVLM, solve_keep, stage_counts, tokens_after

LLAVA, TINY, SMALL = Geometry(32, (24, 24)), Geometry(8, (24, 24)), Geometry(5, (6, 6))


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


def test_what_a_spec_leaves_open_is_solved_once() -> None:
    solved = get_method("sparsevlm@20").solve(SMALL)
    assert isinstance(solved, SparseVLM)
    assert solved.cells == 36 and solved == get_method(str(solved)) and solved.positions == "contiguous"
    with pytest.raises(AssertionError, match="solve"):
        get_method(str(solved)).counts()
