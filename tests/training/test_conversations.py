"""Files of training data: rows that are refused and counted, and where rows lie."""

from __future__ import annotations

import json
import multiprocessing
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atp_eval.errors import UserError
from atp_eval.training import conversations
from atp_eval.training.conversations import Fault, rows
from atp_eval.training.data import Conversations
from training.llava import CELLS, TINY, draw_pictures, load, row, said, seen, write


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path)


# ------------------------------------------------------------------ malformed rows

IN_FRONT = "<image>\nWhat color?"
MALFORMED: list[tuple[Any, Fault]] = [
    (None, Fault.NOT_AN_OBJECT),
    ([1, 2], Fault.NOT_AN_OBJECT),
    ("text", Fault.NOT_AN_OBJECT),
    ({"id": "x"}, Fault.NO_TURNS),
    ({"id": "x", "conversations": []}, Fault.NO_TURNS),
    ({"id": "x", "conversations": "hello"}, Fault.NO_TURNS),
    (row("x", "a question"), Fault.ROLES),
    (row("x", "a?", "red", "b?"), Fault.ROLES),
    ({"id": "x", "conversations": said("a?", "red")[::-1]}, Fault.ROLES),
    ({"id": "x", "conversations": [{"from": "user", "value": "a?"}, {"from": "gpt", "value": "red"}]}, Fault.ROLES),
    ({"id": "x", "conversations": ["a?", "red"]}, Fault.ROLES),
    ({"id": "x", "conversations": [{"from": "human"}, {"from": "gpt", "value": "red"}]}, Fault.NO_TEXT),
    (row("x", "a?", cast(Any, 7)), Fault.NO_TEXT),
    (row("x", "a\ud800?", "red"), Fault.NO_TEXT),
    (row("x", "a?", "red", "b?", " \n"), Fault.EMPTY_ANSWER),
    (row("x", IN_FRONT, "red", image=["a.png", "b.png"]), Fault.TWO_IMAGES),
    (row("x", "<image><image>\nWhich?", "red", image="a.png"), Fault.TWO_IMAGES),
    (row("x", IN_FRONT, "red", "<image> and?", "red", image="a.png"), Fault.TWO_IMAGES),
    (row("x", IN_FRONT, "red"), Fault.NO_IMAGE),
    (row("x", "a?", "an <image>"), Fault.NO_IMAGE),
    (row("x", "What color?", "red", image="a.png"), Fault.NO_PLACE),
    (row("x", "What?", "red", "<image>?", "red", image="a.png"), Fault.NO_PLACE),
    (row("x", IN_FRONT, "red", image=7), Fault.IMAGE_PATH),
    (row("x", IN_FRONT, "red", image=""), Fault.IMAGE_PATH),
    (row("x", IN_FRONT, "red", image="/etc/a.png"), Fault.IMAGE_PATH),
    (row("x", IN_FRONT, "red", image="../pictures/a.png"), Fault.IMAGE_PATH),
    (row("x", IN_FRONT, "red", image="a\0.png"), Fault.MISSING),
    (row("x", IN_FRONT, "red", image="none.png"), Fault.MISSING),
]


@pytest.mark.parametrize(("bad", "fault"), MALFORMED)
def test_a_malformed_row_is_counted_under_its_fault(bad: Any, fault: Fault, pictures: Path) -> None:
    data = load(pictures, [seen("good"), bad])
    assert len(data) == 1 and len(data[0].input_ids) > CELLS
    name = "x" if isinstance(bad, dict) else "row 1"
    assert data.report.bad == {fault: conversations.Bad(1, (name,))}


def test_all_malformed_rows_together(pictures: Path) -> None:
    report = load(pictures, [seen("good"), row("t", "a?", "red"), *(bad for bad, _ in MALFORMED)]).report
    assert (report.rows, report.with_image, report.text_only, report.bad_rows) == (30, 1, 1, 28)
    for fault in {fault for _, fault in MALFORMED}:
        assert report.bad[fault].count == sum(f == fault for _, f in MALFORMED)
    assert "28 unusable: 3 x not a JSON object (row 2, row 3, row 4); 3 x no conversations (x, x, x)" in str(report)


def test_twenty_ids_are_listed_and_none_can_write_to_a_terminal(pictures: Path) -> None:
    bad = [row(f"\x1b[2J\n{i}", "a?", "") for i in range(30)]
    found = load(pictures, [seen("good"), *bad]).report.bad[Fault.EMPTY_ANSWER]
    assert found.count == 30 and len(found.ids) == 20 and found.ids[0] == "?[2J?0"


