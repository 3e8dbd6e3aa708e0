"""Drills about a picture: many answers in one segment, without the questions' words around them.

A drill asks one thing of as many objects as there are; that is what makes grounding come within minutes. A segment is a
list of words with the places of those that are answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from ..scenes import prompts, questions, referents
from ..scenes.prompts import LETTERS
from ..scenes.questions import DIGITS
from ..scenes.referents import REFERENTS, class_of, matching, noun, on_side, plain
from ..scenes.world import COLORS, IMAGE, MATERIALS, SETTINGS, SHAPES, Scene

LONGEST = 60  # words of a segment


class Segment:
    """Words, and the places of the answers among them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.words: list[str] = []
        self.answers: list[int] = []

    def say(self, *parts: str | Iterable[str]) -> None:
        for part in parts:
            self.words += part.split() if isinstance(part, str) else part

    def answer(self, *words: str) -> None:
        for word in words:
            self.answers.append(len(self.words))
            self.words.append(word)

    def cut(self) -> Segment:
        """At most LONGEST words."""
        self.words, self.answers = self.words[:LONGEST], [i for i in self.answers if i < LONGEST]
        return self


def draw(rng: random.Random, weights: dict[str, float]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def _looks(scene: Scene, thing: int, told: Iterable[str]) -> list[str]:
    """The attributes of a thing that were not told, and its digit or 'no'."""
    t = scene.things[thing]
    words = [getattr(t, k) for k in referents.ORDER if k not in told]
    return [*words, "no" if t.digit is None else str(t.digit)]


def _named(scene: Scene, rng: random.Random) -> list[tuple[int, referents.Referent]]:
    order = rng.sample(range(len(scene.things)), len(scene.things))
    found = ((i, plain(scene, rng, target=i)) for i in order)
    return [(i, r) for i, r in found if r]


def _attributes(scene: Scene, rng: random.Random, out: Segment) -> None:
    for i, r in _named(scene, rng):
        out.say(r.text)
        out.answer(*_looks(scene, i, r.told))
        out.say(",")


def _place(scene: Scene, rng: random.Random, out: Segment) -> None:
    for i, r in _named(scene, rng):
        t = scene.things[i]
        out.say(r.text)
        out.answer(f"c{t.x * 8 // IMAGE}", f"r{t.y * 8 // IMAGE}")
        out.say(",")


def _number(scene: Scene, rng: random.Random, out: Segment) -> None:
    for i, r in _named(scene, rng):
        digit = scene.things[i].digit
        if digit is not None:
            out.say("number", r.text)
            out.answer(str(digit))


def _chain(scene: Scene, rng: random.Random, out: Segment) -> None:
    """'A , B left above , C ...': each seen from the one before."""
    last: int | None = None
    for i, r in _named(scene, rng):
        out.say(r.text)
        if last is not None:
            for pair in (("left", "right"), ("above", "below")):
                side = on_side(scene, i, last, pair[0])
                if side is not None:
                    out.answer(pair[0] if side else pair[1])
        out.say(",")
        last = i


def _pointed(kinds: dict[str, float]) -> Callable[[Scene, random.Random, Segment], None]:
    """'leftmost star red dotted 5 , star to the left of the red circle blue ...': the words of the referents as
    questions have them."""

    def drill(scene: Scene, rng: random.Random, out: Segment) -> None:
        seen = set()
        for _ in range(60):
            r = REFERENTS[draw(rng, kinds)](scene, rng)
            if r and r.text not in seen and len(out.words) < LONGEST - 12:
                seen.add(r.text)
                out.say("the" if rng.random() < 0.5 else "", r.text)
                looks = _looks(scene, r.target, r.told)
                out.answer(*([looks[-1]] if rng.random() < 0.3 else looks))
                out.say(",")

    return drill


def _order(scene: Scene, rng: random.Random, out: Segment) -> None:
    """'stars from left to right red 5 , blue 2 , ...'"""
    for _ in range(3):
        attributes, edge = class_of(scene, rng), rng.choice(list(referents.EDGES))
        axis, sign = referents.EDGES[edge]
        members = sorted(matching(scene, attributes), key=lambda i: sign * getattr(scene.things[i], axis))
        if len(members) < 2:
            continue
        out.say(noun(attributes, plural=True), "from the", edge)
        for i in members:
            out.answer(*[w for w in _looks(scene, i, {*attributes, "size", "material"}) if w])
            out.say(",")


def _many(scene: Scene, rng: random.Random, out: Segment) -> None:
    for _ in range(7):
        attributes = class_of(scene, rng)
        count = len(matching(scene, attributes))
        out.say("many", noun(attributes, plural=True))
        out.answer(str(count) if count < 10 else "more")


def _checked(kind: str, times: int) -> Callable[[Scene, random.Random, Segment], None]:
    """Yes/no questions of a kind, one after the other, without their first words."""

    def drill(scene: Scene, rng: random.Random, out: Segment) -> None:
        for _ in range(8 * times):
            q = questions.ask(scene, kind, rng)
            if q and len(out.answers) < times:
                words = words_of(q.text)
                out.say(words[2:])
                out.answer(q.answer)

    return drill


def _setting(scene: Scene, rng: random.Random, out: Segment) -> None:
    for word, value in rng.sample([("background", scene.setting), ("animal", questions.ANIMALS[scene.setting])], 2):
        out.say(word)
        out.answer(value)


def words_of(text: str) -> list[str]:
    """A question's words as the tokenizer sees them."""
    return text.lower().replace("?", " ?").replace(",", " ,").split()


def candidates(rng: random.Random, answer: str, pool: Iterable[str], out: Segment) -> None:
    """Wrong words, each followed by no, then most often the answer followed by yes."""
    others = [p for p in pool if p != answer]
    for word in rng.sample(others, min(len(others), rng.choice((0, 1, 1, 2, 3)))):
        out.say(word)
        out.answer("no")
    if not out.answers or rng.random() < 0.8:
        out.say(answer)
        out.answer("yes")


def _check(scene: Scene, rng: random.Random, out: Segment) -> None:
    """'what number is on the red circle ? 3 no 5 yes'."""
    open_kinds = sorted(
        {k for kinds in questions.BENCHMARK_KINDS.values() for k in kinds} - {"exist", "more", "relation"}
    )
    for _ in range(10):
        q = questions.ask(scene, rng.choice(open_kinds), rng)
        if q and len(out.words) < LONGEST - 24:
            part = Segment("")
            candidates(rng, q.answer, (*q.lures, *q.lures, *q.pool) if rng.random() < 0.5 and q.lures else q.pool, part)
            out.say(words_of(q.text))
            out.answers += [len(out.words) + i for i in part.answers]
            out.say(part.words, ",")


def _letters(scene: Scene, rng: random.Random, out: Segment) -> None:
    """'number A 5 B 3 ... ? red circle A ? blue star B'."""
    name = rng.choice(("number", "number", "number", "color", "shape"))
    pool = {"number": DIGITS, "color": COLORS, "shape": SHAPES}[name]
    value = questions.Asked.value
    present = sorted({v for t in scene.things if (v := value(t, name))})
    options = list(dict.fromkeys([*rng.sample(present, min(4, len(present))), *rng.sample(pool, 4)]))[:4]
    rng.shuffle(options)
    out.say(name, [f"{letter}. {word}" for letter, word in zip(LETTERS, options, strict=True)])
    end = ["ASSISTANT:"] if rng.random() < 0.6 else []
    for i, t in enumerate(scene.things):
        r = plain(scene, rng, without=name, target=i)
        v = value(t, name)
        if r and v in options:
            out.say("?", r.text, end)
            out.answer(LETTERS[options.index(v)])


ALL_POINTED = {"extreme": 1.5, "nth": 1.0, "hop": 1.5, "nearest": 1.0, "same": 1.2, "plain": 0.5}
DRILLS: dict[str, Callable[[Scene, random.Random, Segment], None]] = {
    "attributes": _attributes, "place": _place, "number": _number, "chain": _chain, "order": _order, "many": _many,
    "check": _check,
    "pointed": _pointed(ALL_POINTED), "extreme": _pointed({"extreme": 1}), "nearest": _pointed({"nearest": 1}),
    "hop": _pointed({"hop": 1}),
    "same": _pointed({"same": 1}), "nth": _pointed({"nth": 1}), "exist": _checked("exist", 6), "relation":
    _checked("relation", 4),
    "more": _checked("more", 4), "setting": _setting, "letters": _letters,
}  # fmt: skip
GROUND = {"attributes": 4.0, "place": 2.0, "number": 2.0, "setting": 0.6, "order": 1.0, "many": 1.0}
SKILLS = {
    "place": 3.0,
    "chain": 3.0,
    "letters": 3.0,
    "order": 1.5,
    "extreme": 1.5,
    "many": 1.5,
    "check": 1.5,
    "attributes": 0.7,
}
LATER = {
    "attributes": 0.8, "place": 0.8, "number": 0.8, "chain": 1.5, "order": 1.5, "many": 2.5, "check": 4.0,
    "pointed": 2.0, "extreme": 1.5, "nth": 1.0, "hop": 1.0, "nearest": 1.0, "same": 1.0, "exist": 1.0,
    "relation": 0.7, "more": 0.4, "setting": 0.4, "letters": 3.0,
}  # fmt: skip


def image_drill(scene: Scene, rng: random.Random, weights: dict[str, float]) -> Segment:
    name = draw(rng, weights)
    out = Segment(name)
    DRILLS[name](scene, rng, out)
    return out.cut()


def caption(scene: Scene, rng: random.Random) -> Segment:
    """Everything about every thing, in random order."""
    out = Segment("caption")
    out.say("describe")
    out.answer(scene.setting)
    for t in rng.sample(scene.things, len(scene.things)):
        looks = [getattr(t, k) for k in rng.sample(referents.ORDER, 4)]
        if t.digit is not None:
            looks.insert(rng.randrange(1, 5), str(t.digit))
        out.say(",")
        out.answer(*looks)
    return out.cut()


_TEXT_POOLS = (
    (DIGITS, 3.0),
    (SHAPES, 1.5),
    (COLORS, 1.5),
    (SETTINGS, 1.0),
    (tuple(questions.ANIMALS.values()), 1.0),
    (MATERIALS, 1.0),
)
_TEXT = {"listed": 0.15, "asked_many": 0.2, "asked": 0.35, "check": 0.15, "same": 0.15}


def text_drill(rng: random.Random) -> Segment:
    """Without the picture: the letter of a word among options that stand before or after it, or whether two words
    are the same."""
    pool = rng.choices([p for p, _ in _TEXT_POOLS], [w for _, w in _TEXT_POOLS])[0]
    name = draw(rng, _TEXT)
    out, word = Segment(f"text {name}"), rng.choice(pool)
    options = rng.sample(pool, min(len(pool), rng.choice((3, 4, 4))))
    listed = [f"{letter}. {word}" for letter, word in zip(LETTERS, options, strict=False)]
    if name in ("listed", "asked_many"):
        out.say(listed)
        for _ in range(8):
            i = rng.randrange(len(options))
            out.say("?", options[i], ["ASSISTANT:"] if name == "asked_many" else [])
            out.answer(LETTERS[i])
    elif name == "asked":
        i = rng.randrange(len(options))
        several = [prompts.SEVERAL] if rng.random() < 0.4 else []
        out.say(options[i], "?", several, listed, [prompts.LETTER, "ASSISTANT:"])
        out.answer(LETTERS[i])
    elif name == "check":
        out.say(word, "?")
        part = Segment("")
        candidates(rng, word, pool, part)
        out.answers += [len(out.words) + i for i in part.answers]
        out.say(part.words)
    else:
        other = word if rng.random() < 0.5 else rng.choice(pool)
        out.say(other, "? is the", word, "?", [prompts.SHORT, "ASSISTANT:"])
        out.answer("yes" if word == other else "no")
    return out
