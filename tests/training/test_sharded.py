"""Two processes that share out the weights, by the settings that ship, end with the weights of one process."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from atp_eval.training.config import TrainConfig
from atp_eval.training.recipe import train
from training.test_recipe import home, settings

CONFIGS = Path(__file__).parents[2] / "configs"
pytestmark = pytest.mark.slow
__all__ = ["home"]


def in_two(way: str, config: TrainConfig, *options: str) -> None:
    """Every process of a text-only micro-batch has to keep step with one that has images."""
    path = config.output.with_suffix(".yaml")
    path.write_text(config.to_yaml())
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    env |= {"DS_ACCELERATOR": "cpu"}
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(CONFIGS / f"accelerate_{way}.yaml"),
    ]
    command = [*launch, "--num_processes", "2", "-m", "training.on_cpu", str(path), *options]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def same_adapter(one: TrainConfig, other: TrainConfig) -> None:
    for file in ("modules.safetensors", "language_model.safetensors"):
        truth, found = (load_file(config.adapter / file) for config in (one, other))
        assert truth.keys() == found.keys()
        for name in truth.keys() - {"theta", "counts"}:  # a sample counts twice where two cannot share them
            torch.testing.assert_close(found[name], truth[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("way", ["fsdp", "zero3"])
def test_shared_out_weights_learn_the_same(home: Path, way: str) -> None:
    needed = "accelerate" if way == "fsdp" else "deepspeed"
    assert importlib.util.find_spec(needed), f"{needed} is not installed: pip install -e '.[train]'"
    given = {"micro_batch": 1, "checkpointing": True, "lr_lm": 1e-3}
    given["options"] = {"layers": [1, 2], "hidden": 8, "learned_mix": True, "positions": "2d"}
    one, two, resumed = (settings(home, output=home / f"{way}-{name}", **given) for name in ("one", "two", "resumed"))
    train(one)
    in_two(way, two)
    same_adapter(one, two)
    shutil.copytree(two.output / "checkpoint-4", resumed.output / "checkpoint-4")
    in_two(way, resumed, "--resume")
    same_adapter(one, resumed)
