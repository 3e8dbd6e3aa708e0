"""Decoding at fixed shapes against plain decoding: the same tokens, logits as near as another order of sums allows."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from atp_eval.engine import decode, fixed, prune
from atp_eval.engine.decode import greedy
from atp_eval.engine.fixed import fixed_decoder
from atp_eval.engine.greedy import Greedy
from atp_eval.errors import UserError
from engine.proofs import PRUNING, mixed
from engine.small import Batch, make_batch
from engine.test_cache import FAMILIES, family, in_fp32
from engine.test_decode import Watch
from engine.test_rope2d import Sparse


def answer(model: Any, batch: Batch, mode: Any, new: int = 6) -> tuple[Tensor, Tensor]:
    """Tokens, and the logits of all steps."""
    watch, given = Watch(), batch.inputs()
    decoder = None if mode is None else partial(fixed_decoder, mode=mode)
    ids, mask = given.pop("input_ids"), given.pop("attention_mask")
    tokens = greedy(model, ids, mask, Greedy(new, processors=[watch]), new_decoder=decoder, **given)
    return tokens, torch.stack(watch.seen)


def only(model: Any) -> fixed.FixedDecoder:
    """The one decoder that is kept."""
    (decoder,) = fixed._kept[model].values()
    return decoder


def the_same(model: Any, batch: Batch, mode: Any = "graph", new: int = 6) -> None:
    plain, found = answer(model, batch, None, new), answer(model, batch, mode, new)
    assert torch.equal(found[0], plain[0])
    torch.testing.assert_close(found[1], plain[1], rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_same_answers(kind: str) -> None:
    model = family(kind)
    for batch in (mixed(), make_batch((5, 9))):
        the_same(model, in_fp32(batch))


@pytest.mark.parametrize(
    "spec",
    [*PRUNING, "random:layer=2,keep=9,positions=contiguous", "random:layer=0,keep=9,positions=contiguous", Sparse()],
)  # fmt: skip
def test_the_same_pruned_answers(spec: Any) -> None:
    model = family("llama")
    with prune(model, spec, sample_ids=range(4)):
        the_same(model, in_fp32(mixed()))


@pytest.mark.parametrize("spec", [None, PRUNING[1], "random:layer=2,keep=9,positions=contiguous"])
def test_compiled_the_same_answers_in_one_graph(spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed, "COMPILE", {"backend": "aot_eager", "fullgraph": True})
    torch._dynamo.reset()
    model = family("llama")
    if spec is None:
        the_same(model, in_fp32(mixed()), "compiled", 4)
    else:
        with prune(model, spec, sample_ids=range(4)):
            the_same(model, in_fp32(mixed()), "compiled", 4)


def test_another_batch_uses_the_same_buffers() -> None:
    model, batches = family("llama"), [in_fp32(make_batch(*rows)) for rows in (((5, 9), (3, 4)), ((3, 2), (6, 9)))]
    with prune(model, PRUNING[1]):
        the_same(model, batches[0])
        decoder = only(model)
        places = [layer.keys.data_ptr() for layer in decoder.buffers.cache.layers]
        the_same(model, batches[1])
        assert only(model) is decoder
        assert [layer.keys.data_ptr() for layer in decoder.buffers.cache.layers] == places
        assert {layer.max_cache_len for layer in decoder.buffers.cache.layers} == {64}
        the_same(model, in_fp32(make_batch((5, 9))))  # another number of rows
        assert next(iter(fixed._kept[model].values())) is decoder and len(fixed._kept[model]) == 2


def test_methods_that_take_turns_keep_a_decoder_each_and_the_eldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed, "KEPT", 2)
    model, batch = family("llama"), in_fp32(make_batch((5, 9), (3, 4)))
    made: list[Any] = []
    own = fixed.Buffers
    monkeypatch.setattr(fixed, "Buffers", lambda *args: made.append(args) or own(*args))
    specs = ["random:layer=2,keep=9", "random:layer=1,keep=9"]
    for spec in (*specs, *specs):
        with prune(model, spec):
            the_same(model, batch)
    assert len(made) == 2
    the_same(model, batch)  # a third throws out the first
    with prune(model, specs[1]):
        the_same(model, batch)
    assert len(made) == 3
    with prune(model, specs[0]):
        the_same(model, batch)
    assert len(made) == 4 and len(fixed._kept[model]) == 2


def test_a_longer_prompt_gets_larger_buffers_and_a_shorter_one_uses_them() -> None:
    model, short, long = family("llama"), *(in_fp32(make_batch((5, 9), (3, n))) for n in (4, 70))
    the_same(model, short)
    before = only(model)
    the_same(model, long)
    grown = only(model)
    assert grown is not before and grown.capacities > before.capacities
    the_same(model, short)
    assert only(model) is grown


def test_other_weights_get_another_decoder() -> None:
    """A graph reads weights where they were when it was recorded."""
    model, batch = family("llama"), in_fp32(make_batch((5, 9)))
    the_same(model, batch)
    weight = model.model.language_model.layers[0].mlp.up_proj.weight
    own = weight.data
    weight.data = own.flip(0).clone()
    the_same(model, batch)
    assert len(fixed._kept[model]) == 2
    weight.data = own
    the_same(model, batch)
    assert len(fixed._kept[model]) == 2


def test_more_kinds_are_compiled_than_dynamo_keeps_of_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed, "COMPILE", {"backend": "aot_eager", "fullgraph": True})
    torch._dynamo.reset()
    model, batch = family("llama"), in_fp32(make_batch((5, 9), (3, 4)))
    with torch._dynamo.config.patch(recompile_limit=2):
        for layers in ("1", "2", "3", "1-2", "2-3", "1-3"):
            keep = "9-4" if "-" in layers else "9"
            with prune(model, f"schedule:layers={layers},keep={keep},score=random"):
                the_same(model, batch, "compiled", 3)


def test_what_an_earlier_batch_left_behind_does_no_harm() -> None:
    model, batch = family("llama"), in_fp32(make_batch((5, 9), (3, 4)))
    plain = answer(model, batch, "graph")
    with torch.inference_mode():
        for layer in only(model).buffers.cache.layers:
            layer.keys.fill_(float("nan"))
            layer.values.fill_(float("inf"))
    assert torch.equal(answer(model, batch, "graph")[1], plain[1])


def test_shapes_do_not_change_from_step_to_step(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[Any] = []
    own = decode.Way.through

    def watching(self: Any, hidden: Tensor, rotary: Any, mask: Any, cache: Any) -> Tensor:
        done = own(self, hidden, rotary, mask, cache)
        layer = cache.layers[self.index]
        shapes.append((self.index, hidden.shape, mask.shape, mask.data_ptr(), layer.keys.shape, layer.keys.data_ptr()))
        return done

    monkeypatch.setattr(decode.Way, "through", watching)
    model = family("llama")
    with prune(model, PRUNING[1], sample_ids=range(4)):
        answer(model, in_fp32(mixed()), "graph", 5)
    assert len(shapes) == 4 * 5 and shapes == shapes[:5] * 4


def test_the_prompts_own_cache_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    caches: list[Any] = []
    own = decode.GrowingCache
    monkeypatch.setattr(decode, "GrowingCache", lambda *args: caches.append(own(*args)) or caches[-1])
    answer(family("llama"), in_fp32(mixed()), "graph", 3)
    assert [layer.capacity for layer in caches[0].layers] == [0] * 5


def test_buffers_go_with_their_model() -> None:
    model = family("llama")
    answer(model, in_fp32(mixed()), "graph", 2)
    seen = weakref.ref(only(model).buffers)
    fixed.forget_decoders(model)
    assert seen() is None  # at once, without a look for cycles
    answer(model, in_fp32(mixed()), "graph", 2)
    seen = weakref.ref(only(model).buffers)
    del model
    gc.collect()
    assert seen() is None


def test_other_attention_is_refused() -> None:
    model = family("llama")
    model.set_attn_implementation("eager")
    with pytest.raises(UserError, match="takes attention sdpa, and this model has eager"):
        answer(model, in_fp32(mixed()), "graph")


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["graph", "compiled"])
@pytest.mark.parametrize("spec", [PRUNING[1], "random:layer=2,keep=9,positions=contiguous"])
def test_the_same_answers_on_a_gpu(spec: str, mode: str) -> None:
    model, batch = family("llama").cuda(), in_fp32(mixed())
    batch = Batch(batch.ids.cuda(), batch.mask.cuda(), batch.pixels.cuda(), batch.rows, batch.images)  # type: ignore[union-attr]
    with prune(model, spec, sample_ids=range(4)):
        the_same(model, batch, mode)
        the_same(model, batch, mode, 5)
