"""Large linear layers on a CPU in fp32: oneDNN's product, where torch would take MKL's.

Decoding, and prompts that were pruned, are products with few rows and little else. MKL lays the whole weight out anew
for each; oneDNN reads it as it is. On an AMD EPYC (Zen 4) that is 1.6 to 2.8 times as fast for 4 to 64 rows of
LLaVA-1.5-7B's layers, about 1.5 times for 80 to 190, 1.2 times for 640, and no faster below a million weights, where
oneDNN's own preparation weighs more (`benchmarks/decode.py`, `benchmarks/prefill.py`). Sums are rounded otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry, register_flop_formula

LARGE = 2**22
"""Weights of a layer from which on it pays."""
LEAST = 3
"""Rows from which on it pays: below, reading the weights is all there is to it."""
ROWS = range(LEAST, 65)
"""Rows of a step of decoding for which it pays."""


if torch.backends.mkldnn.is_available() and torch.ops.mkldnn._linear_pointwise not in flop_registry:

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)  # else torch's counter would leave it out
    def _count(x: Sequence[int], weight: Sequence[int], *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
        """Of shapes [..., in] and [out, in]."""
        return 2 * math.prod(x) * weight[0]


def large_linears(model: nn.Module) -> list[Any]:
    """The linear layers of a model for which it pays: none where it is elsewhere than on the CPU, or not in fp32."""
    here = torch.backends.mkldnn.is_available() and next(model.parameters()).device.type == "cpu"
    return [m for m in model.modules() if _pays(m)] if here else []


@contextmanager
def by_onednn(modules: Sequence[Any], rows: range) -> Iterator[None]:
    """Inside the block these linear layers take oneDNN for inputs of so many rows, without gradients."""
    for module in modules:
        module.forward = partial(_linear, module, rows)
    try:
        yield
    finally:
        for module in modules:
            del module.forward


@contextmanager
def fast_linears(model: nn.Module, rows: int) -> Iterator[None]:
    """`by_onednn` for all large linear layers of a model, for inputs of `rows` rows, where that pays in decoding."""
    with by_onednn(large_linears(model) if rows in ROWS else [], range(rows, rows + 1)):
        yield


def runs_other_code(module: nn.Module) -> bool:
    """Whether somebody else put a forward of their own on a module, as accelerate does where it moves weights."""
    own = vars(module).get("forward")
    return own is not None and not (isinstance(own, partial) and own.func is _linear)


def _pays(module: nn.Module) -> bool:
    return (
        type(module) is nn.Linear
        and "forward" not in vars(module)
        and module.weight.numel() >= LARGE
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
    )


def _linear(module: nn.Linear, rows: range, x: Tensor) -> Tensor:
    if x.numel() // module.in_features not in rows:
        return F.linear(x, module.weight, module.bias)
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, module.weight, module.bias, "none", [], "")
    return found
