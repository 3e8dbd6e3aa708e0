"""Answers worked out from a question's words alone, in another way than the package does it: slow, and plain."""

from __future__ import annotations

import re

from atp_eval.scenes.world import COLORS, MATERIALS, SHAPES, SIZES, Scene, Thing

PLACES = {"cow": "grass", "camel": "sand", "fish": "water", "penguin": "snow", "cat": "brick", "owl": "night"}
SIDE = {
    "to the left of": lambda t, a: t.x < a.x,
    "to the right of": lambda t, a: t.x > a.x,
    "above": lambda t, a: t.y < a.y,
    "below": lambda t, a: t.y > a.y,
}
EDGE = {"left": lambda t: t.x, "right": lambda t: -t.x, "top": lambda t: t.y, "bottom": lambda t: -t.y}


def fits(thing: Thing, phrase: str) -> bool:
    for word in phrase.split():
        singular = (
            word.removesuffix("es") if word == "crosses" else word.removesuffix("s") if word[:-1] in SHAPES else word
        )
        if singular in ("object", "objects"):
            continue
        assert singular in SHAPES + COLORS + MATERIALS + SIZES, word
        if singular not in (thing.shape, thing.color, thing.material, thing.size):
            return False
    return True


def only(things: list[Thing]) -> Thing:
    assert len(things) == 1, things
    return things[0]


def point(scene: Scene, phrase: str) -> Thing:
    """The one thing that 'leftmost star' and the like point at."""
    things = list(scene.things)
    if m := re.fullmatch(r"(left|right|top|bottom)most (.+)", phrase):
        group = sorted((t for t in things if fits(t, m[2])), key=EDGE[m[1]])
        assert EDGE[m[1]](group[1]) - EDGE[m[1]](group[0]) >= 10
        return group[0]
    if m := re.fullmatch(r"second (.+) from the (\w+)", phrase):
        group = sorted((t for t in things if fits(t, m[1])), key=EDGE[m[2]])
        assert len(group) > 2
        return group[1]
    if m := re.fullmatch(r"other object with the same (\w+) as the (.+)", phrase):
        anchor = only([t for t in things if fits(t, m[2])])
        return only([t for t in things if t is not anchor and getattr(t, m[1]) == getattr(anchor, m[1])])
    if m := re.fullmatch(r"(.+) closest to the (.+)", phrase):
        anchor = only([t for t in things if fits(t, m[2])])
        group = [t for t in things if fits(t, m[1]) and t is not anchor]
        return min(group, key=lambda t: (t.x - anchor.x) ** 2 + (t.y - anchor.y) ** 2)
    if m := re.fullmatch(rf"(.+) ({'|'.join(SIDE)}) the (.+)", phrase):
        anchor = only([t for t in things if fits(t, m[3])])
        return only([t for t in things if fits(t, m[1]) and t is not anchor and SIDE[m[2]](t, anchor)])
    return only([t for t in things if fits(t, phrase)])


def yes(truth: bool) -> str:
    return "yes" if truth else "no"


def answer(scene: Scene, text: str) -> tuple[str, Thing | None]:
    """The answer to a question, and the thing that it is about if there is one."""
    if text == "What is the background of the image?":
        return scene.setting, None
    if text == "Which animal would live in this place?":
        return next(a for a, place in PLACES.items() if place == scene.setting), None
    if m := re.fullmatch(r"How many (.+) are there\?", text):
        return str(sum(fits(t, m[1]) for t in scene.things)), None
    if m := re.fullmatch(r"Are there more (.+) than (.+)\?", text):
        first, second = (sum(fits(t, m[i]) for t in scene.things) for i in (1, 2))
        return yes(first > second), None
    if m := re.fullmatch(r"Is there an? (.+) in the image\?", text):
        return yes(any(fits(t, m[1]) for t in scene.things)), None
    if m := re.fullmatch(rf"Is there an? (.+?) ({'|'.join(SIDE)}) the (.+)\?", text):
        anchor = only([t for t in scene.things if fits(t, m[3])])
        return yes(any(fits(t, m[1]) and t is not anchor and SIDE[m[2]](t, anchor) for t in scene.things)), None
    if m := re.fullmatch(r"What (color|shape) is the (.+)\?", text):
        thing = point(scene, m[2])
        return getattr(thing, m[1]), thing
    if m := re.fullmatch(r"What pattern does the (.+) have\?", text):
        thing = point(scene, m[1])
        return thing.material, thing
    m = re.fullmatch(r"What number is on the (.+)\?", text)
    assert m, text
    thing = point(scene, m[1])
    return str(thing.digit), thing


def claim(scene: Scene, text: str) -> str:
    """The answer to a question that says an answer: 'Is the leftmost star red?'"""
    if m := re.fullmatch(r"Is the background of the image (\w+)\?", text):
        return yes(scene.setting == m[1])
    if m := re.fullmatch(r"Would an? (\w+) live in this place\?", text):
        return yes(PLACES[m[1]] == scene.setting)
    if m := re.fullmatch(r"Is the number of (.+) (\d)\?", text):
        return yes(sum(fits(t, m[1]) for t in scene.things) == int(m[2]))
    if m := re.fullmatch(r"Is the number on the (.+) (\d)\?", text):
        return yes(point(scene, m[1]).digit == int(m[2]))
    m = re.fullmatch(r"Is the (.+?)(?: an?)? (\w+)\?", text)
    assert m, text
    return yes(fits(point(scene, m[1]), m[2]))
