"""Packed prompts: where their tokens stand, and that sharing what prompts begin with changes no answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from methods.matrix import MATRIX
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from atp_eval.engine import prune
from atp_eval.engine.layout import Layout
from atp_eval.engine.packed import Packing, Sharing, Span, packing_of
from atp_eval.errors import UserError
from engine import proofs
from engine.mixer import Mixer
from engine.proofs import PRUNING, rows_of_work
from engine.small import answer, make_batch, small_llava
from engine.test_flash import flash

SPECS = [spec for row in MATRIX for spec in row.pruning]


@pytest.mark.parametrize("spec", [*SPECS, "upper_bound", "schedule:layers=1-3,keep=20-7,score=self", Mixer()])
def test_every_method_answers_questions_about_one_picture_as_alone(model: Any, spec: Any, adapters: Path) -> None:
    proofs.shared_beginnings(prune, model, spec.format(adapters=adapters) if isinstance(spec, str) else spec)


@pytest.mark.parametrize("attention", ["eager", "flash_attention_2"])
@pytest.mark.parametrize("spec", ["upper_bound", *PRUNING])
def test_with_every_attention(spec: str, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", flash)
    model = small_llava()
    model.model.language_model.config._attn_implementation = attention
    proofs.shared_beginnings(prune, model, spec)


def test_tokens_stand_one_behind_the_other() -> None:
    """Rows of 4, 2 and 3 tokens in 4 slots; the first and the last begin with the same 2 tokens."""
    valid = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]]).bool()
    layout = Layout(valid, torch.full((3, 4), 9), [4, 2, 3], 9)
    packing = Packing.of(layout, Sharing([0, 1, 0], [2, 0, 2]))
    assert packing.spans == (Span(0, 2), Span(2, 4, (0, 2)), Span(4, 6), Span(6, 7, (0, 2)))
    assert packing.slots.tolist() == [0, 1, 2, 3, 6, 7, 11]
    assert packing.places[0].tolist() == [0, 1, 2, 3]
    assert packing.places[1, 2:].tolist() == [4, 5]
    assert packing.places[2, 1:].tolist() == [0, 1, 6]
    assert packing.seen.tolist() == [0, 1, 0, 1, 2, 3, 4, 5, 0, 1, 6]
    assert {name: list(x) if isinstance(x, torch.Tensor) else x for name, x in packing.varlen.items()} == {
        "cu_seq_lens_q": [0, 2, 4, 6, 7],
        "cu_seq_lens_k": [0, 2, 6, 8, 11],
        "max_length_q": 2,
        "max_length_k": 4,
    }
    x = torch.tensor([[10.0, 11, 12, 13], [0, 0, 22, 23], [0, 10, 11, 33]])[..., None]
    assert packing.pack(x).flatten().tolist() == [10, 11, 12, 13, 22, 23, 33]
    assert torch.equal(packing.unpack(packing.pack(x))[valid], x[valid])
    assert packing.last(packing.pack(x)).flatten().tolist() == [13, 23, 33]


def test_what_stays_is_shared_after_what_was_shared_went() -> None:
    shared = Sharing([0, 1, 0], [12, 0, 12])
    assert shared.after([20, 7, 16], [11, 7, 7]) == Sharing([0, 1, 0], [3, 0, 3])


def test_a_batch_is_packed_where_a_tenth_of_it_is_padding() -> None:
    def layout(*lengths: int) -> Layout:
        return Layout(torch.zeros(len(lengths), max(lengths)).bool(), torch.zeros(2, 2), lengths, 9)

    assert packing_of(layout(10, 8), None) is None
    found = packing_of(layout(10, 7), None)
    assert found is not None
    assert found.spans == (Span(0, 10), Span(10, 17))


def test_names_of_pictures_are_as_many_as_samples(model: Any) -> None:
    batch = make_batch((5, 9), (5, 3))
    with (
        pytest.raises(UserError, match="1 pictures for a batch of 2 samples"),
        prune(model, "grid:layer=0,keep=9", pictures=["a"]),
    ):
        answer(model, batch)


@pytest.mark.parametrize("asked", ["beams", "hidden states"])
def test_nothing_is_shared_with_beams_or_where_every_layer_is_asked_for(model: Any, asked: str) -> None:
    batch, names = proofs.shared(model)
    with prune(model, "upper_bound", pictures=names), rows_of_work(model) as rows, torch.no_grad():
        if asked == "beams":
            found = answer(model, batch, num_beams=2)
        else:
            model(**batch.inputs(), output_hidden_states=True)
    beams = 2 if asked == "beams" else 1
    assert rows[0] == (beams * batch.ids.numel(),) * 2
    if asked == "beams":
        assert torch.equal(found.tokens, answer(model, batch, num_beams=2).tokens)


def test_a_wrong_name_for_a_picture_is_the_callers_fault_but_other_words_before_it_are_not(model: Any) -> None:
    """Rows with the same picture behind other words share nothing."""
    batch, names = proofs.shared(model)
    with prune(model, "upper_bound", pictures=names) as pruned, torch.no_grad():
        model(**batch.inputs())
        shared = pruned._passage.prefill.shared  # type: ignore[union-attr]
    assert shared == Sharing([0, 1, 2, 0, 4, 1, 0, 7], [41, 41, 0, 41, 0, 41, 41, 0])
