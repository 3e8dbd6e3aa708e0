"""Which way a bundle answers: the engine's own loop where that is all there is to do, transformers' `generate` else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bundles import small_bundle
from PIL import Image

from atp_eval.engine import prune
from atp_eval.engine.cache import GrowingCache
from atp_eval.engine.fixed import FixedDecoder


def question() -> tuple[Any, dict[str, Any]]:
    """A bundle, and its inputs for three questions."""
    bundle = small_bundle()
    features = bundle.encode([Image.new("RGB", (84, 84), color) for color in ("red", "blue")])
    inputs = bundle.inputs(["what color is it?", "yes or no", "how many are there?"], [features[0], None, features[1]])
    return bundle, inputs


def test_plain_greedy_answers_never_go_through_generate(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, inputs = question()
    found = [bundle.generate(inputs, max_new_tokens=5, use_cache=True, min_new_tokens=0)]  # these go through it
    monkeypatch.setattr(type(bundle.model), "generate", None)
    found.append(bundle.generate(inputs, max_new_tokens=5))
    assert torch.equal(*found)
    with prune(bundle.model, "fastv:layer=1,keep=6"):
        assert bundle.generate(inputs, max_new_tokens=5).shape[1] <= inputs["input_ids"].shape[1] + 5


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"repetition_penalty": 1.3}, {"min_new_tokens": 3}])
def test_everything_else_does_with_a_growing_cache(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, inputs = question()
    own, caches = bundle.model.generate, []

    def generate(**given: Any) -> Any:
        caches.append(given.get("past_key_values"))
        return own(**given)  # type: ignore[operator]

    monkeypatch.setattr(bundle.model, "generate", generate)
    found = [bundle.generate(inputs, max_new_tokens=4, **given) for given in (options, options | {"use_cache": True})]
    assert [type(cache) for cache in caches] == [GrowingCache, type(None)]
    assert torch.equal(*found)


def test_a_model_that_the_loop_does_not_know_is_asked_as_ever() -> None:
    bundle, inputs = question()
    plain = bundle.generate(inputs, max_new_tokens=5)
    module = bundle.model.model.language_model.layers[0].mlp
    module.forward = module.forward
    try:
        assert torch.equal(bundle.generate(inputs, max_new_tokens=5), plain)
    finally:
        del module.forward


@pytest.mark.parametrize("decode", [None, "graph"])
def test_decoding_at_fixed_shapes_is_asked_for(decode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, inputs = question()
    made: list[str] = []
    own = FixedDecoder.load
    monkeypatch.setattr(FixedDecoder, "load", lambda self, *args: made.append(self.kind.mode) or own(self, *args))
    with prune(bundle.model, "fastv:layer=1,keep=6"):
        tokens = bundle.generate(inputs, max_new_tokens=5, eos_token_id=None)
        assert made == []
        assert torch.equal(bundle.generate(inputs, max_new_tokens=5, eos_token_id=None, decode=decode), tokens)
    assert made == ([] if decode is None else [decode])
