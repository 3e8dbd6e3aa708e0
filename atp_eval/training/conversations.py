"""Instruction data in the format of LLaVA's `llava_v1_5_mix665k.json`: what a row has to be, and where rows lie.

A row is {"id", "image": "coco/train2017/1.jpg" (missing: text only), "conversations": [{"from": "human", "value":
"<image>\\nWhat is it?"}, {"from": "gpt", "value": "A star."}, ...]}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from atp_eval.errors import UserError

IMAGE = "<image>"  # where the picture goes, in the data's own spelling
SPEAKERS = ("human", "gpt")
SURROGATE = re.compile("[\ud800-\udfff]")
CHUNK = 2**24  # characters read at a time
LISTED = 20  # ids that a report names for each fault


class Fault(Enum):
    """Why a row cannot be used."""

    NOT_AN_OBJECT = "not a JSON object"
    NO_TURNS = "no conversations"
    ROLES = "roles are not human, gpt, human, gpt, ..."
    NO_TEXT = "a turn without text"
    EMPTY_ANSWER = "empty answer"
    TWO_IMAGES = "two images"
    IMAGE_PATH = "image is not a relative path"
    NO_IMAGE = "<image> without an image"
    NO_PLACE = "an image without <image> in the first question"
    MISSING = "image not found"
    BROKEN = "image cannot be read"
    CUT = "no answer left after truncation"


class BadRow(Exception):
    """A row that cannot be used, and why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


class Turn(NamedTuple):
    """A question, without <image>, and its answer."""

    question: str
    answer: str


class Conversation(NamedTuple):
    """One row: the picture's relative path, or None for text only, and at least one turn."""

    image: str | None
    turns: tuple[Turn, ...]


def parse(row: Any, special: re.Pattern[str]) -> Conversation:
    """Check and read a row.

    <image> may stand anywhere in the first question, LLaVA moves it to the front. special: the tokenizer's special
    tokens; in an answer they become a space, or it would seem to end there.

    Raises BadRow.
    """
    if not isinstance(row, dict):
        raise BadRow(Fault.NOT_AN_OBJECT)
    said, image = row.get("conversations"), row.get("image")
    if not isinstance(said, list) or not said:
        raise BadRow(Fault.NO_TURNS)
    speakers = [turn.get("from") if isinstance(turn, dict) else None for turn in said]
    if len(said) % 2 or speakers != [*SPEAKERS] * (len(said) // 2):
        raise BadRow(Fault.ROLES)
    texts = [turn.get("value") for turn in said]
    if not all(map(_is_text, texts)):
        raise BadRow(Fault.NO_TEXT)
    places = sum(text.count(IMAGE) for text in texts)
    if places > 1 or (isinstance(image, list) and len(image) > 1):
        raise BadRow(Fault.TWO_IMAGES)
    if image is None and places:
        raise BadRow(Fault.NO_IMAGE)
    if image is not None and not _is_relative(image):
        raise BadRow(Fault.IMAGE_PATH)
    if image is not None and IMAGE not in texts[0]:
        raise BadRow(Fault.NO_PLACE)
    questions = [text.replace(IMAGE, "").strip() for text in texts[::2]]
    answers = [special.sub(" ", text).strip() for text in texts[1::2]]
    if not all(answers):
        raise BadRow(Fault.EMPTY_ANSWER)
    return Conversation(image, tuple(map(Turn, questions, answers)))


def _is_text(value: Any) -> bool:
    """Whether it is a string that a tokenizer takes: JSON can hold halves of a surrogate pair."""
    return isinstance(value, str) and not SURROGATE.search(value)


def _is_relative(image: Any) -> bool:
    if not _is_text(image):
        return False
    path = PurePosixPath(image)
    return path.name != "" and not path.is_absolute() and ".." not in path.parts


class Row(NamedTuple):
    """A row's place in the file, in bytes, and what it holds (None where that is not JSON)."""

    start: int
    stop: int
    value: Any


def rows(path: Path) -> Iterator[Row]:
    """The rows of a .json list or of .jsonl lines, one after the other, so that they are never all in memory.

    Raises UserError for a file that cannot be read, and for a list that is not JSON.
    """
    if path.suffix not in (".json", ".jsonl"):
        raise UserError(f"training data {str(path)!r}: give a .json list or .jsonl lines in LLaVA's format")
    try:
        yield from _items(path) if path.suffix == ".json" else _lines(path)
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"training data {str(path)!r} cannot be read: {told}") from error


def _lines(path: Path) -> Iterator[Row]:
    stop = 0
    with path.open("rb") as file:
        for line in file:
            start, stop = stop, stop + len(line)
            if line.strip():
                yield Row(start, stop, _value(line))


def _value(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _items(path: Path) -> Iterator[Row]:
    decode, start, between = json.JSONDecoder().raw_decode, re.compile(r"[\s\ufeff]*\["), re.compile(r"[\s,]*")
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read(CHUNK)
        opening = start.match(text)
        if not text.strip():
            raise UserError(
                f"training data {str(path)!r} is empty; give a .json list or .jsonl lines in LLaVA's format"
            )
        if not opening:
            raise UserError(f"training data {str(path)!r} is not a JSON list; lines of JSON belong in a .jsonl file")
        done, byte = 0, 0  # characters of `text` that lie behind, bytes of the file
        at = opening.end()
        while True:
            at = between.match(text, at).end()  # type: ignore[union-attr]
            if text.startswith("]", at):
                return
            try:
                value, end = decode(text, at)
            except (ValueError, RecursionError) as error:
                more = file.read(CHUNK)
                if not more:
                    place = byte + len(text[done:at].encode())
                    raise UserError(
                        f"training data {str(path)!r} is not JSON in the row at byte {place}; the file may be cut off"
                    ) from error
                byte += len(text[done:at].encode())
                text, done, at = text[at:] + more, 0, 0
                continue
            first = byte + len(text[done:at].encode())
            byte = first + len(text[at:end].encode())
            yield Row(first, byte, value)
            done = at = end


@dataclass(frozen=True)
class Bad:
    """Rows with one fault: how many, and the ids of the first 20."""

    count: int
    ids: tuple[str, ...]


@dataclass(frozen=True)
class DataReport:
    """What the data holds: rows in all, those among them with an image and without, and the unusable ones by fault.

    Rows whose picture or length is found to be unusable while reading move from usable to bad.
    """

    rows: int
    with_image: int
    text_only: int
    bad: Mapping[Fault, Bad]

    @property
    def bad_rows(self) -> int:
        """All unusable rows."""
        return sum(bad.count for bad in self.bad.values())

    def __str__(self) -> str:
        """One line; three ids for each fault."""
        told = f"{self.rows} rows: {self.with_image} with an image, {self.text_only} text only"
        if not self.bad:
            return told
        faults = [f"{bad.count} x {fault.value} ({', '.join(bad.ids[:3])})" for fault, bad in self.bad.items()]
        return f"{told}, {self.bad_rows} unusable: {'; '.join(faults)}"
