"""The iteration order of a Python set of whole numbers, on the device: what some authors' code chooses depends on it.

CPython's Objects/setobject.c, unchanged in this since 3.7: a set has 8 slots until its fifth number, which moves all of
them, slot by slot, to 32 slots, enough for 18 numbers; iteration reads the slots from the first on.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALL, LARGE = 8, 32  # slots
GROWS = 5  # the number that does not fit the small table
SHIFT, BEHIND = 5, 9
STEPS = 13  # of the search for a free slot; enough for 8 numbers below 2^20, and 12 shifts stay within 64 bits


def set_order(numbers: Tensor) -> Tensor:
    """In which order CPython's `set` holds numbers that it was given in turn: [B, n] -> [B, n] indexes; n <= 8.

    The numbers of a row are different ones, from 0 to 2^20. Never waits for the device.
    """
    early = _filled(_probes(numbers[:, :GROWS], SMALL), SMALL)
    if numbers.shape[1] < GROWS:
        return early
    later = torch.arange(GROWS, numbers.shape[1], device=numbers.device).expand(len(numbers), -1)
    given = torch.cat([early, later], dim=1)
    return given.gather(1, _filled(_probes(numbers.gather(1, given), LARGE), LARGE))


def _probes(numbers: Tensor, size: int) -> Tensor:
    """[B, n] -> [B, n, S]: the slots of a table of `size` where each number looks for a place, in turn.

    From i = h on, i = 5 i + 1 + (h >> 5), then + (h >> 10), ..., modulo the size; after each i the 9 slots behind it,
    where there are that many.
    """
    step = torch.arange(STEPS, device=numbers.device)
    added = (numbers[..., None] >> SHIFT * step) + (step > 0)
    ahead = step[:, None] - step
    factors = torch.pow(5, ahead.clamp(min=0)).masked_fill(ahead < 0, 0)  # [STEPS, STEPS]: the recurrence written out
    slot = ((added[..., None, :] * factors).sum(-1) % size)[..., None]
    behind = torch.arange(BEHIND + 1, device=numbers.device)
    return torch.where(slot + BEHIND < size, slot + behind, slot).flatten(2)


def _filled(probes: Tensor, size: int) -> Tensor:
    """[B, n, S] -> [B, n]: items put in turn into the first free one of their slots, then read off slot by slot."""
    batch, items = probes.shape[:2]
    table = torch.full((batch, size), items, device=probes.device)
    for item in range(items):
        free = table.gather(1, probes[:, item]) == items
        slot = probes[:, item].gather(1, free.int().argmax(1, keepdim=True))
        table = table.scatter(1, slot, item)
    slots = (table == items).int().argsort(dim=1, stable=True)[:, :items]
    return table.gather(1, slots)
