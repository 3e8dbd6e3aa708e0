from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atp_eval.scenes.render import RGB, by_cell, cells, render
from atp_eval.scenes.world import COLORS, GRID, IMAGE, PATCH, SETTINGS, SHAPES, Scene, Thing, sample_scene


@given(st.integers(0, 10_000), st.sampled_from(["train", "eval"]))
@settings(max_examples=15, deadline=None)
def test_a_picture_is_a_function_of_its_scene(seed, split):
    scene = sample_scene(seed, split)
    first, second = render(scene), render(scene)
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a, b)
    assert first.image.shape == (IMAGE, IMAGE, 3) and first.image.dtype == np.uint8
    assert set(np.unique(first.owner)) <= set(range(len(scene.things) + 1))
    for i, t in enumerate(scene.things):
        assert first.owner[t.y, t.x] == i + 1 or t.shape == "star"
        mine = np.argwhere(first.owner == i + 1)
        assert np.abs(mine - (t.y, t.x)).max() <= 1.2 * t.r + 2
        assert (first.plate == i + 1).any() == (t.digit is not None)
    assert (first.owner[first.plate > 0] == first.plate[first.plate > 0]).mean() > 0.9


def test_a_plain_thing_has_its_colour():
    for i, (color, shape) in enumerate(zip(COLORS, [*SHAPES, *SHAPES], strict=False)):
        thing = Thing(150, 150, 30, shape, color, "plain", "large", None)
        picture = render(Scene(i, "train", SETTINGS[i % len(SETTINGS)], (thing,)))
        seen = np.median(picture.image[picture.owner == 1], 0)
        closest = min(RGB, key=lambda c: float(np.abs(np.array(RGB[c]) - seen).sum()))
        assert closest == color


def test_the_seed_chooses_the_background():
    scene = sample_scene(5, "eval")
    other = dataclasses.replace(scene, seed=6)
    assert not np.array_equal(render(scene).image, render(other).image)


def test_cells_are_those_that_a_thing_covers():
    thing = Thing(7 + 14 * 5, 7 + 14 * 3, 17, "square", "red", "plain", "small", None)
    picture = render(Scene(0, "train", "snow", (thing,)))
    found = cells(picture, [0])
    assert 3 * GRID + 5 in found and found == sorted(found)
    rows, columns = np.divmod(found, GRID)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 4, 4, 6)
    assert cells(picture, []) == []
    assert by_cell(picture.owner).shape == (GRID * GRID, PATCH * PATCH)


def test_the_things_of_most_scenes_fit_in_82_tokens():
    sizes = []
    for i in range(60):
        scene = sample_scene(i, "eval")
        sizes.append(len(cells(render(scene), range(len(scene.things)))))
    assert np.mean(np.array(sizes) <= 82) > 0.7
