"""What a method needs beyond scores reaches it, of its own sample: ground truth, the vision tower, CLIP's relevance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from asked import picture, questions
from bundles import small_bundle
from PIL import Image

from atp_eval import answering
from atp_eval.answering import Answerer
from atp_eval.asks import Ask
from atp_eval.config import RunConfig
from atp_eval.engine import prune
from atp_eval.errors import UserError
from atp_eval.methods import get_method
from atp_eval.models import Bundle
from atp_eval.models.clip import ClipText
from atp_eval.run import check_names


def answered(spec: str, asks: Sequence[Ask], batch_size: int = 4) -> dict[int, Any]:
    """The traces of the asks, by document, None for text alone."""
    bundle = small_bundle()
    found = Answerer(bundle, {spec: get_method(spec).solve(bundle.geometry)}, batch_size=batch_size)
    found.answer(asks)
    records = found.recorded(spec, "gqa").values()
    assert all(record.error is None for record in records)
    return {record.doc_id: record.keep_trace() for record in records}


def asked_about(i: int) -> tuple[int, ...]:
    return tuple(range(i, i + 4))


@pytest.fixture
def asks() -> list[Ask]:
    """Every question is about other cells, and two of twelve have no picture."""
    made = [replace(ask, info=replace(ask.info, cells=asked_about(ask.doc_id))) for ask in questions()]
    return [replace(ask, load=list) if ask.doc_id in (2, 7) else ask for ask in made]


def test_every_sample_is_pruned_by_its_own_ground_truth(asks: list[Ask]) -> None:
    for doc, trace in answered("oracle@4:layer=0", asks).items():
        if doc in (2, 7):
            assert trace is None
        else:
            assert trace.keep_at(0).nonzero()[0].tolist() == list(asked_about(doc))


@pytest.mark.parametrize("spec", ["visionzip@9", "vispruner@9", "prumerge", "downsample@9"])
def test_kept_states_of_the_tower_choose_as_the_tower_itself(spec: str, asks: list[Ask]) -> None:
    """Through the cache and in batches as with pixels, one by one."""
    bundle, found = small_bundle(), answered(spec, asks)
    for ask in asks:
        images: list[Image.Image] = ask.load()
        if not images:
            continue
        inputs = bundle.inputs([ask.text], [bundle.encode(images)[0]])
        with torch.no_grad(), prune(bundle.model, spec) as pruned:
            bundle.model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                pixel_values=bundle.pixels(images),
            )
        assert found[ask.doc_id].to_json() == pruned.trace.to_json()


def test_states_are_joined_once_a_batch_for_those_that_look_and_in_the_time_of_none(
    asks: list[Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = ("upper_bound", "visionzip@9", "vispruner@9")
    bundle, clock, joins, given = small_bundle(), [0.0], list[int](), list[bool]()
    found = Answerer(bundle, {spec: get_method(spec).solve(bundle.geometry) for spec in specs}, batch_size=4)
    join, pruning = answering.joined, answering.prune

    def slow(pictures: Sequence[Any]) -> Any:
        clock[0] += 100
        joins.append(len(pictures))
        return join(pictures)

    def watched(model: Any, method: Any, **options: Any) -> Any:
        given.append((options["vision"] is not None) == ("vision" in method.needs))
        return pruning(model, method, **options)

    monkeypatch.setattr(answering, "joined", slow)
    monkeypatch.setattr(answering, "prune", watched)
    monkeypatch.setattr(found, "_now", lambda: clock[0])
    found.answer(asks)
    assert len(joins) == found.batches and sum(joins) == 10
    assert len(given) == 3 * found.batches and all(given)
    records = [record for spec in specs for record in found.recorded(spec, "gqa").values()]
    assert {(record.seconds, record.prefill_seconds, record.vision_seconds) for record in records} == {(0.0, 0.0, 0.0)}


def test_halves_of_a_batch_look_at_their_own_pictures(asks: list[Ask], monkeypatch: pytest.MonkeyPatch) -> None:
    whole, generate = answered("visionzip@9", asks), Bundle.generate

    def run(self: Bundle, inputs: dict[str, torch.Tensor], **options: Any) -> torch.Tensor:
        if len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(self, inputs, **options)

    monkeypatch.setattr(Bundle, "generate", run)
    halves = answered("visionzip@9", asks)
    assert {d: t and t.to_json() for d, t in halves.items()} == {d: t and t.to_json() for d, t in whole.items()}


def test_every_question_is_compared_with_its_own_picture(asks: list[Ask], monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in gives the cell whose number is the length of the question the lowest cosine, the most relevant."""
    bundle, seen = small_bundle(), []

    class Clip:
        def relevance(self, features: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
            seen.extend(zip(features, texts, strict=True))
            found = torch.zeros(len(texts), 36)
            for row, text in enumerate(texts):
                found[row, len(text) % 36] = -1
            return found

    monkeypatch.setattr(ClipText, "load", lambda name, **settings: Clip())
    traces = answered("cdpruner@1", asks)
    own = {doc: len(asks[doc].info.question) % 36 for doc in traces if doc not in (2, 7)}
    assert {doc: traces[doc].keep_at(0).nonzero()[0].tolist() for doc in own} == {d: [c] for d, c in own.items()}
    pictures = {ask.info.question: bundle.encode_with_states([picture(ask.doc_id // 3)])[1].leaving for ask in asks}
    assert len(seen) == 10
    for features, text in seen:
        torch.testing.assert_close(features, pictures[text][0, 1:], rtol=0, atol=1e-5)


def test_ground_truth_is_refused_where_there_is_none() -> None:
    with pytest.raises(UserError, match=r"oracle@144 reads where .* only the embedded suite knows; .* --suite mini"):
        check_names(RunConfig(methods=["upper_bound", "oracle@144"], suite="real"))
    assert [m.label for m in check_names(RunConfig(methods=["oracle@144"], suite="mini"))[1]] == ["oracle@144"]
