"""Pictures as the vision tower made them, kept so that methods and questions share one pass of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import torch

from atp_eval.engine import VisionStates
from atp_eval.models import Bundle
from atp_eval.records import one_line

if TYPE_CHECKING:
    from atp_eval.asks import Loaded
    from atp_eval.features import FeatureStore

CACHE_BYTES = 2**30


class Encoded(NamedTuple):
    """One picture. features: [V, D], after the projector; states: of one picture, where some method looks at them."""

    features: torch.Tensor
    states: VisionStates | None = None

    def copy(self) -> Encoded:
        """Apart from its batch, which a slice would hold in memory."""
        states = None if self.states is None else VisionStates(*(x.clone() for x in self.states))
        return Encoded(self.features.clone(), states)

    def to(self, device: torch.device) -> Encoded:
        """The same on a device."""
        states = None if self.states is None else VisionStates(*(x.to(device) for x in self.states))
        return Encoded(self.features.to(device), states)

    @property
    def nbytes(self) -> int:
        return self.features.nbytes + sum(x.nbytes for x in self.states or ())


def joined(pictures: Sequence[Encoded]) -> VisionStates | None:
    """The states of several pictures, or None where there are none."""
    states = [picture.states for picture in pictures if picture.states is not None]
    return VisionStates(*(torch.cat(parts) for parts in zip(*states, strict=True))) if states else None


@dataclass
class EncodedCache:
    """Encoded pictures by image id, the least recently used dropped beyond a size in bytes. For several threads."""

    limit: int = CACHE_BYTES
    entries: OrderedDict[str, Encoded] = field(default_factory=OrderedDict)
    size: int = 0
    lock: Lock = field(default_factory=Lock)

    def get(self, key: str) -> Encoded | None:
        """The picture, or None."""
        with self.lock:
            if key in self.entries:
                self.entries.move_to_end(key)
            return self.entries.get(key)

    def put(self, key: str, picture: Encoded) -> None:
        """Keep a copy of a picture."""
        with self.lock:
            if key in self.entries:
                return
            self.entries[key] = picture.copy()
            self.size += picture.nbytes
            while self.size > self.limit and len(self.entries) > 1:
                self.size -= self.entries.popitem(last=False)[1].nbytes


class Pictures:
    """Gives questions their encoded pictures; a picture goes through the vision tower once, as long as it is kept.

    states: whether some method looks at the tower's states. store: keeps pictures on the disk too.
    """

    def __init__(
        self, bundle: Bundle, states: bool, say: Callable[[str], None], store: FeatureStore | None = None
    ) -> None:
        self.bundle, self.states, self.say, self.store = bundle, states, say, store
        self.cache = EncodedCache()

    def prepare(self, loaded: Sequence[Loaded]) -> None:
        """What needs no model, for a thread: find each picture among those that are kept, or else make its pixels.

        A picture that cannot be preprocessed becomes its samples' error.
        """
        made: dict[str, Loaded] = {}
        for x in loaded:
            if x.image is None or x.image_id is None:
                continue
            if (same := made.setdefault(x.image_id, x)) is not x:
                x.pixels, x.encoded, x.error = same.pixels, same.encoded, same.error
                continue
            x.encoded = self._kept(x.image_id)
            if x.encoded is None:
                try:
                    x.pixels = self.bundle.pixels([x.image])[0]
                except Exception as error:  # of many kinds, as in decoding: a picture of no height, say
                    x.error = f"broken image: {type(error).__name__}: {one_line(error)}"

    def _kept(self, image_id: str) -> Encoded | None:
        found = self.cache.get(image_id)
        return self.store.get(image_id, self.states) if found is None and self.store else found

    def encode(self, ready: Sequence[Loaded]) -> None:
        """Give each sample its encoded picture; only pictures that are not kept go through the vision tower."""
        shown = {x.image_id: x for x in ready if x.image_id is not None}
        found = {name: self.cache.get(name) or x.encoded for name, x in shown.items()}
        new = {name: x.pixels for name, x in shown.items() if x.pixels is not None and found[name] is None}
        if new:
            found |= dict(zip(new, self._encoded(torch.stack(list(new.values()))), strict=True))
        for name, picture in found.items():
            assert picture is not None, "`prepare` found it or made its pixels"
            if name in new and self.store:
                self.store.put(name, picture)
            found[name] = picture = picture.to(self.bundle.device)
            self.cache.put(name, picture)
        for x in ready:
            x.encoded = None if x.image_id is None else found[x.image_id]
            x.pixels = None

    def _encoded(self, pixels: torch.Tensor) -> list[Encoded]:
        """Each picture [n, 3, side, side] through the vision tower; halved where memory is short."""
        try:
            if not self.states:
                return [Encoded(features) for features in self.bundle.encode_pixels(pixels)]
            features, states = self.bundle.encode_pixels_with_states(pixels)
            return [Encoded(features[i], states.rows(slice(i, i + 1))) for i in range(len(pixels))]
        except RuntimeError as error:
            if not out_of_memory(error) or len(pixels) == 1:
                raise
        half = len(pixels) // 2
        self.say(f"out of memory at {len(pixels)} images: trying {half} at a time")
        return self._encoded(pixels[:half]) + self._encoded(pixels[half:])


def out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out, on a GPU or in the CPU's allocator."""
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
