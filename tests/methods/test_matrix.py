"""What every method must do, row by row of the matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine import proofs
from engine.small import answer, make_batch, small_llava

from atp_eval.engine import model_geometry, prune
from atp_eval.methods import Geometry, get_method, method_names
from atp_eval.methods.decision import Decision
from methods.adapters import write_adapters
from methods.matrix import MATRIX, Row

ALL_KEEPING = [spec for row in MATRIX for spec in row.keep_all]
ALL_PRUNING = [spec for row in MATRIX for spec in row.pruning]
RANKED = [(row, spec) for row in MATRIX if row.score for spec in row.pruning]
BUDGETS = [f"{row.name}@{budget}" for row in MATRIX for budget in row.budgets]


@pytest.fixture(scope="module")
def model() -> Any:
    return small_llava()


@pytest.fixture(scope="module")
def adapters(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    write_adapters(model, folder)
    return folder


@pytest.fixture
def spec(request: pytest.FixtureRequest, adapters: Path) -> str:
    """The spec of the matrix, with the folder of the adapters in its place."""
    return request.param.format(adapters=adapters)


def test_every_method_has_a_row() -> None:
    missing = [name for name in method_names() if name not in [row.name for row in MATRIX]]
    assert not missing, f"add a Row to tests/methods/matrix.py for {missing}"
    assert [row.name for row in MATRIX] == method_names(), "rows stand in the order of _HOMES"
    assert all(row.pruning for row in MATRIX if row.name != "upper_bound")


@pytest.mark.parametrize("spec", ALL_KEEPING, indirect=True)
def test_keep_everything_equals_the_untouched_model(model: Any, spec: str) -> None:
    proofs.keep_everything(prune, model, spec, proofs.mixed())


@pytest.mark.parametrize("spec", ALL_PRUNING, indirect=True)
def test_pruned_equals_the_masked_reference(model: Any, spec: str) -> None:
    proofs.masked_reference(prune, model, spec, make_batch((4, 8)))


@pytest.mark.parametrize("spec", ALL_PRUNING, indirect=True)
def test_a_batch_equals_its_samples_alone(model: Any, spec: str) -> None:
    proofs.batch_equals_singles(prune, model, spec, proofs.mixed())


@pytest.mark.parametrize("spec", BUDGETS, indirect=True)
def test_the_budget_is_met(model: Any, spec: str) -> None:
    """Within what one token more or less in the first stage would change: half of that, on average over the layers."""
    with prune(model, spec, asked=[proofs.ASKED]) as pruned:
        answer(model, make_batch((5, 9)), steps=1)
    budget = float(spec.partition("@")[2])
    assert abs(pruned.trace.average_input - budget) <= 0.5 * 5 / 5
    if spec.startswith("pool"):
        assert pruned.trace.average_input == budget


class FakePoint:
    """A point with given scores, the same for every kind of score."""

    grid = (6, 6)
    sample_ids = ("a", "b", "c")

    def __init__(self, layer: int, scores: torch.Tensor, kept: torch.Tensor) -> None:
        self.layer, self.kept = layer, kept
        self._scores = scores.masked_fill(~kept, float("-inf"))

    def last_row(self) -> torch.Tensor:
        return self._scores

    self_score = cross_score = coming_row = last_row


@pytest.mark.parametrize(("row", "spec"), RANKED)
def test_the_highest_scores_stay(row: Row, spec: str) -> None:
    """Whatever the scores are: the best of what is still there, earlier cells first among equals."""
    assert row.score is not None
    scores = torch.randn(3, 36, generator=torch.Generator().manual_seed(5)).round(decimals=1)
    method = get_method(spec).solve(Geometry(5, (6, 6)))
    kept = torch.ones(3, 36, dtype=torch.bool)
    for layer in method.prune_layers:
        point: Any = FakePoint(layer, scores, kept)
        decision = method.decide(point)
        used = row.score(method, point)
        count = decision.keep[0].sum().item() if decision.count is None else decision.count
        for sample in range(3):
            order = sorted(range(36), key=lambda cell: (-used[sample, cell].item(), cell))
            assert torch.where(decision.keep[sample])[0].tolist() == sorted(order[:count])
        kept = kept & decision.keep


@pytest.mark.parametrize("spec", ALL_PRUNING, indirect=True)
def test_hooks_are_gone_after_an_exception(model: Any, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch((5, 9))
    plain = answer(model, batch)

    def failing(self: Any, point: Any) -> Decision:
        raise RuntimeError("the method fails")

    with monkeypatch.context() as patch:
        patch.setattr(type(get_method(spec)), "decide", failing)
        with pytest.raises(RuntimeError, match="the method fails"), prune(model, spec):
            answer(model, batch)
    assert torch.equal(answer(model, batch).logits, plain.logits)


@pytest.mark.parametrize("spec", [*ALL_KEEPING, *ALL_PRUNING, *BUDGETS], indirect=True)
def test_specs_are_canonical(model: Any, spec: str) -> None:
    method = get_method(spec)
    assert get_method(str(method)) == method
    solved = method.solve(model_geometry(model.config))
    assert solved.label == method.label == str(method)
    assert get_method(str(solved)) == solved == solved.solve(model_geometry(model.config))
