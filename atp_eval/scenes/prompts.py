"""The strings that lmms-eval's seven tasks send (their simple `doc_to_text` with the default pre- and post-prompts)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .questions import Question, ask, choices, verify
from .world import Scene

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
SEVERAL = "There are several options:"
LETTERS = "ABCD"
Form = Literal["open", "yesno", "choice"]
FORMS: dict[str, Form] = {
    "gqa": "open", "vqav2": "open", "mme": "yesno", "pope": "yesno", "mmb": "choice", "seed": "choice", "sqa": "choice",
}  # fmt: skip
HINTS = {"animal": "Animals live in places that suit them."}  # of ScienceQA: kind -> context line
OTHER_HINT = "The picture shows shapes, and some have a number."


def hint_of(benchmark: str, kind: str) -> str:
    """The context line of a ScienceQA question; other benchmarks have none."""
    return HINTS.get(kind, OTHER_HINT) if benchmark == "sqa" else ""


def prompt(benchmark: str, question: str, options: Sequence[str] = (), hint: str = "") -> str:
    """What lmms-eval sends for a question of a benchmark (short name), without image token and chat template."""
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    if benchmark == "mmb":
        return f"{f'{hint} ' if hint else ''}{question} {SEVERAL}\n{listed}\n\n{LETTER}"
    if benchmark == "sqa":
        return f"{f'Context: {hint}' + chr(10) if hint else ''}{question}\n{listed}\n{LETTER}"
    if benchmark == "seed":
        return f"{question}\n{listed}\n{LETTER}"
    return f"{question}\n{SHORT}"


@dataclass(frozen=True)
class Posed:
    """A question as one benchmark asks it. `chance`: the share that guessing gets."""

    benchmark: str
    form: Form
    prompt: str
    answer: str
    chance: float
    question: Question
    options: tuple[str, ...] = ()


def pose(scene: Scene, benchmark: str, kind: str, rng: random.Random, lured: bool = True) -> Posed | None:
    """Ask a kind of question in the form of a benchmark; None where this try found none."""
    question = ask(scene, kind, rng)
    return put(question, benchmark, rng, lured) if question else None


def put(question: Question, benchmark: str, rng: random.Random, lured: bool = True) -> Posed:
    """An open question in the form of a benchmark, its wrong options the tempting ones if `lured`."""
    form = FORMS[benchmark]
    if form == "yesno" and question.claim:
        question = verify(question, rng, rng.random() < 0.5, lured)
    if form != "choice" or len(question.pool) < 3:
        return Posed(
            benchmark, form, prompt(benchmark, question.text), question.answer, 1 / len(question.pool), question
        )
    options, right = choices(question, rng, rng.choice((3, 4)) if benchmark == "sqa" else 4, lured)
    text = prompt(benchmark, question.text, options, hint_of(benchmark, question.kind))
    return Posed(benchmark, form, text, LETTERS[right], 1 / len(options), question, tuple(options))
