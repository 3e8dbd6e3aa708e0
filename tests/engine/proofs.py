"""The engine's requirements, one function each, for any `prune`: the mutation checks hand in broken ones."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers.cache_utils import DynamicLayer

from atp_eval.engine import model_geometry
from atp_eval.methods import Method, get_method
from engine.mixer import Mixer
from engine.reference import Reference
from engine.small import Batch, answer, make_batch, small_llava, step_by_step

Spec = str | Method
Prune = Callable[..., AbstractContextManager[Any]]
PRUNING = (
    "fastv:layer=2,keep=9",
    "schedule:layers=1-3,keep=20-7,score=redundant",
    "schedule:layers=1-2-4,keep=30-11-3,score=cross",
    "schedule:layers=2-4,keep=13-6,score=self",
    "random:layer=0,keep=10",
    "grid:layer=3,keep=8",
    "pool:rows=3,cols=4",
)
KEEPING = (
    "upper_bound",
    "fastv:layer=1,keep=36",
    "random:layer=0,keep=36",
    "pool:rows=6,cols=6",
    "schedule:layers=1-2-4,keep=36-36-36,score=redundant",
)
ASKED = (7, 8, 14)  # cells of what every question is about, where a method wants to know
MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "sampling": {"do_sample": True, "temperature": 0.7},
}


def mixed() -> Batch:
    """Unequal lengths, with and without an image."""
    return make_batch((5, 9), 20, (3, 14), (6, 1))


def keep_everything(prune: Prune, model: Any, spec: Spec, batch: Batch, **mode: Any) -> None:
    """1: a method that keeps all gives the very bits of the untouched model."""
    plain = answer(model, batch, **mode)
    with prune(model, spec, asked=[ASKED] * len(batch.rows)):
        pruned = answer(model, batch, **mode)
    assert torch.equal(plain.tokens, pruned.tokens)
    if plain.logits is not None:
        assert plain.logits.isfinite().all()
        assert torch.equal(plain.logits, pruned.logits)


def masked_reference(prune: Prune, model: Any, spec: Spec, batch: Batch, steps: int = 3, atol: float = 1e-11) -> None:
    """2: pruned equals every token kept and the pruned ones masked in later layers; the trace says which."""
    method = get_method(spec) if isinstance(spec, str) else spec
    reference = Reference(model, method.solve(model_geometry(model.config)), "sample", ASKED)
    truth = reference.logits_of(batch, steps)
    with prune(model, spec, sample_ids=["sample"], asked=[ASKED]) as pruned:
        found = step_by_step(model, batch, steps)[0]
        trace = pruned.trace
    kept = np.stack([trace.keep_at(i) for i in range(trace.num_layers)])
    if not any(stage.merged for stage in trace.stages):
        assert np.array_equal(kept, reference.kept.numpy())
    assert trace.tokens_per_layer().tolist() == reference.kept.sum(1).tolist()
    torch.testing.assert_close(found, truth, rtol=0, atol=atol)


def batch_equals_singles(prune: Prune, model: Any, spec: Spec, batch: Batch, **mode: Any) -> None:
    """3: samples answered together, padded and ragged, are answered as alone."""
    names = [f"sample {i}" for i in range(len(batch.rows))]
    asked = [(*ASKED, row) for row in range(len(names))]
    with prune(model, spec, sample_ids=names, asked=asked) as pruned:
        together = answer(model, batch, **mode)
        traces = pruned.traces
        assert len(traces) == len(names)
        for row, name in enumerate(names):
            pruned.sample_ids, pruned.asked = [name], [asked[row]]
            alone = answer(model, batch.single(row), **mode)
            assert torch.equal(together.tokens[row], alone.tokens[0])
            if alone.logits is not None and together.logits is not None:
                torch.testing.assert_close(together.logits[row], alone.logits[0], rtol=0, atol=1e-5)
            assert traces[row].to_json() == pruned.trace.to_json()


def cache_lengths(prune: Prune, model: Any, spec: Spec, batch: Batch, steps: int = 4) -> None:
    """4: each layer's cache holds the text, the visual tokens that the trace names, the new tokens; nothing else."""
    with prune(model, spec) as pruned:
        cache = answer(model, batch, steps).cache
        traces = pruned.traces
    per_layer = np.stack([trace.tokens_per_layer() for trace in traces]) + np.array(text_tokens(batch))[:, None]
    assert [layer.keys.shape[2] for layer in cache.layers] == (per_layer.max(0) + steps - 1).tolist()


