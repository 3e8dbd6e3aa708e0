"""What the YAML files here call beside lmms-eval's own task code.

A YAML of a subfolder names these `!function ../utils.NAME`: lmms-eval resolves the file relative to the YAML's folder.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
from lmms_eval.tasks.mmbench import en_utils as mmbench
from lmms_eval.tasks.mmmu import utils as mmmu
from lmms_eval.tasks.ocrbench import utils as ocrbench
from PIL import Image

Doc = dict[str, Any]
GQA, GQA_IMAGES, GQA_SPLIT = "lmms-lab-encoder/GQA", "testdev_balanced_images", "testdev"


@cache
def _gqa_images() -> tuple[datasets.Dataset, dict[str, int]]:
    """GQA's pictures, which are a data set of their own, and the row of each image id; nothing is decoded here."""
    folder = os.environ.get("ATP_EVAL_DATA")
    local = Path(folder).absolute().glob(f"GQA/**/{GQA_IMAGES}/{GQA_SPLIT}-*.parquet") if folder else ()
    if files := sorted(map(str, local)):
        images = datasets.load_dataset("parquet", data_files={GQA_SPLIT: files}, split=GQA_SPLIT)
    else:
        images = datasets.load_dataset(GQA, GQA_IMAGES, split=GQA_SPLIT)
    return images, {key: row for row, key in enumerate(images["id"])}


def gqa_doc_to_visual(doc: Doc) -> list[Image.Image]:
    """The picture of a GQA question, looked up when asked: lmms-eval would copy 398 pictures into 12,578 rows."""
    images, rows = _gqa_images()
    return [images[rows[doc["imageId"]]]["image"].convert("RGB")]


def seed_images(dataset: datasets.Dataset) -> datasets.Dataset:
    """SEED-Bench without its video questions; no picture is decoded."""
    return dataset.filter(lambda kind: kind == "image", input_columns=["data_type"])


def mmbench_process_results(doc: Doc, results: list[str]) -> dict[str, Any]:
    """lmms-eval's results, and `hit`: 1 where its static rule finds the right option in this row alone."""
    found: dict[str, Any] = mmbench.mmbench_process_results(doc, results)
    row = found["gpt_eval_score"]
    table, answers = pd.DataFrame([row]), {row["index"]: row["answer"]}
    return {**found, "hit": {"score": mmbench.mmbench_evaluator.eval_sub_data(table, answers, static_only=True)}}


def mmmu_process_results(doc: Doc, results: list[str]) -> dict[str, Any]:
    """lmms-eval's results, and `hit`: 1 where the official rule takes this answer."""
    found: dict[str, Any] = mmmu.mmmu_process_results(doc, results)
    _, scores = mmmu.evaluate_mmmu([found["mmmu_acc"]])
    return {**found, "hit": {"score": scores["acc"]}}


def ocrbench_aggregate_accuracy(results: list[dict[str, Any]], args: object) -> float:
    """lmms-eval's score, from zero: its own counts live on in the module and add up over the methods of a process."""
    for kind in ocrbench.OCRBench_score:
        ocrbench.OCRBench_score[kind] = 0
    score: float = ocrbench.ocrbench_aggregate_accuracy(results, args)
    return score
