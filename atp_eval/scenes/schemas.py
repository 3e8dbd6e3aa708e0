"""The rows of the seven benchmarks as their data sets on the hub have them, filled with questions about scenes.

Every schema keeps the hub's columns and types, and has five more at the end: kind, level, scene_seed, objects and
things_cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atp_eval.scenes.prompts import LETTERS, hint_of

if TYPE_CHECKING:
    import datasets

Row = dict[str, Any]

MME_CATEGORIES = {
    "exist": "existence", "count": "count", "more": "count", "number": "OCR", "setting": "scene", "animal": "scene",
    "relation": "position", "extreme": "position", "nth": "position", "hop": "position", "nearest": "position",
    "color": "color", "same": "color", "material": "color", "shape": "color",
}  # fmt: skip
SEED_TYPE_IDS = {
    "setting": 1, "animal": 1, "exist": 2, "color": 3, "shape": 3, "material": 3, "same": 3, "extreme": 4, "nth": 4,
    "count": 5, "more": 5, "hop": 6, "nearest": 6, "relation": 6, "number": 9,
}  # fmt: skip
COARSE = "coarse_perception"
SINGLE, CROSS = "finegrained_perception (instance-level)", "finegrained_perception (cross-instance)"
MMB_CATEGORIES = {
    "setting": ("image_scene", COARSE), "animal": ("image_scene", COARSE), "number": ("ocr", SINGLE),
    "extreme": ("object_localization", SINGLE), "nth": ("object_localization", SINGLE),
    "count": ("object_counting", SINGLE),
    "hop": ("spatial_relationship", CROSS), "nearest": ("spatial_relationship", CROSS),
    "same": ("attribute_comparison", CROSS), "more": ("attribute_comparison", CROSS),
}  # fmt: skip
ATTRIBUTE = ("attribute_recognition", SINGLE)


@dataclass(frozen=True)
class Item:
    """One question of the embedded suite.

    number: its place in the benchmark. image: path of its picture. answer: the text, never a letter. options: in order,
    for a choice. objects: things in the picture. cells: grid cells of those asked about.
    """

    benchmark: str
    number: int
    image: str
    seed: int
    question: str
    answer: str
    kind: str
    level: str
    objects: int
    cells: tuple[int, ...]
    options: tuple[str, ...] = ()

    @property
    def letter(self) -> str:
        """The right option's letter."""
        return LETTERS[self.options.index(self.answer)]

    @property
    def picture(self) -> Row:
        """The cell of an Image column: a path, so that a picture shared by many rows is stored once."""
        return {"bytes": None, "path": self.image}

    @property
    def extras(self) -> Row:
        """What only rows of scenes have."""
        return {
            "kind": self.kind,
            "level": self.level,
            "scene_seed": self.seed,
            "objects": self.objects,
            "things_cells": list(self.cells),
        }


def gqa(item: Item) -> Row:
    """GQA, testdev_balanced_instructions, with the picture in the row (the hub keeps pictures apart)."""
    return {
        "id": str(item.number),
        "imageId": f"scene-{item.seed}",
        "question": item.question,
        "answer": item.answer,
        "fullAnswer": item.answer,
        "isBalanced": True,
        "groups": {"global": item.kind, "local": item.kind},
        "types": {"structural": "query", "semantic": item.kind, "detailed": item.kind},
        "image": item.picture,
    }


def vqav2(item: Item) -> Row:
    """VQAv2: ten people who agree."""
    answers = [{"answer": item.answer, "answer_confidence": "yes", "answer_id": i} for i in range(1, 11)]
    kind = "number" if item.answer.isdigit() else "yes/no" if item.answer in ("yes", "no") else "other"
    return {
        "question_type": " ".join(item.question.lower().split()[:2]),
        "multiple_choice_answer": item.answer,
        "answers": answers,
        "image_id": item.seed,
        "answer_type": kind,
        "question_id": item.number,
        "question": item.question,
        "image": item.picture,
    }


def mme(item: Item) -> Row:
    """MME: two rows share a question_id, one of them right with yes."""
    category = MME_CATEGORIES[item.kind]
    return {
        "question_id": f"{category}/{item.seed:04d}.png",
        "image": item.picture,
        "question": f"{item.question} Please answer yes or no.",
        "answer": item.answer.capitalize(),
        "category": category,
    }


