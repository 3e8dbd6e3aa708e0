"""Training data about scenes in the format of LLaVA's `llava_v1_5_mix665k.json`, in the strings of the benchmarks.

python -m atp_eval.scenes.instructions --folder build/atp/data --images 2000 --per-image 8 --seed 1
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import track

from atp_eval.errors import UserError
from atp_eval.scenes.prompts import Posed, pose
from atp_eval.scenes.questions import BENCHMARK_KINDS
from atp_eval.scenes.render import render
from atp_eval.scenes.world import SCENES_VERSION, Scene, sample_scene

FILE, IMAGES = "instructions.json", "images"
SCENES_A_SEED = 1_000_000  # numbers of scenes that belong to one seed
TRIES = 6  # questions of a kind drawn from a scene, of which the one with the rarest answer is asked
# Of all questions, by benchmark and kind: every benchmark as often, its kinds by their weights.
SHARES = {
    (benchmark, kind): weight / sum(kinds.values()) / len(BENCHMARK_KINDS)
    for benchmark, kinds in BENCHMARK_KINDS.items()
    for kind, weight in kinds.items()
}


def write_instructions(
    folder: Path, *, images: int = 2000, per_image: int = 8, seed: int = 1, workers: int = 1
) -> Path:
    """Draw `images` scenes of the training split and ask `per_image` different questions about each.

    Writes folder/images/*.png and, last, folder/instructions.json, whose path is returned; `folder` is then the image
    folder of the data. Everything follows from the seed, whatever the number of `workers` (processes that draw); seed 0
    draws the scenes that the embedded model was trained on.

    Raises UserError where a scene does not allow so many questions.
    """
    if not 1 <= images <= SCENES_A_SEED:
        raise UserError(f"images {images}: give 1 to {SCENES_A_SEED}")
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    numbers = range(seed * SCENES_A_SEED, seed * SCENES_A_SEED + images)
    rows = list(_rows((sample_scene(number, "train") for number in numbers), per_image, seed))
    console = Console(stderr=True)
    work = {"description": "Drawing training scenes", "console": console, "transient": True, "total": images}
    with ProcessPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        drawn = (
            pool.map(partial(_draw, folder), numbers, chunksize=16) if pool else map(partial(_draw, folder), numbers)
        )
        for _ in track(drawn, disable=not console.is_terminal, **work):  # type: ignore[arg-type]
            pass
    text = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"
    building = folder / f".{FILE}.{os.getpid()}"
    building.write_text(text, encoding="utf-8")
    os.replace(building, folder / FILE)
    return folder / FILE


def _picture(number: int) -> str:
    """The path of a scene's picture inside the folder."""
    return f"{IMAGES}/scene-{number}.png"


def _draw(folder: Path, number: int) -> None:
    picture = Image.fromarray(render(sample_scene(number, "train")).image)
    picture.save(folder / _picture(number), compress_level=1)


def _rows(scenes: Iterator[Scene], per_image: int, seed: int) -> Iterator[dict[str, Any]]:
    """The rows, scene after scene: any first part is as balanced as the whole."""
    rng = random.Random(f"instructions {SCENES_VERSION} {seed}")
    asked, answers = Counter[tuple[str, str]](), Counter[tuple[str, str, str]]()
    for scene in scenes:
        done: set[tuple[str, str]] = set()
        for turn in range(per_image):
            posed = _next(scene, rng, asked, answers, done)
            if posed is None:
                raise UserError(f"scene {scene.seed} allows {turn} questions; per_image {per_image} is too many")
            question = posed.question
            asked[posed.benchmark, question.kind] += 1
            answers[posed.benchmark, question.kind, question.answer] += 1
            done.add((posed.form, question.text))
            yield {
                "id": f"scene-{scene.seed}/{turn}/{posed.benchmark}/{question.kind}",
                "image": _picture(scene.seed),
                "conversations": [
                    {"from": "human", "value": f"<image>\n{posed.prompt}"},
                    {"from": "gpt", "value": posed.answer},
                ],
            }


def _next(
    scene: Scene,
    rng: random.Random,
    asked: Counter[tuple[str, str]],
    answers: Counter[tuple[str, str, str]],
    done: set[tuple[str, str]],
) -> Posed | None:
    """A question of the benchmark and kind that lie furthest behind their share, the answer a rare one; none that was
    `done` about the scene in its form. None where nothing is left to ask."""
    for benchmark, kind in sorted(SHARES, key=lambda pair: (asked[pair] + 1) / SHARES[pair]):
        tried = [posed for _ in range(TRIES) if (posed := pose(scene, benchmark, kind, rng))]
        fresh = [p for p in tried if (p.form, p.question.text) not in done and (p.options or p.form != "choice")]
        if fresh:
            return min(fresh, key=lambda p: answers[benchmark, kind, p.question.answer])
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--per-image", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1, help="0 draws the scenes that the embedded model was trained on")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    path = options.folder / FILE
    if path.exists():
        print(f"{path} is there already")
        return
    print(
        write_instructions(
            options.folder,
            images=options.images,
            per_image=options.per_image,
            seed=options.seed,
            workers=options.workers,
        )
    )


if __name__ == "__main__":
    main()
