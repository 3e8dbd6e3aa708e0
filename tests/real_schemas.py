"""Small local copies of the real benchmarks' repositories: the hub's folders, configurations, columns and types.

`build(folder)` writes what `hf download --repo-type dataset OWNER/NAME --local-dir FOLDER/NAME` would bring, a few rows
each with small pictures. `ATP_EVAL_DATA=FOLDER` then lets the real tasks read them.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, List, Value
from PIL import Image as PILImage

from atp_eval.scenes.schemas import features as main_features

TEXT, TEXTS, IMAGE, INT = Value("string"), List(Value("string")), Image(), Value("int64")
OURS = ("kind", "level", "scene_seed", "objects", "things_cells")
Rows = list[dict[str, Any]]


def picture(shade: int, size: tuple[int, int] = (48, 36)) -> dict[str, Any]:
    """A picture as the hub stores it: encoded bytes in the row. Sides unequal, so that padding and cropping show."""
    data = io.BytesIO()
    PILImage.new("RGB", size, (shade * 37 % 256, 80, 255 - shade * 37 % 256)).save(data, "PNG")
    return {"bytes": data.getvalue(), "path": f"{shade}.png"}


def _texts(names: str) -> dict[str, Value]:
    return dict.fromkeys(names.split(), TEXT)


def hub_features() -> dict[tuple[str, str], Features]:
    """(repository, configuration) -> columns."""
    main = {
        name: Features({k: v for k, v in main_features(name).items() if k not in OURS})
        for name in ("gqa", "mmb", "mme", "pope", "seed", "sqa", "vqav2")
    }
    named = List({"objectId": TEXT, "value": TEXT})
    gqa = {k: v for k, v in main["gqa"].items() if k != "image"} | {
        **_texts("entailed equivalent semanticStr"),
        "annotations": {"question": named, "answer": named, "fullAnswer": named},
        "semantic": List({"operation": TEXT, "argument": TEXT, "dependencies": List(Value("int32"))}),
    }
    mmmu_texts = "id question options explanation img_type answer topic_difficulty question_type subfield"
    return {
        ("GQA", "testdev_balanced_instructions"): Features(gqa),
        ("GQA", "testdev_balanced_images"): Features({"id": TEXT, "image": IMAGE}),
        ("MMBench", "en"): main["mmb"],
        ("MME", "default"): main["mme"],
        ("POPE", "default"): main["pope"],
        ("SEED-Bench", "default"): main["seed"],
        ("ScienceQA", "ScienceQA-IMG"): main["sqa"],
        ("VQAv2", "default"): main["vqav2"],
        ("DocVQA", "DocVQA"): Features(
            _texts("questionId question ucsf_document_id ucsf_document_page_no data_split")
            | {"question_types": TEXTS, "answers": TEXTS, "image": IMAGE, "docId": INT}
        ),
        ("DocVQA", "InfographicVQA"): Features(
            _texts("questionId question image_url ocr data_split")
            | {"answers": TEXTS, "answer_type": TEXTS, "operation/reasoning": TEXTS, "image": IMAGE}
        ),
        ("OCRBench", "default"): Features(_texts("dataset question question_type") | {"answer": TEXTS, "image": IMAGE}),
        ("ChartQA", "default"): Features(_texts("type question answer") | {"image": IMAGE}),
        ("textvqa", "default"): Features(
            _texts("image_id question flickr_original_url flickr_300k_url set_name")
            | dict.fromkeys(("question_tokens", "answers", "image_classes", "ocr_tokens"), TEXTS)
            | {"question_id": Value("int32"), "image": IMAGE, "image_width": INT, "image_height": INT}
        ),
        ("ai2d", "default"): Features(_texts("question answer") | {"options": TEXTS, "image": IMAGE}),
        ("MMMU", "default"): Features(_texts(mmmu_texts) | {f"image_{i}": IMAGE for i in range(1, 8)}),
        ("RealWorldQA", "default"): Features(_texts("image_path question answer") | {"image": IMAGE}),
    }


def _gqa() -> Rows:
    types = {"structural": "query", "semantic": "attr", "detailed": "color"}
    rows = [("20190", "n161313", "Is it overcast?", "no"), ("20191", "n161313", "What is on the sign?", "letters")]
    rows.append(("20192", "n7", "Who is wearing the dress?", "woman"))
    return [
        {"id": i, "imageId": m, "question": q, "answer": a, "fullAnswer": f"{a}.", "isBalanced": True, "types": types}
        for i, m, q, a in rows
    ]


def _mmbench() -> Rows:
    """Two questions, the first with a circular row, in which the options are turned; the second has two options."""
    same = {"source": "reasonseg", "split": "dev", "comment": "nan", "L2-category": "coarse_perception"}
    first = {"question": "Which one is right?", "hint": "nan", "category": "image_scene", "image": picture(1), **same}
    second = {"question": "Day or night?", "hint": "The sun is up.", "category": "image_scene", "image": picture(2)}
    return [
        {"index": 241, "A": "street", "B": "beach", "C": "forest", "D": "office", "answer": "B", **first},
        {"index": 1000241, "A": "office", "B": "street", "C": "beach", "D": "forest", "answer": "C", **first},
        {"index": 252, "A": "day", "B": "night", "C": "nan", "D": "nan", "answer": "A", **second, **same},
    ]


def _mme() -> Rows:
    rows = []
    for n, (category, name) in enumerate((("existence", "a dog"), ("count", "two cats"), ("code_reasoning", "code"))):
        for answer, thing in (("Yes", name), ("No", "a bicycle")):
            question = f"Is there {thing} in this image? Please answer yes or no."
            key = f"{category}/{n:04d}.png"
            rows.append(
                {"question_id": key, "question": question, "answer": answer, "category": category, "image": picture(n)}
            )
    return rows


def _pope() -> Rows:
    return [
        {
            "id": str(n),
            "question_id": str(n),
            "question": f"Is there a {thing} in the image?",
            "answer": answer,
            "image_source": "COCO_val2014_000000310196",
            "image": picture(3),
            "category": "adversarial",
        }
        for n, (thing, answer) in enumerate((("snowboard", "yes"), ("dining table", "no"), ("backpack", "yes")))
    ]


def _seed() -> Rows:
    """The second row is a video question with several frames, which our task leaves out."""
    options = {"choice_a": "One", "choice_b": "Two", "choice_c": "Three", "choice_d": "Four"}
    row = {**options, "answer": "C", "question": "How many towels are there?", "segment": [], "data_id": "2104.jpg"}
    image = {**row, "question_id": "101669", "question_type_id": 5, "data_type": "image", "image": [picture(4)]}
    video = {**row, "question_id": "106000", "question_type_id": 10, "data_type": "video"}
    other = {**image, "question_id": "101670", "question_type_id": 1, "answer": "A", "image": [picture(5)]}
    return [image, {**video, "image": [picture(6), picture(7)]}, other]


def _scienceqa() -> Rows:
    texts = dict.fromkeys(("task", "grade", "topic", "category", "skill", "lecture", "solution"), "x")
    subject = {"subject": "social science", **texts}
    states = ["Oregon", "Kansas", "Ohio"]
    hint = "Look at the map."
    return [
        {"image": picture(8), "question": "Farthest north?", "choices": states, "answer": 1, "hint": hint, **subject},
        {"image": picture(9), "question": "Solid?", "choices": ["yes", "no"], "answer": 0, "hint": "", **subject},
    ]


def _vqav2() -> Rows:
    """Ten people of whom six say net and four say mesh: soft accuracy 1 for either."""
    said = ["net"] * 6 + ["mesh"] * 4
    answers = [{"answer": a, "answer_confidence": "yes", "answer_id": i} for i, a in enumerate(said, 1)]
    row = {"question_type": "what is", "multiple_choice_answer": "net", "answers": answers, "answer_type": "other"}
    return [
        {**row, "image_id": 262148, "question_id": 262148000 + n, "question": q, "image": picture(10)}
        for n, q in enumerate(("Where is he looking?", "What is this?"))
    ]


def _mmmu() -> Rows:
    """A choice among options printed as text, an open question, and a choice with two pictures."""
    text = {"explanation": "", "img_type": "['Plots']", "topic_difficulty": "Easy", "subfield": "x"}
    choice, options = "multiple-choice", "['$6', '$7', '$8', '$9']"
    questions = [
        ("<image 1> What does it cost?", choice, "B"),
        ("<image 1> How many?", "open", "24"),
        ("<image 1> Compare with <image 2>", choice, "D"),
    ]
    return [
        {
            "id": f"validation_Accounting_{n}",
            "question": question,
            "options": options if kind == choice else "[]",
            "answer": answer,
            "question_type": kind,
            "image_1": picture(11),
            "image_2": picture(12) if "image 2" in question else None,
            **text,
        }
        for n, (question, kind, answer) in enumerate(questions)
    ]


def hub_rows() -> dict[tuple[str, str, str], Rows]:
    """(repository, configuration, split) -> rows; columns that are left out are null."""
    said = {"question": "What is the date?", "answers": ["1/8/93", "1/8/93", "8 Jan"]}
    doc, info = {"questionId": "337", "image": picture(13), "docId": 279, **said}, {"questionId": "7", **said}
    ocr = {
        "dataset": "IIIT5K",
        "question": "what is written in the image?",
        "question_type": "Regular Text Recognition",
    }
    chart = {"question": "How many?", "image": picture(16)}
    people = ["dakota"] * 7 + ["dakota digital"] * 3
    text = {"image_id": "003a8ae2ef43b901", "question_id": 34602, "question": "what is the brand?", "answers": people}
    return {
        ("GQA", "testdev_balanced_instructions", "testdev"): _gqa(),
        ("GQA", "testdev_balanced_images", "testdev"): [
            {"id": "n7", "image": picture(20)},
            {"id": "n161313", "image": picture(21)},
        ],
        ("MMBench", "en", "dev"): _mmbench(),
        ("MME", "default", "test"): _mme(),
        ("POPE", "default", "test"): _pope(),
        ("SEED-Bench", "default", "test"): _seed(),
        ("ScienceQA", "ScienceQA-IMG", "test"): _scienceqa(),
        ("VQAv2", "default", "validation"): _vqav2(),
        ("DocVQA", "DocVQA", "validation"): [doc],
        ("DocVQA", "InfographicVQA", "validation"): [{**info, "image": picture(14)}],
        ("OCRBench", "default", "test"): [{**ocr, "answer": ["CENTRE"], "image": picture(15)}],
        ("ChartQA", "default", "test"): [
            {**chart, "type": "human_test", "answer": "14"},
            {**chart, "type": "augmented_test", "answer": "57"},
        ],
        ("textvqa", "default", "validation"): [{**text, "image": picture(17)}],
        ("ai2d", "default", "test"): [
            {"question": "Which?", "options": ["leaf", "stem", "root"], "answer": "2", "image": picture(18)}
        ],
        ("MMMU", "default", "validation"): _mmmu(),
        ("RealWorldQA", "default", "test"): [
            {
                "image_path": "0.webp",
                "question": "Which way?\nA. Left.\nB. Right.",
                "answer": "A",
                "image": picture(19),
            },
            {"image_path": "1.webp", "question": "How many cars?", "answer": "3", "image": picture(19)},
        ],
    }


def build(folder: Path) -> Path:
    """Write all repositories below a folder; the folder."""
    columns = hub_features()
    files: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for (repository, config, split), rows in hub_rows().items():
        place = "data" if config == "default" else config
        path = folder / repository / place / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        full = [{name: row.get(name) for name in columns[repository, config]} for row in rows]
        pq.write_table(pa.Table.from_pylist(full, schema=columns[repository, config].arrow_schema), path)
        files.setdefault(repository, {}).setdefault(config, []).append((split, f"{place}/{split}-*"))
    for repository, configs in files.items():
        lines = ["---", "configs:"]
        for config, splits in configs.items():
            lines += [f"- config_name: {config}", "  data_files:"]
            for split, pattern in splits:
                lines += [f"  - split: {split}", f"    path: {pattern}"]
        (folder / repository / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")
    return folder
