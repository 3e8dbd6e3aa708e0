"""Labels, rows and drills of the training."""

from __future__ import annotations

import random

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atp_eval.models import tiny
from atp_eval.scenes.prompts import Posed
from atp_eval.scenes.render import render
from atp_eval.scenes.world import COLORS, GRID, PATCH, SHAPES, sample_scene
from atp_eval.tiny import drills, pictures
from atp_eval.tiny.oracle import CENTRE, choose, describe
from atp_eval.tiny.rows import Mix, drawn, pack
from atp_eval.tiny.vision import numbers

SCENES = [sample_scene(i, "train") for i in range(40)]


def test_labels_name_the_thing_of_a_cell():
    for scene in SCENES[:10]:
        labels = pictures.cell_labels(scene, render(scene))
        assert labels.shape == (8, 576)
        assert labels[CENTRE].sum() == len(scene.things)
        for t in scene.things:
            cell = t.y // PATCH * GRID + t.x // PATCH
            assert labels[CENTRE, cell] == 1
            assert labels[0, cell] == SHAPES.index(t.shape) + 1 and labels[1, cell] == COLORS.index(t.color) + 1
        seen = {t.digit + 1 for t in scene.things if t.digit is not None}
        assert set(np.unique(labels[4])) - {0} == seen


def test_regression_targets_point_at_the_centre():
    scene = SCENES[0]
    labels = torch.from_numpy(pictures.cell_labels(scene, render(scene)))[None]
    wanted = numbers(labels, torch.arange(576)[None])[0]
    for t in scene.things:
        cell = t.y // PATCH * GRID + t.x // PATCH
        assert torch.allclose((wanted[cell, 4:] + 1) * GRID / 2 * PATCH, torch.tensor([t.x, t.y]).float(), atol=1.5)


def test_stored_pictures_are_those_of_the_scenes(tmp_path):
    pictures.store(tmp_path, "eval", 3)
    stored = pictures.Pictures(tmp_path, "eval")
    assert len(stored) == 3 and stored.scenes[2] == sample_scene(2, "eval")
    assert np.array_equal(stored.images[2], render(sample_scene(2, "eval")).image)


def test_oracle_tokens_are_centres_first():
    labels = np.stack([pictures.cell_labels(s, render(s)) for s in SCENES[:4]])
    described, cells = choose(describe(labels, np.zeros(4, np.int64)), labels, 14)
    assert described.shape == (4, 14, 10) and torch.equal(described[..., 7].long(), cells)
    assert [int(x) for x in described[..., CENTRE].sum(1)] == [len(s.things) for s in SCENES[:4]]


@given(st.integers(0, 10_000), st.sampled_from(sorted(drills.DRILLS)))
@settings(max_examples=150, deadline=None)
def test_drills_use_known_words(seed, name):
    rng = random.Random(seed)
    segment = drills.image_drill(rng.choice(SCENES), rng, {name: 1})
    assert set(segment.words) <= set(tiny.vocabulary())
    assert len(segment.words) <= drills.LONGEST and all(0 <= i < len(segment.words) for i in segment.answers)


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_text_drills_can_be_answered_from_their_words(seed):
    segment = drills.text_drill(random.Random(seed))
    for i in segment.answers:
        if segment.name in ("text listed", "text asked_many"):
            asked = [w for w in segment.words[:i] if w != "ASSISTANT:"][-1]
            assert f"{segment.words[i]}. {asked}" in segment.words[:i]
        elif segment.name == "text asked":
            assert f"{segment.words[i]}. {segment.words[0]}" in segment.words[:i]


def test_rows_hold_whole_segments_and_their_answers():
    rng = random.Random(1)
    rows = pack(SCENES[:6], lambda s: drawn(s, rng, Mix(0.2, 0.3, 0.1, 0.5, drills.LATER)))
    for a in rows.asked:
        assert rows.tokens[a.row, a.column + 1] == a.token
        assert rows.segments[a.row, a.column] == rows.segments[a.row, a.column + 1] >= 0
        assert rows.weights[a.row, a.column + 1] > 0
        if isinstance(a.what, Posed):
            assert tiny.vocabulary()[a.token] == a.what.answer
    for row in range(6):
        for segment in range(int(rows.segments[row].max()) + 1):
            at = rows.segments[row] == segment
            assert torch.equal(rows.positions[row][at], 578 + torch.arange(int(at.sum())))
    assert (rows.weights[rows.segments < 0] == 0).all()
