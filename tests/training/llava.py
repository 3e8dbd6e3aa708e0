"""Rows in LLaVA's format, pictures for them, and the tiny model's side of reading them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from atp_eval.engine import model_geometry
from atp_eval.models import Bundle, tiny
from atp_eval.training.data import Conversations

CELLS = 576
# The tiny model's prompts, tokens and pixels, without a model.
TINY = Bundle(
    model=cast(Any, None),
    processor=tiny.processor(),
    model_id="tiny",
    weight_hash="",
    geometry=model_geometry(tiny.config()),
    device=torch.device("cpu"),
    dtype=torch.float32,
    image_mode="pad",
    prompt_style="hf",
)


def said(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def row(name: Any, *texts: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "conversations": said(*texts), **fields}


def seen(name: Any, image: str = "a.png", question: str = "What color is the star?") -> dict[str, Any]:
    """A good row with an image."""
    return row(name, f"<image>\n{question}", "red", image=image)


def draw_pictures(place: Path) -> Path:
    """A folder with a.png and b.png, of different sizes, and broken.png and text.png, which are none."""
    folder = place / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (60, 40)), ("b.png", (336, 336))):
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(folder / name)
    whole = (folder / "b.png").read_bytes()
    (folder / "broken.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no picture")
    return folder


def write(path: Path, data: Sequence[Any]) -> Path:
    """A .json list or .jsonl lines."""
    lines = path.suffix == ".jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in data) if lines else json.dumps(data, indent=2))
    return path


def load(pictures: Path, data: Sequence[Any], bundle: Bundle = TINY, **options: Any) -> Conversations:
    path = write(pictures.parent / "data.json", data)
    return Conversations(path, [pictures], bundle, **{"max_bad_share": 1.0, **options})
