"""A folder with the configuration of a small model and no weights, and plans about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.small import small_llava

from atp_eval.bench.plan import Plan, Wanted
from atp_eval.bench.planning import make_plan
from atp_eval.bench.records import MEASURED


def small_folder(path: Path, **sizes: Any) -> str:
    """8 layers of width 32 over 36 image tokens, unless told otherwise."""
    small_llava(**{"layers": 8, **sizes}).config.save_pretrained(path)
    return str(path)


def small_plan(path: Path, **wanted: Any) -> Plan:
    """Random weights in fp32 on the CPU; 12 tokens of text, 4 new ones."""
    given = {"random_weights": True, "text": 12, "news": [4], "rounds": 2, "device": "cpu", **wanted}
    return make_plan(Wanted(model=small_folder(path / "small"), **given))


def lines(folder: Path) -> list[dict[str, Any]]:
    """What was measured."""
    return [json.loads(line) for line in (folder / MEASURED).read_text().splitlines()]
