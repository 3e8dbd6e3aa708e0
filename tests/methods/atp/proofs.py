"""What ATP has to do on the engine, one function each, for any `prune`: the mutation checks hand in broken ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from engine import tables
from engine.proofs import Prune, batch_equals_singles, keep_everything
from engine.reference import Reference
from engine.small import Batch, answer, make_batch, small_llava, step_by_step
from reference.atp import LiteralATP

from atp_eval.methods.atp import ATP, Adapter
from methods.adapters import random_adapter


def ragged() -> Batch:
    """Unequal lengths before and after the image, and a prompt without one."""
    return make_batch((5, 9), 20, (3, 14), (6, 1))


def made(adapter: Adapter, **parameters: Any) -> ATP:
    """The method with this adapter, without a folder."""
    return ATP(adapter="adapter", trained=adapter, **parameters)


def zero(model: Any) -> ATP:
    """Keeps everything: thresholds are 0, which the lowest score equals."""
    return made(random_adapter(model, keep_all=True, scores="self", rules="redundant"))


def equals_literal(
    prune: Prune, model: Any, adapter: Adapter, batch: Batch, *, twin: Any = None, control: str = "none"
) -> list[list[int]]:
    """ATP in a padded batch equals the literal version alone: raw scores, kept tokens, then the logits of three steps.

    All in fp64, rotary tables too. twin: a model that has the adapter's language model as its own; the literal version
    runs on that. Returns how many tokens each sample with an image has after each prune point.
    """
    method, options, seen = made(adapter, control=control), adapter.config.options, []
    twin, decide = twin or model, ATP.decide

    def watched(self: ATP, point: Any) -> Any:
        seen.append((point.layer, point.self_score(options.causal_self), point.cross_score()))
        return decide(self, point)

    with tables.exact(model), patch.object(ATP, "decide", watched), prune(model, method) as pruned, torch.no_grad():
        model(**batch.inputs())
        traces = [trace for trace in pruned.traces if trace.grid != (0, 0)]
    assert [layer for layer, *_ in seen] == list(options.layers)

    rows = [row for row, image in enumerate(batch.images) if image is not None]
    assert len(traces) == len(rows)
    for sample, row in enumerate(rows):
        single, slow = batch.single(row), LiteralATP(adapter, static=control == "static")
        reference = Reference(twin, slow)
        with tables.as_written(twin, single.ids[0]) if options.positions == "2d" else tables.exact(twin):
            truth = reference.logits_of(single, 3)
        for layer, own, cross in seen:
            alive, gone = slow.seen[layer]["alive"], torch.ones(own.shape[1], dtype=torch.bool)
            gone[alive] = False
            torch.testing.assert_close(own[sample][alive].tolist(), slow.seen[layer]["self"], rtol=0, atol=1e-11)
            torch.testing.assert_close(cross[sample][alive].tolist(), slow.seen[layer]["cross"], rtol=0, atol=1e-11)
            assert own[sample][gone].isneginf().all() and cross[sample][gone].isneginf().all()
        kept = np.stack([traces[sample].keep_at(layer) for layer in range(len(reference.layers))])
        assert np.array_equal(kept, reference.kept.numpy())
        with tables.exact(model), prune(model, method):
            found = step_by_step(model, single, 3)[0]
        torch.testing.assert_close(found, truth, rtol=0, atol=1e-11)
    return [[int(trace.keep_at(layer).sum()) for layer in options.layers] for trace in traces]


def all_proofs(prune: Prune) -> None:
    """A quick round for the mutation checks."""
    model, batch = small_llava(), ragged()
    for options in (
        {},
        {"layers": (2, 4), "score_norm": "rel", "positions": "2d"},
        {"causal_self": True, "scores": "self"},
    ):
        equals_literal(prune, model, random_adapter(model, **options), batch)
    equals_literal(prune, model, random_adapter(model), batch, control="static")
    keep_everything(prune, model, zero(model), batch)
    batch_equals_singles(prune, model, made(random_adapter(model, positions="2d")), batch)
    changed = replace(random_adapter(model), language_model={"model.language_model.norm.weight": torch.zeros(32)})
    before = answer(model, batch).logits
    with prune(model, made(changed)):
        assert not answer(model, batch).logits.any()
    assert torch.equal(answer(model, batch).logits, before)
