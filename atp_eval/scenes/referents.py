"""Phrases that point at one thing of a scene: by its looks, by its place in a class, or by way of another thing."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from .world import Scene

Attributes = dict[str, str]
ORDER = ("size", "material", "color", "shape")  # of the words of a phrase
DESCRIPTIONS = (
    ("shape",),
    ("color",),
    ("color", "shape"),
    ("size", "shape"),
    ("material", "shape"),
    ("size", "color"),
    ("material", "color"),
    ("size", "color", "shape"),
    ("material", "color", "shape"),
    ("size", "material", "shape"),
)
EXTREMES = {"leftmost": ("x", 1), "rightmost": ("x", -1), "topmost": ("y", 1), "bottommost": ("y", -1)}
EDGES = {"left": ("x", 1), "right": ("x", -1), "top": ("y", 1), "bottom": ("y", -1)}
_WHERE = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
_TOWARDS = {"left": ("x", -1), "right": ("x", 1), "above": ("y", -1), "below": ("y", 1)}
CLEAR = 18  # px by which an order or a side has to be clear


@dataclass(frozen=True)
class Referent:
    """`the {text}` points at the thing `target`; `things`: all that have to be looked at; `rivals`: what one might take
    for it; `told`: the attributes that the phrase gives away."""

    text: str
    target: int
    things: tuple[int, ...]
    rivals: tuple[int, ...]
    told: frozenset[str]


def where() -> dict[str, str]:
    """Direction -> its words."""
    return _WHERE


def pluralise(word: str) -> str:
    return word + ("es" if word.endswith("s") else "s")


def noun(attributes: Attributes, plural: bool = False) -> str:
    """'small red star', 'dotted objects'."""
    words = [attributes[k] for k in ORDER if k in attributes]
    if "shape" not in attributes:
        words.append("object")
    return " ".join([*words[:-1], pluralise(words[-1]) if plural else words[-1]])


def matching(scene: Scene, attributes: Attributes) -> tuple[int, ...]:
    """The indexes of the things that have all the attributes."""
    return tuple(i for i, t in enumerate(scene.things) if all(getattr(t, k) == v for k, v in attributes.items()))


def class_of(scene: Scene, rng: random.Random) -> Attributes:
    """A class with at least one member: a shape, a colour, both, another pair, or (rarely) everything."""
    keys = rng.choice(
        (
            ("shape",),
            ("shape",),
            ("shape",),
            ("color",),
            ("color",),
            ("color", "shape"),
            ("material", "shape"),
            ("size", "shape"),
            (),
        )
    )
    thing = rng.choice(scene.things)
    return {k: getattr(thing, k) for k in keys}


def on_side(scene: Scene, thing: int, anchor: int, direction: str) -> bool | None:
    """Does a thing lie in a direction, seen from another? None where they are about level."""
    axis, sign = _TOWARDS[direction]
    apart = sign * (getattr(scene.things[thing], axis) - getattr(scene.things[anchor], axis))
    return None if abs(apart) < CLEAR else apart > 0


@lru_cache(maxsize=100_000)
def descriptions(scene: Scene, target: int, without: str | None = None) -> tuple[tuple[tuple[str, str], ...], ...]:
    """The shortest sets of attributes that fit only this thing, as items; none with a part that is enough on its
    own."""
    thing = scene.things[target]
    fits: list[tuple[tuple[str, str], ...]] = []
    for keys in DESCRIPTIONS:
        attributes = {k: getattr(thing, k) for k in keys}
        if (
            without not in keys
            and matching(scene, attributes) == (target,)
            and not any(set(keys) > set(dict(f)) for f in fits)
        ):
            fits.append(tuple(attributes.items()))
    return tuple(fits)


def plain(scene: Scene, rng: random.Random, without: str | None = None, target: int | None = None) -> Referent | None:
    """By looks: 'small red star'. `without`: an attribute not to use; `target`: the thing to point at."""
    i = rng.randrange(len(scene.things)) if target is None else target
    fits = descriptions(scene, i, without)
    if not fits:
        return None
    attributes = dict(rng.choice(fits))
    rivals = tuple(j for j in range(len(scene.things)) if j != i)
    return Referent(noun(attributes), i, (i,), rivals, frozenset(attributes))


def _sorted(scene: Scene, members: tuple[int, ...], axis: str, sign: int) -> list[int]:
    return sorted(members, key=lambda i: sign * getattr(scene.things[i], axis))


def _clear(scene: Scene, order: list[int], axis: str, place: int) -> bool:
    at = [getattr(scene.things[i], axis) for i in order]
    return all(abs(at[place] - at[j]) >= CLEAR for j in (place - 1, place + 1) if 0 <= j < len(at))


def extreme(scene: Scene, rng: random.Random) -> Referent | None:
    """'leftmost star', among two or more."""
    attributes = class_of(scene, rng)
    members, word = matching(scene, attributes), rng.choice(list(EXTREMES))
    axis, sign = EXTREMES[word]
    order = _sorted(scene, members, axis, sign)
    if len(order) < 2 or not _clear(scene, order, axis, 0):
        return None
    return Referent(f"{word} {noun(attributes)}", order[0], members, tuple(order[1:]), frozenset(attributes))


def nth(scene: Scene, rng: random.Random) -> Referent | None:
    """'second star from the left', among three or more."""
    attributes = class_of(scene, rng)
    members, edge = matching(scene, attributes), rng.choice(list(EDGES))
    axis, sign = EDGES[edge]
    order = _sorted(scene, members, axis, sign)
    if not 3 <= len(order) <= 6 or not _clear(scene, order, axis, 1):
        return None
    text = f"second {noun(attributes)} from the {edge}"
    return Referent(text, order[1], members, tuple(i for i in order if i != order[1]), frozenset(attributes))


def hop(scene: Scene, rng: random.Random) -> Referent | None:
    """'star to the left of the red circle': one of the stars lies there, at least one does not."""
    anchor, attributes = plain(scene, rng), class_of(scene, rng)
    direction = rng.choice(list(_WHERE))
    if not anchor:
        return None
    members = tuple(i for i in matching(scene, attributes) if i != anchor.target)
    sides = [on_side(scene, i, anchor.target, direction) for i in members]
    if len(members) < 2 or None in sides or sum(map(bool, sides)) != 1:
        return None
    target = members[sides.index(True)]
    text = f"{noun(attributes)} {_WHERE[direction]} the {anchor.text}"
    return Referent(
        text, target, (*members, anchor.target), tuple(i for i in members if i != target), frozenset(attributes)
    )


def nearest(scene: Scene, rng: random.Random) -> Referent | None:
    """'object closest to the red star', clearly closer than the next one."""
    anchor = plain(scene, rng)
    attributes = class_of(scene, rng) if rng.random() < 0.5 else {}
    if not anchor:
        return None
    members = tuple(i for i in matching(scene, attributes) if i != anchor.target)
    if len(members) < 2:
        return None
    here = scene.things[anchor.target]
    far = {i: math.hypot(scene.things[i].x - here.x, scene.things[i].y - here.y) for i in members}
    first, second = sorted(members, key=far.__getitem__)[:2]
    if far[second] < 1.3 * far[first] or far[second] < far[first] + CLEAR:
        return None
    rivals = tuple(i for i in members if i != first)
    return Referent(
        f"{noun(attributes)} closest to the {anchor.text}",
        first,
        (*members, anchor.target),
        rivals,
        frozenset(attributes),
    )


def same(scene: Scene, rng: random.Random) -> Referent | None:
    """'other object with the same color as the large star'; there is exactly one."""
    key = rng.choice(("color", "color", "shape"))
    anchor = plain(scene, rng, without=key)
    if not anchor:
        return None
    value = getattr(scene.things[anchor.target], key)
    others = [i for i in matching(scene, {key: value}) if i != anchor.target]
    if len(others) != 1:
        return None
    rivals = tuple(i for i in range(len(scene.things)) if i != others[0])
    text = f"other object with the same {key} as the {anchor.text}"
    return Referent(text, others[0], (others[0], anchor.target), rivals, frozenset({key}))


REFERENTS: dict[str, Callable[[Scene, random.Random], Referent | None]] = {
    "plain": plain, "extreme": extreme, "nth": nth, "hop": hop, "nearest": nearest, "same": same,
}  # fmt: skip


def pointed() -> list[str]:
    """The referents that are a kind of question of their own."""
    return [name for name in REFERENTS if name != "plain"]
