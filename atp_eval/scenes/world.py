"""What can be in a scene, and the sampling of scenes.

A scene is drawn from few shapes and colours, so that classes such as "the stars" or "the red objects" have several
members: questions about an extreme or a neighbour within a class then need the picture to be read after the class is
known.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Literal

SCENES_VERSION = 1
IMAGE, PATCH = 336, 14  # px
GRID = IMAGE // PATCH  # cells a side of CLIP ViT-L/14 at 336 px

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink")
MATERIALS = ("plain", "striped", "dotted")
SIZES = ("small", "large")
SETTINGS = ("grass", "sand", "water", "snow", "brick", "night")

RADIUS = {"small": (15, 19), "large": (26, 34)}  # px
LARGE_SHARE = 0.28
DIGIT_SHARE = 0.67
FEWEST, MOST = 4, 9
GAP = 6  # px between the bounding boxes of two things
CENTRE_MARGIN = 3  # px that a centre keeps from the borders of its cell: the cell of a centre is then certain
EVAL_PART = 4  # one layout in so many belongs to the evaluation split

Split = Literal["train", "eval"]


@dataclass(frozen=True)
class Thing:
    """An object: centre and radius in px of the 336 x 336 image, looks, and the digit on its plate (None: no plate)."""

    x: int
    y: int
    r: int
    shape: str
    color: str
    material: str
    size: str
    digit: int | None


@dataclass(frozen=True)
class Scene:
    """Things on a background; `seed` also chooses the background's texture."""

    seed: int
    split: Split
    setting: str
    things: tuple[Thing, ...]


def split_of(setting: str, things: tuple[Thing, ...]) -> Split:
    """The split that a layout belongs to, decided by a hash of the layout itself: no scene can be in both."""
    layout = repr((setting, sorted(map(repr, things))))
    return "eval" if hashlib.sha256(layout.encode()).digest()[0] % EVAL_PART == 0 else "train"


def _centre(rng: random.Random, r: int) -> int:
    while True:
        v = rng.randint(r + 4, IMAGE - r - 5)
        if CENTRE_MARGIN <= v % PATCH < PATCH - CENTRE_MARGIN:
            return v


def _things(rng: random.Random) -> tuple[Thing, ...]:
    shapes = rng.sample(SHAPES, rng.choice((2, 3, 3)))
    colors = rng.sample(COLORS, rng.choice((3, 3, 4)))
    wanted = rng.randint(FEWEST, MOST)
    things: list[Thing] = []
    while len(things) < wanted:
        size = "large" if rng.random() < LARGE_SHARE else "small"
        r = rng.randint(*RADIUS[size])
        x, y = _centre(rng, r), _centre(rng, r)
        if any(max(abs(x - t.x), abs(y - t.y)) < r + t.r + GAP for t in things):
            continue
        digit = rng.randrange(10) if rng.random() < DIGIT_SHARE else None
        things.append(Thing(x, y, r, rng.choice(shapes), rng.choice(colors), rng.choice(MATERIALS), size, digit))
    return tuple(things)


def sample_scene(seed: int, split: Split) -> Scene:
    """The scene of a seed in a split; the same arguments always give the same scene."""
    rng = random.Random(f"{SCENES_VERSION} {split} {seed}")
    while True:
        setting, things = rng.choice(SETTINGS), _things(rng)
        if split_of(setting, things) == split:
            return Scene(seed, split, setting, things)
