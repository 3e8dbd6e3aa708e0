"""Packing of questions, drills and captions into rows of text."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..models import tiny
from ..scenes.prompts import FORMS, Posed, pose
from ..scenes.questions import BENCHMARK_KINDS
from ..scenes.world import Scene
from .drills import Segment, caption, draw, image_drill, text_drill
from .geometry import CELLS
from .packed import PREFIX

LENGTH = 64  # tokens of a row
LURED = 0.4  # share of questions with tempting wrong options; with nothing else, choosing is never learned
TRIES = 20  # to find a question of a kind in a scene
BENCHMARK_MIX = {"gqa": 1.8, "vqav2": 1.8, "mme": 1.2, "pope": 0.7, "mmb": 1.4, "seed": 1.2, "sqa": 0.9}
EXTRA_KINDS = {
    "setting": 0.5, "animal": 0.4, "exist": 1.0, "color": 1.0, "shape": 0.8, "material": 0.8, "number": 2.5,
    "count": 1.5, "more": 0.4, "extreme": 2.0, "relation": 0.5, "hop": 1.5, "same": 1.5, "nearest": 1.5, "nth": 0.7,
}  # fmt: skip
EXTRA_BENCHMARKS = {"gqa": 0.2, "mme": 0.25, "mmb": 0.25, "seed": 0.18, "sqa": 0.12}  # stands for its form
WEIGHT_ANSWER, WEIGHT_END, WEIGHT_WORD, WEIGHT_DRILL, WEIGHT_CAPTION = 1.0, 0.1, 0.04, 0.6, 0.2


@dataclass(frozen=True)
class Mix:
    """Shares of the segments: drills without and with the picture, captions; the rest are questions, `extra` of them
    outside the benchmarks' mix. `drills`: weights of the picture drills."""

    text: float
    image: float
    captions: float
    extra: float
    drills: dict[str, float]


class Asked(NamedTuple):
    """An answer to be predicted: row, the column that predicts it, the right token, and what it is (a Posed, or a
    drill's name)."""

    row: int
    column: int
    token: int
    what: Posed | str


class Rows(NamedTuple):
    """tokens, positions, segments [R, T] and weights of the loss [R, T]; the answers."""

    tokens: Tensor
    positions: Tensor
    segments: Tensor
    weights: Tensor
    asked: list[Asked]


@cache
def _tools() -> tuple[Callable[[str], list[int]], dict[str, int]]:
    backend = tiny.tokenizer().backend_tokenizer
    return lambda text: backend.encode(text, add_special_tokens=False).ids, {
        w: i for i, w in enumerate(tiny.vocabulary())
    }


def encode(prompt: str) -> list[int]:
    """The tokens between the image and the answer."""
    return _tools()[0](f"{prompt} ASSISTANT:")


def word_ids(words: Sequence[str]) -> list[int]:
    ids = _tools()[1]
    return [ids[w] for w in words]


Part = tuple[list[int], list[float], list[tuple[int, Posed | str]]]  # tokens, weights, (place of an answer, what)


def of_question(p: Posed) -> Part:
    question, answer = encode(p.prompt), word_ids([p.answer, "</s>"])
    weights = [0.0] + [WEIGHT_WORD] * (len(question) - 1) + [WEIGHT_ANSWER, WEIGHT_END]
    return question + answer, weights, [(len(question), p)]


def _of_drill(s: Segment) -> Part:
    weights = [0.0] * len(s.words)
    for i in s.answers:
        weights[i] = WEIGHT_CAPTION if s.name == "caption" else WEIGHT_DRILL
    told: list[tuple[int, Posed | str]] = [] if s.name == "caption" else [(i, s.name) for i in s.answers if i]
    return word_ids(s.words), weights, told


def question_for(scene: Scene, rng: random.Random, extra: float) -> Posed | None:
    if rng.random() < extra:
        benchmark, kind = draw(rng, EXTRA_BENCHMARKS), draw(rng, EXTRA_KINDS)
    else:
        benchmark = draw(rng, BENCHMARK_MIX)
        kind = draw(rng, BENCHMARK_KINDS[benchmark])
    for _ in range(TRIES):
        if p := pose(scene, benchmark, kind, rng, lured=rng.random() < LURED):
            if FORMS[benchmark] == "choice" and p.answer in ("yes", "no"):
                return None
            return p
    return None


def drawn(scene: Scene, rng: random.Random, mix: Mix) -> Part | None:
    """A random segment for training."""
    r = rng.random()
    if r > 1 - mix.captions:
        return _of_drill(caption(scene, rng))
    if r < mix.text:
        return _of_drill(text_drill(rng))
    if r < mix.text + mix.image:
        drill = image_drill(scene, rng, mix.drills)
        return _of_drill(drill) if drill.answers else None
    p = question_for(scene, rng, mix.extra)
    return of_question(p) if p else None


def pack(scenes: Sequence[Scene], source: Callable[[Scene], Part | None], length: int = LENGTH) -> Rows:
    """One row for each scene given, filled with segments from `source` until three did not fit or it has had 40
    tries."""
    shape = (len(scenes), length)
    tokens, positions, segments = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    weights, asked = np.zeros(shape, np.float32), []
    for row, scene in enumerate(scenes):
        used = count = misses = 0
        for _ in range(40):
            part = source(scene)
            if part is None:
                continue
            ids, weight, answers = part
            end = used + len(ids)
            if end > length:
                misses += 1
                if misses == 3:
                    break
                continue
            tokens[row, used:end], weights[row, used:end], segments[row, used:end] = ids, weight, count
            positions[row, used:end] = len(PREFIX) + CELLS + np.arange(len(ids))
            asked += [Asked(row, used + i - 1, ids[i], what) for i, what in answers]
            used, count = end, count + 1
    t, p, s, w = (torch.from_numpy(x) for x in (tokens, positions, segments, weights))
    return Rows(t, p, s, w, asked)
