"""Encoded pictures are kept apart from their batches, and only so many of them."""

from __future__ import annotations

import torch

from atp_eval.encoded import Encoded, EncodedCache
from atp_eval.engine import VisionStates


def test_the_cache_forgets_the_least_recently_used_beyond_its_size() -> None:
    cache = EncodedCache(limit=3 * 4 * 4)
    for name in "abc":
        cache.put(name, Encoded(torch.zeros(4)))
    assert cache.get("a") is not None
    cache.put("d", Encoded(torch.zeros(4)))
    assert cache.get("b") is None and cache.get("a") is not None and cache.size == 3 * 4 * 4


def test_the_cache_holds_an_image_and_not_its_whole_batch() -> None:
    cache, states = EncodedCache(), VisionStates(*torch.zeros(3, 16, 5))
    cache.put("a", Encoded(torch.zeros(16, 4)[3], states.rows(slice(2, 3))))
    found = cache.get("a")
    assert found is not None and found.states is not None
    assert sum(x.untyped_storage().nbytes() for x in (found.features, *found.states)) == cache.size
