"""What a method answers wrongly is refused by name, before scores are made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from atp_eval.engine import prune
from atp_eval.errors import UserError
from atp_eval.methods import Decision, Geometry, Method, Point
from atp_eval.methods.decision import keep_cells
from engine.small import answer, make_batch, small_llava


@dataclass(frozen=True, kw_only=True)
class Wrong(Method):
    """Prunes before layer 1 by a given function."""

    name = "wrong"
    answer: Callable[[Point], Decision]

    @property
    def prune_layers(self) -> tuple[int, ...]:
        return (1,)

    def solve(self, geometry: Geometry) -> Wrong:
        return self

    def decide(self, point: Point) -> Decision:
        return self.answer(point)

    @property
    def label(self) -> str:
        return "wrong@9"


def first(point: Point, count: int = 9) -> torch.Tensor:
    return (torch.arange(point.kept.shape[1]) < count).expand_as(point.kept)


WRONG: dict[str, tuple[Callable[[Point], Decision], str]] = {
    "indexes": (
        lambda p: Decision(torch.arange(9).expand(1, 9)),
        r"^wrong@9 before layer 1: keep must be a bool mask \[1, 36\], not int64 \[1, 9\]; keep_cells makes one",
    ),
    "one mask for all": (lambda p: Decision(first(p)[0]), r"keep must be a bool mask \[1, 36\], not bool \[36\]"),
    "no values": (lambda p: Decision(first(p), carry=~first(p)), r"values go with carry or rewrite"),
    "values alone": (lambda p: Decision(first(p), values=p.hidden), r"values go with carry or rewrite"),
    "few values": (
        lambda p: Decision(first(p), rewrite=first(p), values=p.hidden[:, :9]),
        r"values must be \[1, 36\] and the width of the hidden states, not \[1, 9, 32\]",
    ),
    "a short order": (
        lambda p: Decision(first(p), order=torch.arange(9)[None]),
        r"order must be \[1, 36\], not \[1, 9\]",
    ),
    "another count": (
        lambda p: Decision(first(p), count=12),
        r"before layer 1 says count=12, but \[9\] tokens stay in the samples; leave count out where it depends on the",
    ),
    "a cell named twice": (
        lambda p: keep_cells(torch.tensor([[0, 1, 1, 5]]), 36),
        r"says count=4, but \[3\] tokens stay in the samples; .* name no cell twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_decision_is_refused_by_name(name: str) -> None:
    model: Any = small_llava()
    decide, message = WRONG[name]
    with pytest.raises(UserError, match=message), prune(model, Wrong(answer=decide)) as pruned:
        answer(model, make_batch((5, 9)), steps=1)
        _ = pruned.traces
    plain = answer(model, make_batch((5, 9)), steps=1)
    assert plain.logits is not None and plain.logits.isfinite().all()
