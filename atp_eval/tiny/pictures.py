"""Rendered scenes with the labels that the renderer knows for every cell, stored as arrays that training reads.

python -m atp_eval.tiny.pictures --work FOLDER --train 12000 --eval 600
"""

from __future__ import annotations

import argparse
import time
from functools import cached_property
from pathlib import Path

import numpy as np

from ..scenes.render import Rendered, by_cell, render
from ..scenes.world import COLORS, GRID, IMAGE, MATERIALS, PATCH, SETTINGS, SHAPES, SIZES, Scene, Split, sample_scene

LABELS = ("shape", "color", "material", "size", "digit", "centre", "dx", "dy")
CLASSES = (len(SHAPES) + 1, len(COLORS) + 1, len(MATERIALS) + 1, len(SIZES) + 1, 11, 2)
STEP = 8  # offsets to a centre are stored in eighths of a cell
LEAST_BODY, LEAST_PLATE = 25, 28  # px that a thing or a plate needs in a cell to give it its label


def _biggest(index: np.ndarray, things: int, least: int) -> np.ndarray:
    """[576]: the thing that has most pixels of each cell, -1 where none has enough."""
    count = np.stack([(by_cell(index) == i + 1).sum(1) for i in range(things)])
    return np.where(count.max(0) >= least, count.argmax(0), -1)


def cell_labels(scene: Scene, rendered: Rendered) -> np.ndarray:
    """[8, 576] int8: number of the shape, color, material, size and digit + 1 (0: none); is it the cell of a
    centre; dx, dy to it."""
    body = _biggest(rendered.owner, len(scene.things), LEAST_BODY)
    plate = _biggest(rendered.plate, len(scene.things), LEAST_PLATE)
    out = np.zeros((len(LABELS), GRID * GRID), np.int8)
    row, column = np.divmod(np.arange(GRID * GRID), GRID)
    for i, t in enumerate(scene.things):
        mine = body == i
        values = (SHAPES.index(t.shape), COLORS.index(t.color), MATERIALS.index(t.material), SIZES.index(t.size))
        for j, value in enumerate(values):
            out[j][mine] = value + 1
        out[6][mine] = np.clip((t.x / PATCH - 0.5 - column[mine]) * STEP, -60, 60)
        out[7][mine] = np.clip((t.y / PATCH - 0.5 - row[mine]) * STEP, -60, 60)
        if t.digit is not None:
            out[4][plate == i] = t.digit + 1
        out[5][t.y // PATCH * GRID + t.x // PATCH] = 1
    return out


class Pictures:
    """Scenes 0..count of a split with their images [N, 336, 336, 3], labels [N, 8, 576] and settings [N]."""

    def __init__(self, work: Path, split: Split) -> None:
        self.work, self.split = work, split
        self.images = np.load(work / f"{split}_images.npy", mmap_mode="r")
        self.labels = np.load(work / f"{split}_labels.npy")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def scenes(self) -> list[Scene]:
        return [sample_scene(i, self.split) for i in range(len(self))]

    @cached_property
    def settings(self) -> np.ndarray:
        return np.array([SETTINGS.index(s.setting) for s in self.scenes])


def store(work: Path, split: Split, count: int) -> None:
    """Render `count` scenes of a split into `work`; what is there already with that length is kept."""
    work.mkdir(parents=True, exist_ok=True)
    done = work / f"{split}_labels.npy"
    if done.exists() and len(np.load(done, mmap_mode="r")) == count:
        return
    start = time.time()
    images = np.lib.format.open_memmap(work / f"{split}_images.npy", "w+", np.uint8, (count, IMAGE, IMAGE, 3))
    labels = np.zeros((count, len(LABELS), GRID * GRID), np.int8)
    for i in range(count):
        scene = sample_scene(i, split)
        rendered = render(scene)
        images[i], labels[i] = rendered.image, cell_labels(scene, rendered)
    images.flush()
    np.save(done, labels)
    print(f"{split}: {count} pictures in {time.time() - start:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--train", type=int, default=12000)
    parser.add_argument("--eval", type=int, default=600)
    options = parser.parse_args()
    store(options.work, "eval", options.eval)
    store(options.work, "train", options.train)


if __name__ == "__main__":
    main()
