"""How often the host waits for the device while questions are answered: a few times a batch, once a token at most."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from asked import questions
from bundles import small_bundle
from engine.test_syncs import READS
from torch import Tensor

from atp_eval.answering import Answerer
from atp_eval.methods import get_method


def reads(monkeypatch: pytest.MonkeyPatch, spec: str, count: int, tokens: int, **options: Any) -> Counter[str]:
    """Reads of tensor values by the thread that runs the model, while it answers one batch of `count` questions."""
    bundle, found, inside = small_bundle(), Counter[str](), False

    def watch(name: str) -> None:
        plain = getattr(Tensor, name)

        def counting(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            found[name] += inside and threading.current_thread() is threading.main_thread()
            return plain(self, *args, **kwargs)

        patch.setattr(Tensor, name, counting)

    answer_batch = Answerer._answer_batch

    def watched(self: Answerer, batch: Any) -> None:
        nonlocal inside
        inside = True
        answer_batch(self, batch)
        inside = False

    with monkeypatch.context() as patch:
        for name in READS:
            watch(name)
        patch.setattr(Answerer, "_answer_batch", watched)
        patch.setattr(bundle.model.generation_config, "eos_token_id", 10**6)  # no answer ends early
        answerer = Answerer(bundle, {spec: get_method(spec).solve(bundle.geometry)}, batch_size=16)
        asks = [replace(a, options={"max_new_tokens": tokens, **options}) for a in questions(count)]
        answerer.answer(asks)
    records = answerer.recorded(spec, "gqa").values()
    assert len(records) == count and answerer.batches == 1
    assert {r.error for r in records} == {None}
    return found


@pytest.mark.parametrize("spec", ["upper_bound", "fastv@18", "grid@18"])
@pytest.mark.parametrize(("options", "looks"), [({}, 1), ({"until": ["\n\n"]}, 2)])
def test_a_token_costs_one_look_at_whether_all_have_ended_and_one_at_its_text_where_text_ends_answers(
    spec: str, options: Any, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = (reads(monkeypatch, spec, 6, tokens, **options) for tokens in (2, 7))
    assert (long - short).total() <= 5 * looks
    assert long["item"] == short["item"]
    assert short.total() <= 16 + 2 * looks  # of the prompt, and what is read once a batch: answers, traces, lengths


@pytest.mark.parametrize("spec", ["upper_bound", "fastv@18"])
def test_a_batch_costs_as_much_for_many_questions_as_for_few(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads(monkeypatch, spec, 12, 2) == reads(monkeypatch, spec, 6, 2)
