from __future__ import annotations

import random
from collections import Counter

import pytest
import slow_answers as slow
from hypothesis import given, settings
from hypothesis import strategies as st

from atp_eval.scenes.questions import BENCHMARK_KINDS, KINDS, ask, choices, verify
from atp_eval.scenes.world import sample_scene

SCENES = [sample_scene(i, "eval") for i in range(150)]


def questions(kind: str, count: int, seed: int = 0):
    """(scene, question) pairs."""
    rng, found = random.Random(f"{kind} {seed}"), []
    while len(found) < count:
        scene = rng.choice(SCENES)
        if q := ask(scene, kind, rng):
            found.append((scene, q))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_answers_agree_with_a_slow_reading_of_the_words(kind):
    for scene, q in questions(kind, 120):
        answer, thing = slow.answer(scene, q.text)
        assert q.answer == answer, q
        assert thing is None or scene.things.index(thing) in q.things
        assert q.answer in q.pool and q.answer not in q.lures and set(q.lures) <= set(q.pool)
        assert len(set(q.things)) == len(q.things) and all(0 <= i < len(scene.things) for i in q.things)
        assert q.kind == kind and q.level == KINDS[kind].level


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("exist", "more", "relation")])
def test_claims_agree_with_a_slow_reading_of_the_words(kind):
    rng = random.Random(3)
    for scene, q in questions(kind, 60):
        for truth in (True, False):
            claim = verify(q, rng, truth)
            assert claim.answer == ("yes" if truth else "no") == slow.claim(scene, claim.text), claim.text


def test_a_yes_no_question_makes_no_claim():
    with pytest.raises(ValueError, match="exist"):
        verify(questions("exist", 1)[0][1], random.Random(0), True)


@given(st.integers(0, 10_000), st.integers(2, 5))
@settings(max_examples=80, deadline=None)
def test_options_hold_the_answer_once_and_lures_first(seed, n):
    rng = random.Random(seed)
    kind = rng.choice([k for k in KINDS if k not in ("exist", "more", "relation")])
    _, q = questions(kind, 1, seed)[0]
    options, right = choices(q, rng, n)
    assert options[right] == q.answer and len(options) == len(set(options)) == min(n, len(q.pool))
    assert set(options) <= set(q.pool)
    assert len(set(options) & set(q.lures)) == min(len(q.lures), n - 1)


def test_letters_are_balanced():
    rng, seen = random.Random(1), Counter()
    for _, q in questions("extreme", 300):
        seen[choices(q, rng)[1]] += 1
    assert max(seen.values()) < 0.45 * sum(seen.values())


@pytest.mark.parametrize("kind", ["exist", "more", "relation"])
def test_yes_and_no_are_balanced(kind):
    share = sum(q.answer == "yes" for _, q in questions(kind, 300)) / 300
    assert 0.3 < share < 0.72


@pytest.mark.parametrize("kind", ["color", "shape", "number", "extreme", "hop", "nearest", "same", "nth"])
def test_no_answer_dominates(kind):
    seen = Counter(q.answer for _, q in questions(kind, 250))
    assert max(seen.values()) < 0.3 * 250 and len(seen) >= 5


def test_at_least_half_of_the_open_benchmarks_reads_late():
    for name in ("gqa", "vqav2"):
        late = sum(w for k, w in BENCHMARK_KINDS[name].items() if KINDS[k].late)
        assert late >= 0.5 * sum(BENCHMARK_KINDS[name].values())
    assert all(set(kinds) <= set(KINDS) for kinds in BENCHMARK_KINDS.values())
