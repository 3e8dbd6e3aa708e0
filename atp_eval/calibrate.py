"""Measure prefill times for budgets of time: how long one prompt takes by the number of its visual tokens."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

from atp_eval.cost import KNOWN, Place
from atp_eval.cost.calibration import Calibration
from atp_eval.cost.target import TEXT_TOKENS
from atp_eval.engine import device_name, model_geometry, prune
from atp_eval.errors import UserError
from atp_eval.models import DTYPES, check_attention, find_device, find_dtype, model_config
from atp_eval.models.llava import encoded_already
from atp_eval.training.geometries import known_config

EIGHTHS = (0.5, 1, 2, 3, 4, 5, 6, 7)  # of the grid; one token and the whole grid are measured, too
BEFORE = 5  # tokens of text before the image
PATCH = 14


def find_config(model: str) -> LlavaConfig:
    """The configuration of a model by name, built in for LLaVA-1.5's. Raises UserError where there is none."""
    return known_config(model) if model in KNOWN and not Path(model).is_dir() else model_config(model)


def find_place(config: LlavaConfig, device: str, dtype: str, attention: str) -> Place:
    """Where a model would run with these options of `load_model`. Raises UserError for what is not here."""
    where = find_device(device)
    kind = find_dtype(dtype, where)
    if kind == "auto":
        kind = config.dtype or torch.float16  # LLaVA-1.5's own
    check_attention(attention, where, kind)
    return Place(device_name(where), str(kind).removeprefix("torch."), attention)


def measure(
    config: LlavaConfig,
    device: torch.device,
    place: Place,
    rounds: int = 7,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Median seconds of prefills on `device`, in rounds in which every number of tokens has its turn, after one that
    warms up.

    Weights are random, since time does not depend on them; the vision tower is left out. Tokens are pruned before the
    LLM on a grid, so that the engine's own work is in the times.

    Raises UserError where the model does not fit the memory.
    """
    try:
        model = language_model(config, device, place)
        inputs, cells = prompt(model, device), model_geometry(config).cells
        tokens = sorted({1, cells} | {max(1, round(cells * part / 8)) for part in EIGHTHS})
        seconds: dict[int, list[float]] = {count: [] for count in tokens}
        for turn in range(rounds + 1):
            for i in range(len(tokens)):
                count = tokens[(i + turn) % len(tokens)]
                taken = prefill_seconds(model, inputs, count, cells, device)
                if turn:
                    seconds[count].append(taken)
            progress(turn + 1, rounds + 1)
    except torch.OutOfMemoryError:
        raise UserError(
            f"{place.device} has too little memory for the model's {place.dtype} weights; choose another --device"
        ) from None
    medians = tuple(statistics.median(seconds[count]) for count in tokens)
    return Calibration(place, TEXT_TOKENS, rounds, tuple(tokens), medians)


def language_model(config: LlavaConfig, device: torch.device, place: Place) -> Any:
    """The model's LLM with random weights, behind a vision tower of next to nothing with the same grid."""
    grid = model_geometry(config).grid
    vision = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=grid[0] * PATCH,
        patch_size=PATCH,
    )
    stub = LlavaConfig(
        vision_config=vision,
        text_config=config.text_config,
        image_token_index=config.image_token_id,
        vision_feature_layer=-1,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[place.dtype])
    try:
        with device:
            model = LlavaForConditionalGeneration._from_config(stub, attn_implementation=place.attention)
    finally:
        torch.set_default_dtype(before)
    return model.eval()


def prompt(model: Any, device: torch.device) -> dict[str, Any]:
    """One image, as features, with TEXT_TOKENS words around it."""
    geometry, image = model_geometry(model.config), model.config.image_token_id
    ids = torch.full((1, TEXT_TOKENS + geometry.cells), 2 if image == 1 else 1, device=device)
    ids[:, BEFORE : BEFORE + geometry.cells] = image
    features = torch.randn(1, geometry.cells, geometry.hidden, device=device, dtype=model.dtype)
    return {"input_ids": ids, "pixel_values": features, "use_cache": True, "logits_to_keep": 1}


@torch.no_grad()
def prefill_seconds(model: Any, inputs: dict[str, Any], count: int, cells: int, device: torch.device) -> float:
    """Seconds of one prefill with `count` visual tokens in every layer."""
    with encoded_already(model), prune(model, "upper_bound" if count == cells else f"grid:layer=0,keep={count}"):
        wait(device)
        start = time.perf_counter()
        model(**inputs)
        wait(device)
        return time.perf_counter() - start


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