def pope(item: Item) -> Row:
    """POPE."""
    return {
        "id": str(item.number),
        "question_id": str(item.number),
        "question": item.question,
        "answer": item.answer,
        "image_source": f"scene-{item.seed}",
        "image": item.picture,
        "category": item.kind,
    }


def mmb(item: Item) -> Row:
    """MMBench: indexes below 10**6 have no circular rows; absent options are the text nan."""
    category, l2 = MMB_CATEGORIES.get(item.kind, ATTRIBUTE)
    options = [*item.options, *["nan"] * (len(LETTERS) - len(item.options))]
    return {
        "index": item.number,
        "question": item.question,
        "hint": hint_of("mmb", item.kind) or "nan",
        "answer": item.letter,
        **dict(zip(LETTERS, options, strict=True)),
        "category": category,
        "image": item.picture,
        "source": "scenes",
        "L2-category": l2,
        "comment": "nan",
        "split": "dev",
    }


def seed(item: Item) -> Row:
    """SEED-Bench: always four options."""
    return {
        "answer": item.letter,
        **{f"choice_{a.lower()}": text for a, text in zip(LETTERS, item.options, strict=True)},
        "data_id": f"scene-{item.seed}",
        "data_type": "image",
        "question": item.question,
        "question_id": str(item.number),
        "question_type_id": SEED_TYPE_IDS[item.kind],
        "image": [item.picture],
        "segment": [],
    }


def sqa(item: Item) -> Row:
    """ScienceQA-IMG: the answer is an index."""
    return {
        "image": item.picture,
        "question": item.question,
        "choices": list(item.options),
        "answer": item.options.index(item.answer),
        "hint": hint_of("sqa", item.kind),
        "task": "closed choice",
        "grade": "grade1",
        "subject": "natural science",
        "topic": "scenes",
        "category": item.kind,
        "skill": item.kind,
        "lecture": "",
        "solution": "",
    }


ROWS: dict[str, Callable[[Item], Row]] = {
    "gqa": gqa, "mmb": mmb, "mme": mme, "pope": pope, "seed": seed, "sqa": sqa, "vqav2": vqav2,
}  # fmt: skip


def features(benchmark: str) -> datasets.Features:
    """The column types of a benchmark on the hub, then ours."""
    from datasets import Features, Image, List, Value

    text, image = Value("string"), Image()
    columns: dict[str, dict[str, Any]] = {
        "gqa": {
            **dict.fromkeys(("id", "imageId", "question", "answer", "fullAnswer"), text),
            "isBalanced": Value("bool"),
            "groups": {"global": text, "local": text},
            "types": dict.fromkeys(("structural", "semantic", "detailed"), text),
            "image": image,
        },
        "mmb": {
            "index": Value("int64"),
            **dict.fromkeys(("question", "hint", "answer", *LETTERS, "category"), text),
            "image": image,
            **dict.fromkeys(("source", "L2-category", "comment", "split"), text),
        },
        "mme": {"question_id": text, "image": image, "question": text, "answer": text, "category": text},
        "pope": {
            **dict.fromkeys(("id", "question_id", "question", "answer", "image_source"), text),
            "image": image,
            "category": text,
        },
        "seed": {
            **dict.fromkeys(("answer", "choice_a", "choice_b", "choice_c", "choice_d", "data_id", "data_type"), text),
            "question": text,
            "question_id": text,
            "question_type_id": Value("int16"),
            "image": List(image),
            "segment": List(Value("int64")),
        },
        "sqa": {
            "image": image,
            "question": text,
            "choices": List(text),
            "answer": Value("int8"),
            **dict.fromkeys(("hint", "task", "grade", "subject", "topic", "category", "skill"), text),
            "lecture": text,
            "solution": text,
        },
        "vqav2": {
            "question_type": text,
            "multiple_choice_answer": text,
            "answers": List({"answer": text, "answer_confidence": text, "answer_id": Value("int64")}),
            "image_id": Value("int64"),
            "answer_type": text,
            "question_id": Value("int64"),
            "question": text,
            "image": image,
        },
    }
    number = Value("int64")
    extras = {
        "kind": text,
        "level": text,
        "scene_seed": number,
        "objects": number,
        "things_cells": List(Value("int16")),
    }
    return Features(columns[benchmark] | extras)
