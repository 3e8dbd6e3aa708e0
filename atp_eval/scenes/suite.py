"""The embedded suite: seven benchmarks of questions about held-out scenes, written as parquet files.

Everything follows from the seed of a scene, so two machines build the same questions. Pictures are stored once, without
loss, and shared by the benchmarks; the files name them by absolute path, so the suite belongs to its folder.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import track

from atp_eval.scenes.prompts import FORMS, LETTERS
from atp_eval.scenes.questions import BENCHMARK_KINDS, Question, ask, choices, verify
from atp_eval.scenes.render import Rendered, cells, render
from atp_eval.scenes.schemas import MME_CATEGORIES, ROWS, Item, features
from atp_eval.scenes.world import SCENES_VERSION, Scene, sample_scene

IMAGES = 120
QUESTIONS = 300  # of each benchmark; 150 pairs of MME
LARGEST_SHARE = 0.25  # of one answer within a kind
TRIES = 12  # questions of a kind drawn from a scene, of which the one with the rarest answer is asked
FEWEST_OPTIONS = {"mmb": 3, "seed": 4, "sqa": 3}
MANIFEST = "suite.json"
NOT_OF_THE_SUITE = ("instructions.py",)  # training data: a change there leaves the suite as it is


@dataclass
class Balance:
    """Chooses what keeps a benchmark balanced: kinds by their weights, answers and letters evenly."""

    weights: dict[str, float]
    kinds: Counter[str] = field(default_factory=Counter)
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    letters: Counter[tuple[str, str]] = field(default_factory=Counter)

    def wanted(self) -> list[str]:
        """The kinds, the one that lies furthest behind its share first."""
        return sorted(self.weights, key=lambda k: (self.kinds[k] + 1) / self.weights[k])

    def rarest(self, questions: Sequence[Question]) -> Question:
        """The question whose answer its kind has had least often."""
        return min(questions, key=lambda q: self.answers[q.kind, q.answer])

    def fair(self, question: Question) -> bool:
        """Whether the answer would stay within a quarter of its kind, or an equal share where there are fewer."""
        share = max(LARGEST_SHARE, 1 / len(question.pool))
        return self.answers[question.kind, question.answer] < math.ceil(share * (self.kinds[question.kind] + 1))

    def letter(self, kind: str, options: int) -> int:
        """The place of the letter that a kind has used least, then the whole benchmark."""
        return min(range(options), key=lambda i: (self.letters[kind, LETTERS[i]], self.letters["", LETTERS[i]]))

    def add(self, item: Item) -> None:
        """Count an item."""
        self.kinds[item.kind] += 1
        self.answers[item.kind, item.answer] += 1
        if item.options:
            self.letters[item.kind, item.letter] += 1
            self.letters["", item.letter] += 1


def _draw(scene: Scene, kind: str, benchmark: str, rng: random.Random) -> list[Question]:
    """Different questions of a kind about a scene, such as the form of the benchmark allows."""
    form = FORMS[benchmark]
    found: dict[str, Question] = {}
    for i in range(TRIES):
        question = ask(scene, kind, rng)
        if question is None or (form == "choice" and len(question.pool) < FEWEST_OPTIONS[benchmark]):
            continue
        if form == "yesno" and question.claim:
            question = verify(question, rng, i % 2 == 0)
        found.setdefault(question.text, question)
    return list(found.values())


def _options(question: Question, benchmark: str, rng: random.Random, balance: Balance) -> tuple[str, ...]:
    """The options of a choice, the right one behind the least used letter."""
    options, right = choices(question, rng, rng.choice((3, 4)) if benchmark == "sqa" else 4)
    place = balance.letter(question.kind, len(options))
    options[right], options[place] = options[place], options[right]
    return tuple(options)


def _pair(scene: Scene, kind: str, rng: random.Random, balance: Balance) -> list[Question]:
    """MME's two questions about one picture, one true and one false; empty where the scene allows none."""
    asked = [q for _ in range(TRIES) if (q := ask(scene, kind, rng))]
    claims = [q for q in asked if q.claim]
    if claims:
        q = balance.rarest(claims)
        balance.answers[q.kind, q.answer] += 1
        return [verify(q, rng, True), verify(q, rng, False)]
    by_answer = {q.answer: q for q in asked}
    return [by_answer["yes"], by_answer["no"]] if len(by_answer) == 2 else []


