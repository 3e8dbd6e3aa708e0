"""Votes as they are exported, by people's pages and by judges: a versioned schema.

Do not rename or reorder fields without raising SCHEMA_VERSION; `reports/annotate.js` writes the same fields.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from atp_eval.errors import UserError

SCHEMA_VERSION = 1
FORMAT = "atp-eval votes"
JUDGE = "judge:"  # what a model's name as an annotator begins with
LONGEST_NAME = 80

Side = Literal["a", "b"]
Choice = Literal["left", "right", "tie"]
Winner = Literal["a", "b", "tie"]
OTHER: dict[Side, Side] = {"a": "b", "b": "a"}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Look(_Model):
    """One choice between two answers. left: whose answer stood on the left, or first. reason: a judge's own words."""

    left: Side
    choice: Choice
    reason: str | None = None

    @property
    def winner(self) -> Winner:
        """Whose answer was chosen."""
        if self.choice == "tie":
            return "tie"
        return self.left if self.choice == "left" else OTHER[self.left]


class Vote(_Model):
    """A vote on a sample. picture: what clusters samples; None without one. looks: one of a person, both orders of a
    judge. seconds: from the sample's showing to the choice; None where nobody knows or the page was left meanwhile."""

    benchmark: str
    doc_id: int
    picture: str | None
    looks: tuple[Look, ...] = Field(min_length=1, max_length=2)
    seconds: float | None = Field(default=None, ge=0)

    @property
    def sample(self) -> str:
        """The sample's name: `gqa/12`."""
        return f"{self.benchmark}/{self.doc_id}"

    @property
    def winner(self) -> Winner:
        """Who wins in every look; what looks do not agree on is a tie."""
        found = {look.winner for look in self.looks}
        return found.pop() if len(found) == 1 else "tie"

    @property
    def contradicts(self) -> bool:
        """Whether the same place won for both orders: position, and nothing else, decided."""
        return {look.winner for look in self.looks} == {"a", "b"}

    @model_validator(mode="after")
    def _orders_differ(self) -> Vote:
        if len({look.left for look in self.looks}) < len(self.looks):
            raise ValueError(f"{self.sample}: two looks at the same order")
        return self


class Missing(_Model):
    """A sample that a judge was asked about and gave no vote on."""

    benchmark: str
    doc_id: int
    reason: str


class Pool(_Model):
    """A benchmark's samples. answered: by both methods, without failure; identical: of these, with the same text;
    eligible: of these, those that samples were drawn from; stands_for: those that the drawn ones speak for."""

    answered: int = Field(ge=0)
    identical: int = Field(ge=0)
    eligible: int = Field(ge=0)
    stands_for: int = Field(ge=0)
    drawn: int = Field(ge=0)


class JudgeFacts(_Model):
    """How a model was asked. answers, tokens and cost (USD, None without prices) of all, those asked in an earlier call
    included. unknown_usage: answers that came without a count of their tokens. prompt: a hash of the rules."""

    model: str
    endpoint: str
    prompt: str
    answers: int
    prompt_tokens: int
    completion_tokens: int
    unknown_usage: int
    cost: float | None


class Votes(_Model):
    """One annotator's votes on one page. page: the hash of all that was shown; only votes of one page are merged."""

    schema_version: Literal[1] = 1
    format: Literal["atp-eval votes"] = "atp-eval votes"
    page: str
    annotator: str = Field(min_length=1, max_length=LONGEST_NAME + len(JUDGE))
    judge: JudgeFacts | None = None
    a: str
    b: str
    seed: int
    pools: dict[str, Pool]
    exported: str
    votes: tuple[Vote, ...]
    missing: tuple[Missing, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Votes:
        names = [vote.sample for vote in self.votes]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two votes on {twice}")
        if self.annotator != self.annotator.strip():
            raise ValueError("blanks around the annotator's name")
        if self.annotator.startswith(JUDGE) != (self.judge is not None):
            raise ValueError(f"only a model's name begins with '{JUDGE}'")
        if any(len(vote.looks) != (1 if self.judge is None else 2) for vote in self.votes):
            raise ValueError("a person looks once at a sample, a judge at both orders")
        if wrong := next((vote.benchmark for vote in self.votes if vote.benchmark not in self.pools), None):
            raise ValueError(f"a vote on benchmark {wrong!r}, which is not in pools")
        return self


def read_votes(path: Path) -> Votes:
    """An exported file. Raises UserError that names the file and what is wrong with it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:  # neither UTF-8 nor JSON
        raise UserError(f"{path} is no JSON ({error}). Export the votes again.") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UserError(f"{path} holds no votes: give files that an `atp-eval annotate` page or judge exported")
    if (version := data.get("schema_version")) != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {version}, this atp-eval reads {SCHEMA_VERSION}. Use the other one."
        )
    try:
        return Votes.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} cannot be used: {where + ': ' if where else ''}{first['msg']}") from None


def write_votes(votes: Votes, path: Path) -> None:
    """Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(votes.model_dump_json(indent=1) + "\n", encoding="utf-8")
