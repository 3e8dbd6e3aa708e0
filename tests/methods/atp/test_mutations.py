"""Break ATP on purpose, in the method or in the engine, and see that the proofs notice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine.mutants import NOTICED, Mutant, mutated

from atp_eval.engine import prune
from atp_eval.methods.atp import method, scores
from atp_eval.methods.atp.thresholds import ThresholdModule
from methods.atp import proofs

Patch = pytest.MonkeyPatch


def above(patch: Patch) -> None:
    def stays(margin: Any, redundant: Any, kept: Any) -> Any:
        return hard_mask(margin - torch.finfo(margin.dtype).tiny, redundant, kept)

    hard_mask = method.hard_mask
    patch.setattr(method, "hard_mask", stays)


def all_cells(patch: Patch) -> None:
    def normalise(score: Any, kept: Any, *how: Any) -> Any:
        return plain(score.masked_fill(~kept, 0), torch.ones_like(kept), *how) * kept

    plain = method.normalise
    patch.setattr(method, "normalise", normalise)


def swapped(patch: Patch) -> None:
    forward = ThresholdModule.forward
    patch.setattr(ThresholdModule, "forward", lambda self, own, cross, grid: forward(self, cross, own, grid))


def heads(patch: Patch) -> None:
    forward = ThresholdModule.forward
    patch.setattr(ThresholdModule, "forward", lambda self, *args: forward(self, *args)[::-1])


def raw(patch: Patch) -> None:
    patch.setattr(method, "normalise", lambda score, kept, *how: score.masked_fill(~kept, 0))


def both_rules(patch: Patch) -> None:
    def least(redundant: Any, spatial: Any, theta_r: Any, theta_s: Any, rules: Any) -> Any:
        return torch.minimum(redundant - theta_r, spatial - theta_s)

    patch.setattr(method, "margin", least)


def turned(patch: Patch) -> None:
    patch.setattr(method, "spatial_score", lambda *args: scores.spatial_score(*args).flip(0))


def no_switch(patch: Patch) -> None:
    patch.setattr(method, "redundant_score", lambda own, cross, which, mix: (own + cross) / 2)


def adaptive(patch: Patch) -> None:
    decide = method.ATP.decide

    def ignoring(self: Any, point: Any) -> Any:
        return decide(proofs.made(self.trained), point)

    patch.setattr(method.ATP, "decide", ignoring)


IN_THE_METHOD: dict[str, Callable[[Patch], None]] = {
    "a score equal to its threshold goes": above,
    "tokens that are gone count in the scale": all_cells,
    "the module gets S_cross for S_self": swapped,
    "theta_r and theta_s change places": heads,
    "scores are not normalised": raw,
    "a token has to pass both rules": both_rules,
    "the grids start at the last cell": turned,
    "the switches of Tab. 5 do nothing": no_switch,
    "static thresholds adapt": adaptive,
}
IN_THE_ENGINE: dict[str, Mutant] = {
    "scores come from two layers before": (
        "passage.py",
        "reader = self._remember if index + 1 in self.method.prune_layers",
        "reader = self._remember if index + 2 in (*self.method.prune_layers, 2)",
    ),
    "the causal mean forgets its mask": (
        "point.py",
        "(causal_self_score if causal else self_score)",
        "(self_score)",
    ),
    "rows and columns change places": ("rope2d.py", "for at in (row, col)", "for at in (col, row)"),
    "rows turn the slow half": ("rope2d.py", "< half // 2", ">= half // 2"),
    "text after the image goes on from its last token": (
        "rope2d.py",
        "place = place - (grid[0] * grid[1] - max(grid)) * behind",
        "pass",
    ),
    "decoding forgets the rows and columns": ("prune.py", "positions + self._moved", "positions"),
    "the language model is not swapped in": ("fingerprint.py", "own[name].data = weights[name]", "pass"),
    "the language model stays in": ("fingerprint.py", "own[name].data = value", "pass"),
}  # fmt: skip


def test_the_proofs_hold() -> None:
    proofs.all_proofs(prune)


@pytest.mark.parametrize("name", IN_THE_METHOD)
def test_the_proofs_notice_in_the_method(name: str, monkeypatch: Patch) -> None:
    IN_THE_METHOD[name](monkeypatch)
    with pytest.raises(NOTICED):
        proofs.all_proofs(prune)


@pytest.mark.parametrize("name", IN_THE_ENGINE)
def test_the_proofs_notice_in_the_engine(name: str, tmp_path: Path) -> None:
    with mutated(tmp_path, IN_THE_ENGINE[name]) as broken, pytest.raises(NOTICED):
        proofs.all_proofs(broken)
