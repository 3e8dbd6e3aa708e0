"""Answering side by side: a record for every sample, whatever breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from asked import METHODS, answerer, outcomes, picture, questions
from bundles import small_bundle
from PIL import Image

from atp_eval.answering import Answerer
from atp_eval.engine import prefill
from atp_eval.methods import get_method
from atp_eval.models import Bundle
from atp_eval.writer import RunWriter


def test_every_method_answers_every_question_and_keeps_its_budget() -> None:
    found = answerer()
    found.answer(questions())
    for method, tokens in zip(METHODS, (36, 18, 18, 18), strict=True):
        records = found.recorded(method, "gqa")
        assert sorted(records) == list(range(12))
        for record in records.values():
            assert record.error is None and record.response is not None
            trace = record.keep_trace()
            assert trace is not None and trace.average_input == tokens
            assert record.prefill_seconds is not None and 0 < record.prefill_seconds < record.seconds
            assert record.peak_bytes is None  # a CPU has no peak of one method
            assert (record.objects, record.asked_cells) == (record.doc_id, 3 if record.doc_id else 0)
            asked = record.asked()
            assert asked is not None and asked.nonzero()[0].tolist() == ([3, 4, 5] if record.doc_id else [])


def test_the_batch_size_changes_nothing(unbroken: dict[str, list[tuple[Any, ...]]]) -> None:
    single = answerer(batch_size=1)
    single.answer(questions())
    assert outcomes(single) == unbroken


def test_questions_about_one_picture_share_the_reading_of_it_or_not_with_the_same_answers(
    monkeypatch: pytest.MonkeyPatch, unbroken: dict[str, list[tuple[Any, ...]]]
) -> None:
    given: list[Any] = []
    shares = prefill.sharing
    monkeypatch.setattr(prefill, "sharing", lambda *args: given.append(found := shares(*args)) or found)
    asks = [replace(a, info=replace(a.info, image_key=f"{a.doc_id // 3}")) for a in questions()]
    apart = answerer(share_pictures=False)
    apart.answer(asks)
    assert outcomes(apart) == unbroken and given == []
    together = answerer()
    together.answer(asks)
    assert outcomes(together) == unbroken
    assert len(given) == together.batches * len(METHODS)
    assert all(found is not None and max(found.tokens) > 36 for found in given)  # the picture, and the words before it


def test_an_image_is_encoded_once_for_all_methods_and_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    encode = Bundle.encode_pixels
    monkeypatch.setattr(Bundle, "encode_pixels", lambda self, pixels: seen.append(len(pixels)) or encode(self, pixels))
    answerer().answer(questions())
    assert sum(seen) == 4


def test_no_graph_for_gradients_is_kept_not_even_the_means_for_one() -> None:
    found = answerer()
    found.answer(questions(3))
    (picture,) = found.pictures.cache.entries.values()
    assert picture.features.is_inference()


def test_questions_that_cannot_be_answered_are_recorded_by_name() -> None:
    def broken() -> list[Image.Image]:
        raise OSError("cannot identify image file")

    asks = questions(4)
    asks[0] = replace(asks[0], load=broken)
    asks[1] = replace(asks[1], load=lambda: [picture(0), picture(1)])
    asks[2] = replace(asks[2], load=list)
    found = answerer()
    found.answer(asks)
    for method in METHODS:
        records = found.recorded(method, "gqa")
        assert records[0].error == "broken image: OSError: cannot identify image file" and records[0].response is None
        assert records[1].error == "2 images in one question; only one is supported"
        assert records[2].error is None and records[2].response is not None and records[2].trace is None
        assert records[3].error is None and records[3].trace is not None


def limited(largest: int) -> Callable[..., torch.Tensor]:
    """`Bundle.generate` on a device where only `largest` questions fit."""
    generate = Bundle.generate

    def run(self: Bundle, inputs: dict[str, torch.Tensor], **options: Any) -> torch.Tensor:
        if len(inputs["input_ids"]) > largest:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(self, inputs, **options)

    return run


def test_a_batch_that_does_not_fit_is_halved(
    monkeypatch: pytest.MonkeyPatch, unbroken: dict[str, list[tuple[Any, ...]]]
) -> None:
    monkeypatch.setattr(Bundle, "generate", limited(2))
    said: list[str] = []
    found = answerer(say=said.append)
    found.answer(questions())
    assert outcomes(found) == unbroken
    assert "out of memory at 4 questions with upper_bound: trying 2 at a time" in said


def test_images_that_do_not_fit_together_are_encoded_apart(
    monkeypatch: pytest.MonkeyPatch, unbroken: dict[str, list[tuple[Any, ...]]]
) -> None:
    encode = Bundle.encode_pixels

    def run(self: Bundle, pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(self, pixels)

    monkeypatch.setattr(Bundle, "encode_pixels", run)
    found = answerer()
    found.answer(questions())
    assert outcomes(found) == unbroken


def test_a_question_that_never_fits_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bundle, "generate", limited(0))
    found = answerer()
    found.answer(questions(2))
    assert {r.error for r in found.recorded("fastv@18", "gqa").values()} == {"out of memory at batch size 1"}


def test_other_errors_of_the_model_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> torch.Tensor:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(Bundle, "generate", fail)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        answerer().answer(questions(2))


def test_logits_that_are_not_finite_are_errors_of_their_sample_only() -> None:
    bundle = small_bundle(seed=1)
    found = Answerer(bundle, {"upper_bound": get_method("upper_bound").solve(bundle.geometry)}, batch_size=4)
    row = bundle.tokenizer.convert_tokens_to_ids("purple")
    embedding = bundle.model.get_input_embeddings().weight
    saved = embedding.detach().clone()
    asks = questions(3)
    asks[1] = replace(asks[1], text=asks[1].text + " purple")
    with torch.no_grad():
        embedding[row] = float("nan")
    try:
        found.answer(asks)
    finally:
        with torch.no_grad():
            embedding.copy_(saved)
    errors = [found.recorded("upper_bound", "gqa")[i].error for i in range(3)]
    assert errors == [None, "the logits were not finite; try --dtype float32", None]


def test_pictures_are_kept_as_the_model_saw_them(tmp_path: Path) -> None:
    with RunWriter(tmp_path) as writer:
        answerer(writer=writer, keep_images=4).answer(questions())
    kept = list((tmp_path / "images").glob("*.webp"))
    assert len(kept) == 2  # documents 0-3 show two pictures
    assert Image.open(kept[0]).size == (84, 84)


def test_prefill_ends_with_the_first_scores_and_is_shared_by_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answerer()
    clock = iter(range(1000))
    monkeypatch.setattr(found, "_now", lambda: float(next(clock)))
    found.answer(questions(4))
    for method in METHODS:  # the clock is read before the prefill, after it, and at the end: one tick each
        assert {(r.prefill_seconds, r.seconds) for r in found.recorded(method, "gqa").values()} == {(0.25, 0.5)}


def test_peak_memory_of_a_gpu_is_taken_anew_for_every_batch_and_method(monkeypatch: pytest.MonkeyPatch) -> None:
    found, said = answerer(), []
    monkeypatch.setattr(found, "_forget_peak", lambda: said.append("forget"))
    monkeypatch.setattr(found, "_peak", lambda: said.append("read") or len(said))  # type: ignore[func-returns-value]
    found.answer(questions(8))
    assert said == ["forget", "read"] * (2 * len(METHODS))
    assert {r.peak_bytes for m in METHODS for r in found.recorded(m, "gqa").values()} == set(range(2, 17, 2))