def written_once(prune: Prune, model: Any, spec: Spec, batch: Batch, steps: int = 3) -> None:
    """5: the cache of each layer is written once when the prompt is read and once for each new token."""
    writes: dict[int, int] = {}
    update = DynamicLayer.update

    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        writes[id(self)] = writes.get(id(self), 0) + 1
        return update(self, *args, **kwargs)

    DynamicLayer.update = counting
    try:
        with prune(model, spec):
            cache = answer(model, batch, steps).cache
    finally:
        DynamicLayer.update = update
    assert [writes[id(layer)] for layer in cache.layers] == [steps] * len(cache.layers)


def sdpa_everywhere(prune: Prune, model: Any, spec: Spec, batch: Batch) -> None:
    """6: every layer, pruning layers included, runs torch's fused attention once, on the tokens that are there."""
    calls: list[int] = []
    fused = F.scaled_dot_product_attention

    def counting(query: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(query.shape[2])
        return fused(query, *args, **kwargs)

    with prune(model, spec) as pruned:
        features = model.model.get_image_features
        model.model.get_image_features = lambda **kw: encoded
        encoded = features(pixel_values=batch.pixels)
        F.scaled_dot_product_attention = torch.nn.functional.scaled_dot_product_attention = counting
        try:
            model(**batch.inputs())
        finally:
            F.scaled_dot_product_attention = torch.nn.functional.scaled_dot_product_attention = fused
            del model.model.get_image_features
        tokens = pruned.trace.tokens_per_layer() + len(batch.rows[0]) - 36
    assert calls == tokens.tolist()


def without_dead_rows(prune: Prune, model: Any, spec: Spec, batch: Batch, **mode: Any) -> None:
    """7: work is left out for rows that nobody reads, and nothing else changes: as if every row went through it all."""
    early = importlib.import_module(prune.__module__.rpartition(".")[0] + ".early")
    known, names = (early.LAYERS, early.LAST_LAYERS), [f"sample {i}" for i in range(len(batch.rows))]
    exact = 1e-12 if model.dtype == torch.float64 else 1e-5
    found = []
    for early.LAYERS, early.LAST_LAYERS in (known, ((), ())):
        with prune(model, spec, sample_ids=names, asked=[ASKED] * len(names)) as pruned:
            out = answer(model, batch, **mode)
            traces = [trace.to_json() for trace in pruned.traces]
            with rows_of_work(model) as rows, torch.no_grad():
                first = model(**batch.inputs(), use_cache=True, logits_to_keep=1)
            found.append((out, traces, first, rows, pruned))
    early.LAYERS, early.LAST_LAYERS = known
    (new, traces, first, rows, pruned), (old, old_traces, old_first, old_rows, _) = found
    assert traces == old_traces
    assert torch.equal(new.tokens, old.tokens)
    torch.testing.assert_close(first.logits, old_first.logits, rtol=0, atol=exact)
    tokens = tokens_per_row(pruned, batch)
    for index, (layer, other) in enumerate(zip(*(x.past_key_values.layers for x in (first, old_first)), strict=True)):
        there = torch.arange(layer.keys.shape[2]) >= layer.keys.shape[2] - torch.tensor(tokens[index])[:, None]
        for one, two in ((layer.keys, other.keys), (layer.values, other.values)):
            one, two = (x.transpose(1, 2)[there] for x in (one, two))
            torch.testing.assert_close(one, two, rtol=0, atol=exact)
    assert old_rows == [(padded(row), padded(row)) for row in tokens]
    unpruned = [len(row) for row in batch.rows]
    inside = [packed(row) if row != unpruned else padded(row) for row in tokens]
    through = left_early(pruned, inside)
    through[-1] = len(names) if tokens[-1] != unpruned else through[-1]
    assert rows == [(n, n) for n in through]


def shared(model: Any) -> tuple[Batch, list[str | None]]:
    """Prompts of unequal lengths about three pictures, one of them asked about once, two words, and names of the
    pictures; one begins with other words than the others about its picture."""
    batch = make_batch((5, 9), (5, 3), 20, (5, 14), (5, 6), (5, 1), (5, 2), (4, 7), dtype=model.dtype)
    assert batch.pixels is not None
    names: list[str | None] = ["a", "b", None, "a", "c", "b", "a", "a"]
    first = {name: batch.images[names.index(name)] for name in names if name is not None}
    pixels = torch.stack([batch.pixels[first[name]] for name in names if name is not None])  # type: ignore[index]
    ids, rows = batch.ids.clone(), [row.clone() for row in batch.rows]
    for at, name in enumerate(names):
        if name is not None and at != 7:
            rows[at][:5] = rows[0][:5]
            ids[at, ids.shape[1] - len(rows[at]) :] = rows[at]
    return Batch(ids, batch.mask, pixels, rows, batch.images), names


def shared_beginnings(prune: Prune, model: Any, spec: Spec) -> None:
    """8: what prompts about one picture begin with is read once, and each is answered as alone."""
    batch, pictures = shared(model)
    names = [f"sample {i}" for i in range(len(batch.rows))]
    asked = [ASKED] * len(names)
    with prune(model, spec, sample_ids=names, asked=asked, pictures=pictures) as pruned:
        together, traces = answer(model, batch), [trace.to_json() for trace in pruned.traces]
        with rows_of_work(model) as rows, torch.no_grad():
            every = model(**batch.inputs()).logits
        tokens = tokens_per_row(pruned, batch)
        for row, name in enumerate(names):
            pruned.sample_ids, pruned.asked, pruned.pictures = [name], [ASKED], None
            alone = answer(model, batch.single(row))
            assert torch.equal(together.tokens[row], alone.tokens[0])
            assert together.logits is not None and alone.logits is not None
            torch.testing.assert_close(together.logits[row], alone.logits[0], rtol=0, atol=1e-5)
            assert traces[row] == pruned.trace.to_json()
            with torch.no_grad():
                own = model(**batch.single(row).inputs()).logits[0]
            torch.testing.assert_close(every[row, -len(own) :], own, rtol=0, atol=1e-5)
    unpruned, text = [len(row) for row in batch.rows], text_tokens(batch)
    inside = []
    for index, row in enumerate(tokens):
        read = pruned.method.reads_question and any(layer <= index for layer in pruned.method.prune_layers)
        alone_in = packed(row) if row != unpruned else padded(row)
        again = sum(5 + row[i] - text[i] for i in (3, 5, 6))  # rows that begin like an earlier one
        inside.append(alone_in if read else sum(row) - again)
    assert rows == [(n, n) for n in left_early(pruned, inside)]


def left_early(pruned: Any, inside: list[int]) -> list[int]:
    """Rows behind the attention of each layer, from those in it."""
    if not pruned.method.early:
        return [*inside]
    return [inside[i + 1] if i + 1 in pruned.method.prune_layers else n for i, n in enumerate(inside)]


def text_tokens(batch: Batch) -> list[int]:
    """Of each prompt."""
    return [len(row) - (0 if image is None else 36) for row, image in zip(batch.rows, batch.images, strict=True)]


def tokens_per_row(pruned: Any, batch: Batch) -> list[list[int]]:
    """Tokens that enter each layer, text included: [layers][rows]."""
    visual = np.stack([trace.tokens_per_layer() for trace in pruned.traces])
    found: list[list[int]] = (visual + np.array(text_tokens(batch))[:, None]).T.tolist()
    return found


def padded(tokens: list[int]) -> int:
    """Rows that padded prompts of so many tokens have in a layer."""
    return len(tokens) * max(tokens)


def packed(tokens: list[int]) -> int:
    """Rows that they have where they are packed, if that pays."""
    return sum(tokens) if sum(tokens) < 0.9 * padded(tokens) else padded(tokens)


@contextmanager
def rows_of_work(model: Any) -> Iterator[list[tuple[int, int]]]:
    """Rows, of all prompts together, through the output projection and the feed-forward network of each layer."""
    rows: list[tuple[int, int]] = []
    projected: list[int] = []
    with ExitStack() as stack:
        for layer in model.model.language_model.layers:
            project, feed = layer.self_attn.o_proj, layer.mlp
            stack.callback(
                project.register_forward_hook(lambda m, a, out: projected.append(out.shape[:2].numel())).remove
            )
            stack.callback(
                feed.register_forward_hook(lambda m, a, out: rows.append((projected[-1], out.shape[:2].numel()))).remove
            )
        yield rows


def all_proofs(prune: Prune) -> None:
    """A quick round of every requirement, for the mutation checks."""
    model, batch = small_llava(), mixed()
    for spec in (*PRUNING, Mixer()):
        masked_reference(prune, model, spec, batch.single(0))
        masked_reference(prune, model, spec, batch.single(2))
    for spec in KEEPING[1:3]:
        keep_everything(prune, model, spec, batch)
    for spec in (*PRUNING, Mixer()):
        batch_equals_singles(prune, model, spec, batch)
    batch_equals_singles(prune, model, Mixer(), batch, num_beams=2)
    batch_equals_singles(prune, model, PRUNING[1], batch, num_beams=2)
    for spec in (*PRUNING[:4], PRUNING[6]):
        without_dead_rows(prune, model, spec, batch)
    for spec in ("upper_bound", *PRUNING[:6:2], *PRUNING[5:]):
        shared_beginnings(prune, model, spec)
    for spec in PRUNING[:2]:
        cache_lengths(prune, model, spec, batch)
        written_once(prune, model, spec, batch)
        sdpa_everywhere(prune, model, spec, batch.single(0))