def test_too_large_a_share_is_fatal(pictures: Path) -> None:
    good = [seen(i) for i in range(98)]
    bad = [row("no answer", "a?", ""), seen("gone", "nowhere.png")]
    assert load(pictures, good + bad, max_bad_share=0.02).report.bad_rows == 2
    with pytest.raises(UserError) as error:
        load(pictures, good + bad, max_bad_share=0.01)
    assert "\n" not in str(error.value)
    assert "2.0% of the rows cannot be used, more than max_bad_share 0.01" in str(error.value)
    assert "1 x empty answer (no answer); 1 x image not found (gone)" in str(error.value)


def read_until_too_many_are_bad(data: Conversations) -> None:
    with pytest.raises(UserError, match="image cannot be read"):
        list(data)


def test_too_large_a_share_while_reading_is_fatal_and_known_outside_of_the_worker(pictures: Path) -> None:
    data = load(pictures, [seen("a"), seen("half", "broken.png")], max_bad_share=0.1)
    worker = multiprocessing.get_context("spawn").Process(target=partial(read_until_too_many_are_bad, data))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    with pytest.raises(UserError, match=r"50.0% of the rows .* 1 x image cannot be read \(half\)$"):
        data.check()
    with pytest.raises(UserError, match="no row can be used"):
        load(pictures, [row("x", "a?", "")])
    alone = load(pictures, [seen("half", "broken.png"), seen("none", "text.png")])
    with pytest.raises(UserError, match="no row can be used"):
        alone[0]


# ------------------------------------------------------------------ files


def test_lines_and_lists_give_the_same(pictures: Path, tmp_path: Path) -> None:
    data = [seen("é 你"), row("t", "a?", "red é"), row("x", "a?", ""), seen("b", "b.png"), None]
    loaded = [
        Conversations(write(tmp_path / f"data.{kind}", data), [pictures], TINY, max_bad_share=1.0)
        for kind in ("json", "jsonl")
    ]
    assert loaded[0].report == loaded[1].report and len(loaded[0]) == len(loaded[1]) == 3
    for a, b in zip(*loaded, strict=True):
        assert torch.equal(a.input_ids, b.input_ids) and torch.equal(a.labels, b.labels)


def test_lines_that_are_not_json_are_bad_rows(pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    good = json.dumps(seen("good")).encode()
    path.write_bytes(b"\n".join([good, b"{", b"", b"\xff\xfe", b"[" * 100_000, good[:-3], good]))
    data = Conversations(path, [pictures], TINY, max_bad_share=1.0)
    assert len(data) == 2 and data.report.bad[Fault.NOT_AN_OBJECT] == conversations.Bad(
        4, ("row 1", "row 2", "row 3", "row 4")
    )


JSON = (
    st.none() | st.text(max_size=8) | st.lists(st.sampled_from(["]", "[", "}", ",", "é", "你", '"', "😀"]), max_size=4)
)


@given(
    st.lists(st.dictionaries(st.text(max_size=3), JSON, max_size=3), max_size=6),
    st.sampled_from([None, 0, 3]),
    st.booleans(),
    st.integers(8, 40),
)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_places_of_rows_in_a_list_are_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: list[Any], indent: int | None, plain: bool, chunk: int
) -> None:
    monkeypatch.setattr(conversations, "CHUNK", chunk)
    path = tmp_path / "list.json"
    text = json.dumps(data, indent=indent, ensure_ascii=plain)
    path.write_bytes(("\ufeff \r\n" + text + "\r\n").encode("utf-8", "surrogatepass" if plain else "strict"))
    found = list(rows(path))
    assert [item.value for item in found] == data
    content = path.read_bytes()
    assert [json.loads(content[item.start : item.stop]) for item in found] == data


@pytest.mark.parametrize(("name", "content", "message"), [
    ("data.json", '{"a": 1}', "is not a JSON list; lines of JSON belong in a .jsonl file"),
    ("data.json", '[{"a": 1}, {"a": ', "is not JSON in the row at byte 11"),
    ("data.json", '[{"a": 1}', "is not JSON in the row at byte 9"),
    ("data.json", '["\udcff"]', "cannot be read: 'utf-8' codec"),
    ("data.json", "", "is empty; give a .json list or .jsonl lines"),
    ("data.json", "[]", "no row can be used. 0 rows"),
    ("data.jsonl", "\n", "no row can be used. 0 rows"),
    ("data.csv", "a,b", "give a .json list or .jsonl lines"),
    ("data.json", None, "No such file"),
])  # fmt: skip
def test_files_that_are_no_data_are_one_clear_line(
    name: str, content: str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError) as error:
        Conversations(path, [tmp_path], TINY)
    assert message in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_an_image_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"image folder '.*nowhere' does not exist"):
        Conversations(tmp_path / "data.json", [tmp_path / "nowhere"], TINY)
