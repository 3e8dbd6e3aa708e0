"""The engine's greedy loop against transformers' `generate`: the same tokens, from logits that are the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria, StoppingCriteriaList
from transformers.generation.logits_process import LogitsProcessorList

from atp_eval.engine import linear, passage, prune
from atp_eval.engine.decode import decodable, greedy
from atp_eval.engine.greedy import Greedy
from engine.proofs import KEEPING, PRUNING, mixed
from engine.small import Batch, make_batch
from engine.test_cache import FAMILIES, family, in_fp32
from engine.test_rope2d import Sparse
from engine.test_syncs import READS


class Watch(LogitsProcessor):
    """Keeps the scores of every step, and forces tokens where it is given some: [B, steps]."""

    def __init__(self, script: Tensor | None = None, prompt: int = 0) -> None:
        self.script, self.prompt = script, prompt
        self.seen: list[Tensor] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.seen.append(scores.clone())
        if self.script is None:
            return scores
        forced = torch.full_like(scores, float("-inf"))
        return forced.scatter(1, self.script[:, input_ids.shape[1] - self.prompt, None], 0.0)


def ours(model: Any, batch: Batch, watch: Watch, look_every: int | None = None, **options: Any) -> Tensor:
    plan = Greedy.of(model.generation_config, {**options, "logits_processor": [watch], "do_sample": False})
    assert plan is not None
    given = batch.inputs()
    return greedy(model, given.pop("input_ids"), given.pop("attention_mask"), plan, look_every, **given)


def theirs(model: Any, batch: Batch, watch: Watch, **options: Any) -> Tensor:
    tokens: Tensor = model.generate(
        **batch.inputs(), logits_processor=LogitsProcessorList([watch]), do_sample=False, **options
    )
    return tokens


def the_same(model: Any, batch: Batch, **options: Any) -> None:
    """Tokens and logits, to the bit."""
    watches = Watch(), Watch()
    tokens = theirs(model, batch, watches[0], **options), ours(model, batch, watches[1], **options)
    assert torch.equal(*tokens)
    assert torch.equal(*(torch.stack(watch.seen) for watch in watches))


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_same_bits_as_generate(kind: str, attention: str) -> None:
    model = family(kind)
    model.set_attn_implementation(attention)
    assert decodable(model)
    for batch in (mixed(), make_batch((5, 9)), make_batch((4, 8), (3, 9))):
        the_same(model, in_fp32(batch), max_new_tokens=6)


@pytest.mark.parametrize(
    "spec",
    [*PRUNING, KEEPING[2], "random:layer=2,keep=9,positions=contiguous", "random:layer=0,keep=9,positions=contiguous",
     Sparse()],
)  # fmt: skip
@pytest.mark.parametrize(
    "batch", [mixed(), make_batch((5, 9), (3, 9)), make_batch((2, 3))], ids=["ragged", "two", "one"]
)
def test_pruned_the_same_bits_as_generate(spec: Any, batch: Batch) -> None:
    model = family("llama")
    with prune(model, spec, sample_ids=range(len(batch.rows))):
        assert decodable(model)
        the_same(model, in_fp32(batch), max_new_tokens=6)


def test_no_picture_in_a_pruned_batch() -> None:
    model, batch = family("llama"), make_batch(9, 12)
    with prune(model, PRUNING[1]):
        the_same(model, batch, max_new_tokens=4)


@pytest.mark.parametrize("new_tokens", [1, 2])
def test_short_answers(new_tokens: int) -> None:
    the_same(family("llama"), in_fp32(mixed()), max_new_tokens=new_tokens)


def test_more_tokens_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atp_eval.engine.cache.MOST_ROOM", 2)
    model = family("llama")
    with prune(model, PRUNING[1]):
        the_same(model, in_fp32(mixed()), max_new_tokens=9)


class Ends(StoppingCriteria):
    """Ends a row with its token 7 (what stop strings do)."""

    def __init__(self, prompt: int) -> None:
        self.prompt = prompt

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return (input_ids[:, self.prompt :] == 7).any(1)


@settings(max_examples=40, deadline=None)
@given(
    script=st.lists(st.lists(st.integers(5, 9), min_size=5, max_size=5), min_size=3, max_size=3),
    eos=st.sampled_from([None, 5, [5, 6]]),
    pad=st.sampled_from([None, 3]),
    stops=st.booleans(),
    look_every=st.integers(1, 6),
)
def test_rows_end_as_with_generate(
    script: list[list[int]], eos: Any, pad: int | None, stops: bool, look_every: int
) -> None:
    model, batch = SCRIPTED, make_batch(4, 6, 5)
    length = batch.ids.shape[1]
    options = {"max_new_tokens": 5, "eos_token_id": eos, "pad_token_id": pad}
    found = []
    for run in (theirs, ours):
        extra = {"look_every": look_every} if run is ours else {}
        criteria = StoppingCriteriaList([Ends(length)] if stops else [])
        call: Callable[..., Tensor] = run
        found.append(
            call(model, batch, Watch(torch.tensor(script), length), stopping_criteria=criteria, **options, **extra)
        )
    assert torch.equal(*found)


SCRIPTED = family("llama")


def test_what_came_behind_a_stop_before_it_was_looked_for_is_padding() -> None:
    batch = make_batch(4, 6, 5)
    length = batch.ids.shape[1]
    script = torch.tensor([[7, 8, 9, 8, 9], [8, 8, 8, 8, 8], [9, 7, 8, 5, 9]])
    options = {"max_new_tokens": 5, "eos_token_id": 5, "pad_token_id": 3, "stopping_criteria": [Ends(length)]}
    tokens = ours(SCRIPTED, batch, Watch(script, length), 4, **options)
    assert tokens[:, length:].tolist() == [[7, 3, 3, 3, 3], [8] * 5, [9, 7, 3, 3, 3]]


def test_criteria_are_asked_when_rows_are_looked_at_and_about_every_length() -> None:
    watch, batch, asked = Watch(), in_fp32(mixed()), list[tuple[int, int]]()

    def criterion(ids: Tensor, scores: Any) -> Tensor:
        asked.append((len(watch.seen), ids.shape[1] - batch.ids.shape[1]))
        return ids.new_zeros(len(ids), dtype=torch.bool)

    ours(family("llama"), batch, watch, 3, max_new_tokens=7, stopping_criteria=[criterion])
    assert asked == [(3, 1), (3, 2), (3, 3), (6, 4), (6, 5), (6, 6), (7, 7)]


def test_a_model_ends_by_its_own_defaults() -> None:
    model, batch = family("llama"), in_fp32(mixed())
    first = theirs(model, batch, Watch(), max_new_tokens=3)[:, -2]
    model.generation_config.update(eos_token_id=[int(first[0]), 3], pad_token_id=11)
    the_same(model, batch, max_new_tokens=8)
    tokens = ours(model, batch, Watch(), max_new_tokens=8)
    assert tokens[0, batch.ids.shape[1] + 1] == first[0]
    assert (tokens[0, batch.ids.shape[1] + 2 :] == 11).all()


def test_what_it_does_not_know_it_leaves_alone() -> None:
    model = family("llama")
    assert decodable(model)
    assert not decodable(model.train())
    model.eval()
    module = model.model.language_model.layers[1].mlp
    module.forward = module.forward  # as accelerate puts its own around
    assert not decodable(model)
    del module.forward
    model.model.language_model.config._attn_implementation = "flex_attention"
    assert not decodable(model)
    assert not decodable(family("mistral", sliding_window=8))
    other = family("llama")
    other.lm_head.to("meta")
    assert not decodable(other)


def test_the_host_looks_at_the_device_at_most_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, count = family("llama"), in_fp32(mixed()), [0]

    def watch(name: str) -> None:
        plain = getattr(Tensor, name)

        def counting(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            count[-1] += 1
            return plain(self, *args, **kwargs)

        monkeypatch.setattr(Tensor, name, counting)

    class Mark(LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            count.append(0)
            return scores

    for name in READS:
        watch(name)
    for eos, every, looks in (([], 1, [0] * 6), ([3], 1, [1] * 6), ([3], 3, [0, 0, 1, 0, 0, 1])):
        with prune(model, PRUNING[1], sample_ids=range(4)):
            count[:] = [0]
            given = batch.inputs()
            plan = Greedy(7, eos, 0, [Mark()])
            greedy(model, given.pop("input_ids"), given.pop("attention_mask"), plan, every, **given)
        assert count[1:-1] == looks
        assert count[-1] <= 2  # at the end, where the answer is cut


@pytest.mark.parametrize("rows", [4, 16])
@pytest.mark.parametrize("bias", [False, True])
def test_large_layers_take_another_product_for_few_rows(rows: int, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "LARGE", 64 * 32)
    calls: list[tuple[int, ...]] = []
    own = linear._linear

    def counting(module: Any, rows: int, x: Tensor) -> Tensor:
        calls.append(tuple(x.shape))
        return own(module, rows, x)

    monkeypatch.setattr(linear, "_linear", counting)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(32, 64, bias), torch.nn.Linear(64, 16, bias))
    x, prompt = torch.randn(rows, 1, 32), torch.randn(rows, 5, 32)
    with torch.no_grad():
        plain, read = model(x), model(prompt)
        with linear.fast_linears(model, rows):
            assert ["forward" in vars(module) for module in model] == [True, False]
            torch.testing.assert_close(model(x), plain, rtol=0, atol=1e-6)
            assert torch.equal(model(prompt), read)
    assert calls == [(rows, 1, 32), (rows, 5, 32)]
    assert not any("forward" in vars(module) for module in model)


def test_small_layers_other_rows_and_other_precisions_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(32, 64))
    with linear.fast_linears(model, 16):
        assert "forward" not in vars(model[0])
    monkeypatch.setattr(linear, "LARGE", 64)
    for rows, kind in ((1, torch.float32), (65, torch.float32), (16, torch.float64), (16, torch.bfloat16)):
        with linear.fast_linears(model.to(kind), rows):
            assert "forward" not in vars(model[0])
    with pytest.raises(ZeroDivisionError), linear.fast_linears(model.float(), 16):
        assert "forward" in vars(model[0])
        raise ZeroDivisionError
    assert "forward" not in vars(model[0])


def test_the_same_tokens_with_the_other_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "LARGE", 1)
    monkeypatch.setattr(passage, "large_linears", lambda layers: [])  # those of prompts: test_linear.py
    model, batch, watches, rows = family("llama"), in_fp32(mixed()), (Watch(), Watch()), []
    own = linear._linear
    monkeypatch.setattr(linear, "_linear", lambda module, count, x: rows.append(len(x)) or own(module, count, x))
    with prune(model, PRUNING[1], sample_ids=range(4)):
        assert torch.equal(
            theirs(model, batch, watches[0], max_new_tokens=6), ours(model, batch, watches[1], max_new_tokens=6)
        )
    found = [torch.stack(watch.seen) for watch in watches]
    torch.testing.assert_close(*found, rtol=0, atol=2e-5)
    assert rows == [4] * (5 * 7 + 1) * 5
    assert decodable(model)


def test_the_next_batch_of_a_block_is_decoded_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine leaves its products on the layers until the next prompt comes."""
    monkeypatch.setattr(linear, "LARGE", 1)
    model, batch = family("llama"), in_fp32(mixed())
    with prune(model, PRUNING[1], sample_ids=range(4)):
        found = []
        for _ in range(2):
            assert decodable(model)
            found.append(ours(model, batch, Watch(), max_new_tokens=4))
        assert "forward" in vars(model.model.language_model.layers[-1].mlp.up_proj)
    assert torch.equal(*found)
    assert "forward" not in vars(model.model.language_model.layers[-1].mlp.up_proj)
