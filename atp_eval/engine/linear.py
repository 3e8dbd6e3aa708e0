"""Large linear layers on few rows, on a CPU in fp32: oneDNN's product, where torch would take MKL's.

A decode step is such products and little else. MKL lays the whole weight out anew for each; oneDNN reads it as it is.
On an AMD EPYC (Zen 4) that is 1.6 to 2.8 times as fast for 4 to 64 rows of LLaVA-1.5-7B's layers, and no faster below a
million weights, where oneDNN's own preparation weighs more (`benchmarks/decode.py`). Sums are rounded in another order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGE = 2**22
"""Weights of a layer from which on it pays."""
ROWS = range(3, 65)
"""Rows for which it pays: below, reading the weights is all there is to it; beyond, prompts are read."""


@contextmanager
def fast_linears(model: nn.Module, rows: int) -> Iterator[None]:
    """Inside the block the large linear layers of `model` take oneDNN for inputs of `rows` rows; else nothing changes.

    Not for a model that is elsewhere than on the CPU, or not in fp32; nor for linear layers of other kinds.
    """
    chosen: list[Any] = [m for m in model.modules() if _pays(m)] if _here(model) and rows in ROWS else []
    for module in chosen:
        module.forward = partial(_linear, module, rows)
    try:
        yield
    finally:
        for module in chosen:
            del module.forward


def _here(model: nn.Module) -> bool:
    return torch.backends.mkldnn.is_available() and next(model.parameters()).device.type == "cpu"


def _pays(module: nn.Module) -> bool:
    return (
        type(module) is nn.Linear
        and "forward" not in vars(module)
        and module.weight.numel() >= LARGE
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
    )


def _linear(module: nn.Linear, rows: int, x: Tensor) -> Tensor:
    if x.numel() != rows * module.in_features:
        return F.linear(x, module.weight, module.bias)
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, module.weight, module.bias, "none", [], "")
    return found
