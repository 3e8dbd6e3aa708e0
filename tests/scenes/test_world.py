from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atp_eval.scenes.world import CENTRE_MARGIN, FEWEST, GAP, IMAGE, MOST, PATCH, RADIUS, sample_scene, split_of

SEEDS = st.integers(0, 2**31)


@given(SEEDS, st.sampled_from(["train", "eval"]))
@settings(max_examples=60, deadline=None)
def test_scenes_are_reproducible_and_sound(seed, split):
    scene = sample_scene(seed, split)
    assert scene == sample_scene(seed, split)
    assert scene.split == split and FEWEST <= len(scene.things) <= MOST
    for i, t in enumerate(scene.things):
        assert RADIUS[t.size][0] <= t.r <= RADIUS[t.size][1]
        for v in (t.x, t.y):
            assert t.r < v < IMAGE - t.r
            assert CENTRE_MARGIN <= v % PATCH < PATCH - CENTRE_MARGIN
        for other in scene.things[:i]:
            assert max(abs(t.x - other.x), abs(t.y - other.y)) >= t.r + other.r + GAP


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_no_layout_can_be_in_both_splits(seed):
    for split in ("train", "eval"):
        scene = sample_scene(seed, split)
        assert split_of(scene.setting, scene.things) == split
        assert split_of(scene.setting, scene.things[::-1]) == split  # the order of the things is no way round it


def test_splits_share_no_layout():
    layouts = [
        {(s.setting, frozenset(s.things)) for s in (sample_scene(i, w) for i in range(300))} for w in ("train", "eval")
    ]
    assert len(layouts[0]) == len(layouts[1]) == 300
    assert not layouts[0] & layouts[1]


def test_classes_have_several_members():
    scenes = [sample_scene(i, "eval") for i in range(300)]
    largest = [max([t.shape for t in s.things].count(x) for x in {t.shape for t in s.things}) for s in scenes]
    assert sum(n >= 3 for n in largest) > 200


def test_things_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample_scene(0, "eval").things[0].x = 3
