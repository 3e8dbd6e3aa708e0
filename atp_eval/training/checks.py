"""What a training is refused for before it begins: where it is started, what it is to learn from, where it writes."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import torch

from atp_eval.engine import ModelGeometry
from atp_eval.errors import UserError
from atp_eval.scenes.instructions import FILE
from atp_eval.training.config import TrainConfig, load_train_config
from atp_eval.training.weights import last_checkpoint

SETTINGS = "train.yaml"


def check_start(config: TrainConfig) -> None:
    """Raises UserError for what this machine or this start cannot do."""
    for package in config.report_to:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"report_to: {package} is not installed; pip install {package}")
    if config.device == "auto" and world_size() == 1 and torch.cuda.device_count() > 1:
        raise UserError(
            f"{torch.cuda.device_count()} GPUs, one process: start it with `accelerate launch` (docs/training.md), or "
            "choose one with CUDA_VISIBLE_DEVICES=0"
        )
    config.shares(world_size())


def check_files(config: TrainConfig) -> None:
    """Raises UserError where the data or a folder of pictures is not there, with the command that draws the scenes."""
    missing = [] if config.data.is_file() else [f"training data {str(config.data)!r} does not exist"]
    missing += [f"image folder {str(folder)!r} does not exist" for folder in config.images if not folder.is_dir()]
    if not missing:
        return
    if config.data.name == FILE:
        fix = f"draw it: python -m atp_eval.scenes.instructions --folder {config.data.parent}"
    else:
        fix = f"paths start at the working folder, {Path.cwd()}"
    raise UserError(f"{missing[0]}; {fix}")


def check_fit(config: TrainConfig, geometry: ModelGeometry) -> None:
    """Raises UserError where the settings ask for layers or tokens that the model does not have."""
    layers = "-".join(map(str, config.options.layers))
    if config.options.layers[-1] >= geometry.num_layers:
        raise UserError(f"options.layers {layers}: {config.model} has layers 0 to {geometry.num_layers - 1}")
    for name, tokens in (("target", config.target), ("budget", config.budget)):
        if tokens is not None and tokens > geometry.cells:
            raise UserError(f"{name} {tokens:g}: an image has {geometry.cells} visual tokens; choose fewer")


def prepare(config: TrainConfig, resume: bool) -> Path | None:
    """The checkpoint to go on from, and `train.yaml` in the output folder. Raises UserError for a folder of another
    training, and for one with checkpoints where nobody asked to resume."""
    settings, checkpoint = config.output / SETTINGS, last_checkpoint(config.output)
    if checkpoint and not resume:
        raise UserError(f"{config.output} holds {checkpoint.name} already; add --resume, or choose another output")
    if checkpoint and settings.is_file() and (changed := config.changed(load_train_config(settings))):
        raise UserError(
            f"{config.output} was trained with another {', '.join(changed)} ({settings}); go on with that, or choose "
            "another output"
        )
    try:
        config.output.mkdir(parents=True, exist_ok=True)
        if os.environ.get("RANK", "0") == "0":  # while others may be reading
            building = settings.with_suffix(".new")
            building.write_text(config.to_yaml(), encoding="utf-8")
            os.replace(building, settings)
    except OSError as error:
        raise UserError(f"output {str(config.output)!r} cannot be written: {error.strerror}; choose another") from error
    return checkpoint


def world_size() -> int:
    """How many processes `torchrun` or `accelerate launch` started."""
    return int(os.environ.get("WORLD_SIZE", "1"))