def compose(benchmark: str, scenes: Sequence[Scene], rendered: Sequence[Rendered], images: Sequence[str]) -> list[Item]:
    """The questions of one benchmark, scene after scene and round after round: any first part is balanced as well.

    Raises ValueError for kinds that cannot be asked often enough.
    """
    rng = random.Random(f"suite {SCENES_VERSION} {benchmark}")
    balance, items, taken = Balance(BENCHMARK_KINDS[benchmark]), list[Item](), set[tuple[int, str]]()
    turn = 0
    while len(items) < QUESTIONS:
        if turn > 20 * QUESTIONS:
            raise ValueError(f"{benchmark}: scenes do not allow {QUESTIONS} questions of {sorted(balance.weights)}")
        index = turn % len(scenes)
        scene, turn = scenes[index], turn + 1
        for kind in balance.wanted():
            once = MME_CATEGORIES[kind] if benchmark == "mme" else ""
            if benchmark == "mme":
                new = [] if (index, once) in taken else _pair(scene, kind, rng, balance)
            else:
                fresh = [q for q in _draw(scene, kind, benchmark, rng) if (index, q.text) not in taken]
                rare = balance.rarest(fresh) if fresh else None
                new = [rare] if rare and balance.fair(rare) else []
            if new:
                break
        for q in new:
            item = Item(
                benchmark=benchmark,
                number=len(items),
                image=images[index],
                seed=scene.seed,
                question=q.text,
                answer=q.answer,
                kind=q.kind,
                level=q.level,
                objects=len(scene.things),
                cells=tuple(cells(rendered[index], q.things)),
            )
            if FORMS[benchmark] == "choice":
                item = replace(item, options=_options(q, benchmark, rng, balance))
            balance.add(item)
            items.append(item)
            taken.add((index, once or q.text))
    return items


# ------------------------------------------------------------------ files


def cache_folder() -> Path:
    """Where generated files go: `ATP_EVAL_CACHE`, or `~/.cache/atp_eval`."""
    return Path(os.environ.get("ATP_EVAL_CACHE") or Path.home() / ".cache" / "atp_eval").absolute()


def source_hash() -> str:
    """Of the code that makes the suite: another version has another folder."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.name not in NOT_OF_THE_SUITE:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def intact(folder: Path) -> bool:
    """Whether a folder holds the whole suite, unchanged, of this code and for this place."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return (
            manifest["source"] == source_hash()
            and manifest["folder"] == str(folder)
            and len(manifest["files"]) == IMAGES + len(ROWS)
            and all(_file_hash(folder / name) == value for name, value in manifest["files"].items())
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def materialise(folder: Path | None = None) -> Path:
    """The folder of the suite, built if it is not there or not intact (some seconds).

    Raises OSError where it cannot be written.
    """
    folder = (folder or cache_folder() / f"suite-v{SCENES_VERSION}-{source_hash()}").absolute()
    if intact(folder):
        return folder
    building = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    try:
        _build(building, folder)
        if not intact(folder):  # another process may have been faster
            stale = folder.with_name(f".{folder.name}.{os.getpid()}.stale")
            if folder.exists():
                os.replace(folder, stale)
            os.replace(building, folder)
            shutil.rmtree(stale, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _build(building: Path, folder: Path) -> None:
    """Write the suite that will live at `folder`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (building / "images").mkdir(parents=True)
    scenes, rendered, images = [sample_scene(i, "eval") for i in range(IMAGES)], [], []
    console = Console(stderr=True)
    work = {"description": "Drawing the embedded suite", "console": console, "transient": True}
    for scene in track(scenes, disable=not console.is_terminal, **work):  # type: ignore[arg-type]
        rendered.append(render(scene))
        name = f"images/scene-{scene.seed}.webp"
        Image.fromarray(rendered[-1].image).save(building / name, lossless=True, method=0, quality=0)
        images.append(str(folder / name))
    for benchmark, row in ROWS.items():
        rows: list[dict[str, Any]] = [row(i) | i.extras for i in compose(benchmark, scenes, rendered, images)]
        table = pa.Table.from_pylist(rows, schema=features(benchmark).arrow_schema)
        pq.write_table(table, building / f"{benchmark}.parquet")
    files = {str(p.relative_to(building)): _file_hash(p) for p in sorted(building.rglob("*")) if p.is_file()}
    manifest = {
        "scenes_version": SCENES_VERSION,
        "source": source_hash(),
        "folder": str(folder),
        "questions": QUESTIONS,
        "files": files,
    }
    (building / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
