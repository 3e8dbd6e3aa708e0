"""Pictures as the vision tower made them, kept so that methods and questions share one pass of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from atp_eval.engine import VisionStates

CACHE_BYTES = 2**30


class Encoded(NamedTuple):
    """One picture. features: [V, D], after the projector; states: of one picture, where some method looks at them."""

    features: torch.Tensor
    states: VisionStates | None = None

    def copy(self) -> Encoded:
        """Apart from its batch, which a slice would hold in memory."""
        states = None if self.states is None else VisionStates(*(x.clone() for x in self.states))
        return Encoded(self.features.clone(), states)

    @property
    def nbytes(self) -> int:
        return self.features.nbytes + sum(x.nbytes for x in self.states or ())


def joined(pictures: Sequence[Encoded]) -> VisionStates | None:
    """The states of several pictures, or None where there are none."""
    states = [picture.states for picture in pictures if picture.states is not None]
    return VisionStates(*(torch.cat(parts) for parts in zip(*states, strict=True))) if states else None


@dataclass
class EncodedCache:
    """Encoded pictures by image id, the least recently used dropped beyond a size in bytes."""

    limit: int = CACHE_BYTES
    entries: OrderedDict[str, Encoded] = field(default_factory=OrderedDict)
    size: int = 0

    def get(self, key: str) -> Encoded | None:
        """The picture, or None."""
        if key in self.entries:
            self.entries.move_to_end(key)
        return self.entries.get(key)

    def put(self, key: str, picture: Encoded) -> None:
        """Keep a copy of a picture."""
        if key in self.entries:
            return
        self.entries[key] = picture.copy()
        self.size += picture.nbytes
        while self.size > self.limit and len(self.entries) > 1:
            self.size -= self.entries.popitem(last=False)[1].nbytes
