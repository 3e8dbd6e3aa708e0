"""Which questions share a batch: equal settings, pictures whole, little padding, the same at every call."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from atp_eval.asks import Ask, batches
from atp_eval.documents import DocInfo


def ask(doc: int, picture: str | None, words: int = 3, benchmark: str = "gqa", **options: Any) -> Ask:
    info = DocInfo("?", "", image_key=picture)
    return Ask(benchmark, doc, "w " * words, list, {"max_new_tokens": 3, **options}, info)


@st.composite
def many(draw: st.DrawFn) -> list[Ask]:
    """Questions in an order that has nothing to do with their pictures; some name none."""
    rows = draw(st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d", None]), st.integers(1, 9)), max_size=60))
    return [ask(i, picture, words) for i, (picture, words) in enumerate(rows)]


def names(found: list[list[Ask]]) -> list[list[str]]:
    return [[a.name for a in batch] for batch in found]


@settings(max_examples=60, deadline=None)
@given(asks=many(), size=st.integers(1, 9))
def test_every_question_is_in_one_batch_and_pictures_are_torn_only_where_they_must(asks: list[Ask], size: int) -> None:
    found = list(batches(asks, size))
    assert sorted(a.doc_id for batch in found for a in batch) == list(range(len(asks)))
    assert all(1 <= len(batch) <= size for batch in found)
    counts = Counter(a.info.image_key for a in asks)
    for picture in counts.keys() - {None}:
        places = [i for i, batch in enumerate(found) for a in batch if a.info.image_key == picture]
        assert len(set(places)) == -(-counts[picture] // size)
        for batch in found:  # side by side
            rows = [i for i, a in enumerate(batch) if a.info.image_key == picture]
            assert rows == list(range(rows[0], rows[0] + len(rows))) if rows else True
    assert names(found) == names(list(batches(asks, size)))


@settings(max_examples=30, deadline=None)
@given(asks=many(), size=st.integers(1, 9))
def test_no_two_batches_could_have_been_one(asks: list[Ask], size: int) -> None:
    sizes = sorted(len(batch) for batch in batches(asks, size))
    assert len(sizes) < 2 or sizes[0] + sizes[1] > size


def test_questions_without_a_picture_of_a_name_are_sorted_by_length() -> None:
    found = list(batches([ask(i, None, words) for i, words in enumerate([3, 9, 1, 7, 5])], 2))
    assert [[a.doc_id for a in batch] for batch in found] == [[1, 3], [4, 0], [2]]


def test_questions_about_a_picture_come_together_from_anywhere() -> None:
    asks = [ask(i, f"{i % 3}", words=i + 1) for i in range(9)]
    assert [[a.doc_id for a in batch] for batch in batches(asks, 3)] == [[8, 5, 2], [7, 4, 1], [6, 3, 0]]
    asks = [*asks, *(replace(a, benchmark="pope") for a in asks)]  # benchmarks that share pictures too
    assert [Counter(a.info.image_key for a in batch) for batch in batches(asks, 6)] == [{k: 6} for k in "210"]


def test_only_questions_that_are_generated_alike_share_a_batch() -> None:
    alike = [{}, {"until": ["\n\n"]}, {"until": "x", "num_beams": 1}, {"temperature": 0, "top_p": 1.0}]
    other = [{"max_new_tokens": 5}, {"num_beams": 2}, {"do_sample": True, "temperature": 0.5}]
    found = list(batches([ask(i, "a", **options) for i, options in enumerate(alike + other)], 16))
    assert [sorted(a.doc_id for a in batch) for batch in found] == [[0, 1, 2, 3], [4], [5], [6]]
