"""How often the host waits for the device, and what is never made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from atp_eval.engine import prune
from atp_eval.engine.prefill import Prefill
from atp_eval.methods import Decision, Geometry, Method
from engine.proofs import PRUNING, mixed
from engine.small import make_batch, small_llava

READS = ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy", "nonzero")


class Adaptive(Method):
    """Keeps what scores above its sample's mean: how many is known to the device only."""

    name = "adaptive"
    prune_layers = (1, 3)
    early: Any = False

    def solve(self, geometry: Geometry) -> Adaptive:
        return self

    def decide(self, point: Any) -> Decision:
        score = point.last_row()
        mean = score.masked_fill(~point.kept, 0).sum(1, keepdim=True) / point.kept.sum(1, keepdim=True)
        return Decision(score > mean)


def reads(monkeypatch: pytest.MonkeyPatch, method: Any) -> int:
    """Reads of tensor values on the host inside the prune points and the reading of the prompts."""
    model, batch, count, points, inside = small_llava(), mixed(), 0, 0, False

    def watch(name: str) -> None:
        plain = getattr(Tensor, name)

        def counting(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += inside
            return plain(self, *args, **kwargs)

        monkeypatch.setattr(Tensor, name, counting)

    for name in READS:
        watch(name)

    def look_inside(name: str) -> None:
        decide = getattr(Prefill, name)

        def watched(self: Prefill, *args: Any) -> Tensor:
            nonlocal inside, points
            inside, points = True, points + 1
            try:
                return decide(self, *args)
            finally:
                inside = False

        monkeypatch.setattr(Prefill, name, watched)

    for name in ("prune", "prune_early"):
        look_inside(name)
    with prune(model, method, sample_ids=range(4)) as pruned:
        model(**batch.inputs())
    assert points == len(pruned.method.prune_layers)
    return count


@pytest.mark.parametrize("spec", PRUNING)
def test_a_fixed_count_never_waits_for_the_device(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads(monkeypatch, spec) == 0


@pytest.mark.parametrize("early", [False, True])
def test_an_adaptive_count_waits_once_a_prune_point(early: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Adaptive, "early", early)
    assert reads(monkeypatch, Adaptive()) == 2


class Shapes(TorchDispatchMode):
    """Shapes of all floating-point results."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.seen.add(tuple(tensor.shape))
        return out


@pytest.mark.parametrize("spec", PRUNING)
def test_no_attention_map_is_made(spec: str) -> None:
    """No floating-point tensor of length x length; lengths are such that no width of the model is one of them."""
    model, batch = small_llava(), make_batch((20, 43))
    with prune(model, spec) as pruned, Shapes() as shapes, torch.no_grad():
        model(**batch.inputs())
    lengths = set((pruned.trace.tokens_per_layer() + 63).tolist())
    assert shapes.seen
    assert not [shape for shape in shapes.seen if len(shape) > 1 and shape[-1] in lengths and shape[-2] in lengths]
