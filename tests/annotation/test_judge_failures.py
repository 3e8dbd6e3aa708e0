"""A model as the judge, against an endpoint on localhost that answers badly, slowly or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from annotation.judging import KEY, PAIRS, ask, first_of, longer, settings
from made import ballot
from stub import USAGE, Said, completion, endpoint

from atp_eval.annotation.endpoint import LONGEST_REPLY
from atp_eval.annotation.judge import MOST_FAILURES, judge
from atp_eval.annotation.prompt import read_verdict
from atp_eval.errors import TaskFailure, UserError

UNREADABLE = {
    "": "an empty answer",
    "   \n": "an empty answer",
    "Answer 1 is better.": "no JSON",
    "<html><body>504</body></html>": "no JSON",
    '{"better": "3"}': "another label",
    '{"better": "left"}': "another label",
    '{"better": null}': "another label",
    '{"better": ["1"]}': "another label",
    '{"better": 1.5}': "another label",
    '{"better": true}': "another label",
    "{}": "another label",
    "[1]": "no JSON object",
    "1": "no JSON object",
    '{"better": "1"} {"better": "2"}': "no JSON",
    '{"better": "1"': "no JSON",
    "[" * 100_000: "no JSON",
}


@pytest.mark.parametrize(("text", "reason"), UNREADABLE.items(), ids=range(len(UNREADABLE)))
def test_an_answer_that_cannot_be_read_is_no_vote(text: str, reason: str) -> None:
    found = read_verdict(text)
    assert found.choice is None and reason in found.reason


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ('{"reason": "x", "better": "1"}', "left"),
        ('{"better": 2}', "right"),
        ('{"better": "TIE", "more": 1}', "tie"),
        ('```json\n{"better": "1"}\n```', "left"),
        ('  ```\n{"better": "2"}```  ', "right"),
    ],
)
def test_answers_that_can_be_read(text: str, choice: str) -> None:
    assert read_verdict(text).choice == choice


def test_one_unreadable_look_loses_its_sample_only_and_is_counted(tmp_path: Path) -> None:
    def answer(number: int, body: dict[str, Any]) -> Said:
        return completion("no idea", USAGE) if first_of(body) == "a cat" else longer(number, body)

    found, _ = ask(answer, tmp_path)
    assert [v.doc_id for v in found.votes.votes] == [0, 2]
    assert [(m.doc_id, m.reason) for m in found.votes.missing] == [(1, "an answer that is no JSON")]


BROKEN = {
    "html": Said(b"<html>Bad gateway</html>"),
    "empty": Said(b""),
    "no choices": Said(b'{"choices": []}'),
    "no text": Said(b'{"choices": [{"message": {"content": null}}]}'),
    "a list": Said(b"[]"),
    "a number": Said(b"5"),
    "not UTF-8": Said(b"\xff\xfe\x00"),
    "usage of nonsense": Said(b'{"choices": [{"message": {"content": 7}}], "usage": "much"}'),
    "huge": Said(b'{"choices": [{"message": {"content": "' + b"x" * LONGEST_REPLY + b'"}}]}'),
    "refused": Said(b'{"error": "the picture is too large"}', 400),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_replies_that_are_no_chat_completion_are_not_kept_and_not_votes(broken: Said, tmp_path: Path) -> None:
    found, stub = ask(lambda n, body: broken if first_of(body) == "a cat" else longer(n, body), tmp_path)
    assert len(found.votes.votes) == 2 and len(found.votes.missing) == 1
    assert len(stub.asked) == 6  # nothing of this gets better by asking at once again
    again, stub = ask(longer, tmp_path)
    assert len(again.votes.votes) == 3 and len(stub.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(status: int, tmp_path: Path) -> None:
    def answer(number: int, body: dict[str, Any]) -> Said:
        return Said(b"later", status, {"Retry-After": "0.01"}) if number < 2 else longer(number, body)

    found, stub = ask(answer, tmp_path)
    assert len(found.votes.votes) == 3 and len(stub.asked) == 8 and found.asked == 6


def test_tries_are_bounded(tmp_path: Path) -> None:
    def answer(number: int, body: dict[str, Any]) -> Said:
        return Said(b"broken", 500) if first_of(body) == "a cat" else longer(number, body)

    found, stub = ask(answer, tmp_path, retries=3)
    assert len(stub.asked) == 5 + 4
    assert found.votes.missing[0].reason == "HTTP 500: broken, tried 4 times"


@pytest.mark.parametrize("slow", [Said(b"{}", wait=1.0), Said(b" " * 100, drip=0.05)], ids=["silent", "dripping"])
def test_slow_answers_time_out(slow: Said, tmp_path: Path) -> None:
    def answer(number: int, body: dict[str, Any]) -> Said:
        return slow if first_of(body) == "a cat" else longer(number, body)

    found, stub = ask(answer, tmp_path, timeout=0.3, retries=1)
    assert [m.reason for m in found.votes.missing] == ["no whole answer in 0.3 s, tried 2 times"]
    assert len(found.votes.votes) == 2 and len(stub.asked) == 7


def test_nothing_at_the_address(tmp_path: Path) -> None:
    with endpoint(longer) as stub:
        pass  # and it is gone
    with pytest.raises(TaskFailure, match=rf"{MOST_FAILURES} requests in a row failed"):
        judge(ballot(PAIRS * 3), settings(stub, retries=0), tmp_path)


@pytest.mark.parametrize("status", [401, 403, 404, 302, 307])
def test_what_fails_each_time_stops_at_the_first_request(status: int, tmp_path: Path) -> None:
    with (
        endpoint(longer) as elsewhere,
        endpoint(
            lambda n, body: Said(f"no, {KEY}".encode(), status, {"Location": elsewhere.url + "/chat/completions"})
        ) as stub,
    ):
        with pytest.raises(UserError) as refused:
            judge(ballot(PAIRS), settings(stub, key=KEY), tmp_path / "cache")
        assert len(stub.asked) == 1 and elsewhere.asked == []
    assert str(status) in str(refused.value) and KEY not in str(refused.value)


def test_failures_in_a_row_stop_and_what_was_answered_is_kept(tmp_path: Path) -> None:
    drawn = ballot([(f"answer {i}", f"other {i}") for i in range(20)])
    with pytest.raises(TaskFailure, match="the same command goes on"):
        ask(lambda n, body: longer(n, body) if n < 5 else Said(b"", 400), tmp_path, drawn, workers=1)
    found, _ = ask(longer, tmp_path, drawn)
    assert found.asked == 40 - 5 and len(found.votes.votes) == 20


def test_a_cache_that_was_spoilt_or_cannot_be_written(tmp_path: Path) -> None:
    ask(longer, tmp_path)
    for i, path in enumerate(sorted((tmp_path / "cache").iterdir())):
        path.write_bytes([b"", b"{", b"[]", b'{"text": "x"}', b"\xff", b"null"][i])
    found, _ = ask(longer, tmp_path)
    assert found.asked == 6 and len(found.votes.votes) == 3
    (tmp_path / "file").write_text("")
    with endpoint(longer) as stub, pytest.raises(TaskFailure, match="cannot keep answers in"):
        judge(ballot(PAIRS), settings(stub), tmp_path / "file" / "cache")
    assert len(stub.asked) == 1  # before more is paid for
