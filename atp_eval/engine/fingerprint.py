"""The weights that a pruning method was trained with: recognised by a fingerprint, or swapped in for a while."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from atp_eval.errors import UserError

SAMPLE = 256  # values taken of each tensor
SMALLEST = 2.0**-14  # fp16 rounds what is smaller more coarsely than bf16
_known: WeakKeyDictionary[nn.Module, tuple[list[tuple[int, int]], str]] = WeakKeyDictionary()


def fingerprint(model: nn.Module) -> str:
    """12 hex digits of the language model and the projector.

    A few values of every tensor, spread over it and rounded to bf16, the smallest to 0, so that a checkpoint in half
    precision gives the same fingerprint in fp32, fp16 and bf16; one in fp32 gives another in fp16, which rounds twice.
    Taken once a model, and again where a parameter was written to.
    """
    state = [(p.data_ptr(), p._version) for p in model.parameters()]
    if model not in _known or _known[model][0] != state:
        _known[model] = (state, _digest(model))
    return _known[model][1]


def _digest(model: nn.Module) -> str:
    parts: Any = model
    digest = hashlib.sha256()
    for name, part in (
        ("language_model", parts.model.language_model),
        ("projector", parts.model.multi_modal_projector),
    ):
        for key, tensor in sorted(part.state_dict().items()):
            flat = tensor.detach().flatten()
            picked = flat[:: max(1, flat.numel() // SAMPLE)][:SAMPLE].to(torch.bfloat16).cpu()
            picked = picked.where(picked.abs() >= SMALLEST, 0)
            digest.update(f"{name}.{key}{tuple(tensor.shape)}".encode())
            digest.update(picked.view(torch.int16).numpy().astype("<i2").tobytes())
    return digest.hexdigest()[:12]


@contextmanager
def swapped(model: nn.Module, weights: dict[str, Tensor]) -> Iterator[None]:
    """Inside the block the named parameters of `model` are `weights`; nothing is copied where device and dtype fit.

    Raises UserError where a name or a shape does not fit.
    """
    own = dict(model.named_parameters())
    wrong = [k for k, v in weights.items() if k not in own or own[k].shape != v.shape]
    if wrong:
        raise UserError(f"the adapter's language model does not fit this model: {wrong[0]}")
    before = {name: own[name].data for name in weights}
    try:
        for name, value in before.items():
            weights[name] = weights[name].to(value)  # converted once, for the next block too
            own[name].data = weights[name]
        yield
    finally:
        for name, value in before.items():
            own[name].data = value
