"""Asking a judge in tests."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from made import ballot
from stub import USAGE, Answer, Said, Stub, endpoint, vote

from atp_eval.annotation.ballot import Ballot
from atp_eval.annotation.judge import Judgement, judge
from atp_eval.annotation.settings import JudgeSettings

PAIRS = [("a red cube", "a blue ball"), ("two cats on a mat", "a cat"), ("it is raining", "sunny")]
KEY = "sk-secret-0123456789"


def settings(stub: Stub, **options: Any) -> JudgeSettings:
    return replace(JudgeSettings(stub.url, "m", backoff=0.001, timeout=5.0, workers=2), **options)


def ask(answer: Answer, folder: Path, drawn: Ballot | None = None, **options: Any) -> tuple[Judgement, Stub]:
    with endpoint(answer) as stub:
        return judge(drawn or ballot(PAIRS), settings(stub, **options), folder / "cache"), stub


def first_of(body: dict[str, Any]) -> str:
    """The answer that a request shows first."""
    text = body["messages"][1]["content"][0]["text"]
    found = re.search(r"BEGIN ANSWER 1 \w+\n(.*?)\nEND ANSWER 1", text, re.DOTALL)
    assert found
    return found[1]


def longer(number: int, body: dict[str, Any]) -> Said:
    """A judge that prefers the longer answer, wherever it stands."""
    text = body["messages"][1]["content"][0]["text"]
    one, two = re.findall(r"BEGIN ANSWER \d \w+\n(.*?)\nEND", text, re.DOTALL)
    return vote("1" if len(one) > len(two) else "2", USAGE)
