"""What single methods choose, against slow versions of the same."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import atp_eval.methods
from atp_eval.errors import UserError
from atp_eval.methods import Geometry, get_method, keep_top
from atp_eval.methods.grid import spread
from atp_eval.methods.random import random_scores
from atp_eval.methods.schedule import Schedule


class Picture:
    """A point before the LLM."""

    layer, sample_ids = 0, ("a", "b")

    def __init__(self, rows: int, cols: int) -> None:
        self.grid = (rows, cols)
        self.kept = torch.ones(2, rows * cols, dtype=torch.bool)
        self.hidden = torch.randn(2, rows * cols, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("grid", "bins"), [((6, 6), (3, 3)), ((6, 6), (2, 5)), ((5, 7), (4, 3)), ((24, 24), (12, 12))])
def test_pool_averages_each_bin_into_its_middle(grid: tuple[int, int], bins: tuple[int, int]) -> None:
    point = Picture(*grid)
    decision = get_method(f"pool:rows={bins[0]},cols={bins[1]}").solve(Geometry(4, grid)).decide(point)  # type: ignore[arg-type]
    image = point.hidden.view(2, *grid, 3)
    assert decision.carry is not None and decision.values is not None
    assert not decision.keep.any() and (decision.carry.sum(1) == bins[0] * bins[1]).all()
    for i in range(bins[0]):
        for j in range(bins[1]):
            top, bottom = i * grid[0] // bins[0], -(-(i + 1) * grid[0] // bins[0])
            left, right = j * grid[1] // bins[1], -(-(j + 1) * grid[1] // bins[1])
            row, col = spread(bins[0], grid[0])[i], spread(bins[1], grid[1])[j]
            assert top <= row < bottom and left <= col < right and decision.carry[0, row * grid[1] + col]
            expected = image[:, top:bottom, left:right].mean((1, 2))
            torch.testing.assert_close(decision.values[:, row * grid[1] + col], expected)


def test_equal_scores_go_to_the_earlier_cell() -> None:
    scores = torch.tensor([[1.0, 2.0, 1.0, 1.0], [0.0, 0.0, 0.0, float("-inf")]])
    assert keep_top(scores, 2).keep.tolist() == [[True, True, False, False], [True, True, False, False]]


def test_random_depends_on_seed_and_sample_alone_and_is_fair() -> None:
    one = random_scores(0, ["a"], 576)
    assert torch.equal(one[0], random_scores(0, ["b", "a"], 576)[1])
    assert not torch.equal(one, random_scores(1, ["a"], 576))
    assert not torch.equal(one[0], random_scores(0, ["b"], 576)[0])
    many = random_scores(0, [str(i) for i in range(2000)], 20)
    kept = many.argsort(dim=1, descending=True)[:, :5].flatten().bincount(minlength=20)
    assert (kept - 500).abs().max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


def test_the_redundant_score_is_scaled_over_what_is_still_there() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0, 9.0], [5.0, 5.0, 5.0, 5.0]])
    kept = torch.tensor([[True, True, True, False], [True, True, True, True]])
    point = SimpleNamespace(
        kept=kept,
        self_score=lambda: scores.masked_fill(~kept, float("-inf")),
        cross_score=lambda: (2 * scores).masked_fill(~kept, float("-inf")),
    )
    method = Schedule(average=20, score="redundant")
    assert method.scores(point).tolist() == [[1.0, 0.0, 0.5, float("-inf")], [0.0, 0.0, 0.0, 0.0]]


def test_methods_import_nothing_of_transformers() -> None:
    code = (
        "import sys; from atp_eval.methods import get_method, method_names; "
        "[get_method(s) for s in ('upper_bound', 'fastv@9', 'random@9', 'grid@9', 'pool@9', 'schedule@9')]; "
        "print([m for m in ('transformers', 'lmms_eval', 'PIL') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(("home", "message"), [
    ("gone:Gone", r"_HOMES of methods/__init__.py has 'new' as 'gone:Gone', and No module named"),
    ("grid:Grit", r"_HOMES of methods/__init__.py has 'new' as 'grid:Grit', and .* has no attribute 'Grit'"),
    ("grid:Grid", r"Grid of methods/grid.py must be a dataclass of its own, with name = 'new'"),
])  # fmt: skip
def test_a_wrong_registry_line_is_named(monkeypatch: pytest.MonkeyPatch, home: str, message: str) -> None:
    monkeypatch.setitem(atp_eval.methods._HOMES, "new", home)
    with pytest.raises(UserError, match=message):
        get_method("new@144")


def test_a_method_file_that_is_not_registered_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    others = {name: home for name, home in atp_eval.methods._HOMES.items() if name != "grid"}
    monkeypatch.setattr(atp_eval.methods, "_HOMES", others)
    with pytest.raises(UserError, match=r"unknown method 'grid'.*methods/grid.py is there, but not in _HOMES"):
        get_method("grid@144")


def test_parameters_after_a_comma_instead_of_a_colon_are_shown_in_their_place() -> None:
    with pytest.raises(UserError, match=r"write parameters after a colon: random@144:seed=3"):
        get_method("random@144,seed=3")
