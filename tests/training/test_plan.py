"""A dry run: figures against arithmetic, without weights; and the settings that ship."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from models.hub_folder import write_hub_folder
from PIL import Image
from rich.console import Console

from atp_eval.errors import UserError
from atp_eval.training.config import TrainConfig, load_train_config
from atp_eval.training.plan import plan, plan_table
from training.small import pruning_llava

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(CONFIGS.glob("atp_*.yaml"))
PUBLISHED = 7_063_427_072  # parameters of llava-hf/llava-1.5-7b-hf


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 rows where the shipped settings look for them, 20 with a picture; the working folder is elsewhere."""
    (tmp_path / "data").mkdir()
    rows: list[dict[str, Any]] = []
    for i in range(1000):
        asked = "<image>\nWho?" if i < 20 else "Who?"
        said = [{"from": "human", "value": asked}, {"from": "gpt", "value": "You."}]
        rows.append({"id": i, "conversations": said, **({"image": f"{i}.png"} if i < 20 else {})})
        if i < 20:
            Image.new("RGB", (4, 4)).save(tmp_path / "data" / f"{i}.png")
    (tmp_path / "data" / "llava_v1_5_mix665k.json").write_text(json.dumps(rows))
    monkeypatch.chdir(tmp_path)


def settings(**given: Any) -> TrainConfig:
    base: dict[str, Any] = {
        "model": "llava-hf/llava-1.5-7b-hf",
        "data": "data/llava_v1_5_mix665k.json",
        "images": ["data"],
        "output": "out",
    }
    return TrainConfig(**{**base, "options": {"layers": [4, 14, 24]}, "target": 130, "held_back": 100, **given})


def test_the_published_7b_model_is_counted_without_its_weights() -> None:
    found = plan(settings(lm="trainable"))
    numbers = found["parameters"]
    module = 1152 * 256 + 256 + 2 * (256 + 1)
    assert numbers["threshold_modules"] == 3 * module
    assert numbers["total"] == PUBLISHED + 3 * module
    assert numbers["trainable"] == numbers["language_model"] + 3 * module
    assert numbers["language_model"] == 32 * numbers["largest_layer"] + 2 * 32064 * 4096 + 4096
    shared, whole = found["memory_per_gpu"].values()
    assert whole["weights"] == 4 * numbers["total"] and shared["weights"] == numbers["total"]
    assert whole["optimizer"] == 8 * numbers["trainable"] == 4 * shared["optimizer"]


def test_a_frozen_model_takes_half_the_bytes_and_hardly_any_gradients() -> None:
    found = plan(settings(lm="frozen", bf16=True))
    whole = found["memory_per_gpu"]["whole (DDP)"]
    assert whole["weights"] == 2 * found["parameters"]["total"]
    assert whole["gradients"] == 4 * found["parameters"]["threshold_modules"]


def test_checkpointing_and_smaller_micro_batches_save_activations() -> None:
    sizes = [
        plan(settings(**given))["memory_per_gpu"]["whole (DDP)"]["activations"]
        for given in ({}, {"checkpointing": True}, {"checkpointing": True, "micro_batch": 4})
    ]
    assert sizes[0] > 4 * sizes[1] > 7 * sizes[2]


def test_steps_and_samples() -> None:
    found = plan(settings(epochs=3.0))
    assert (found["samples"], found["steps"], found["warmup_steps"]) == (900, 3 * 8, 1)
    assert found["batch"] == {"batch_size": 128, "processes": 4, "micro_batch": 8, "accumulation": 4}
    assert plan(settings(max_steps=7))["steps"] == 7


def test_tokens_are_counted_where_the_tokenizer_is(tmp_path: Path) -> None:
    write_hub_folder(tmp_path / "model")
    found = plan(settings(model=str(tmp_path / "model"), options={"layers": [1, 2]}))
    assert found["tokens_per_sample"] > 5
    assert found["tokens"] == round(found["steps"] * 128 * found["tokens_per_sample"])


def test_a_plan_is_told_and_is_json() -> None:
    found = plan(settings())
    assert json.loads(json.dumps(found)) == found
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(plan_table(found))
    told = console.export_text()
    assert "7,064,314,118, of which trained 887,046" in told and "1000 rows: 20 with an image" in told


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"options": {"layers": [4, 32]}}, "llava-1.5-7b-hf has layers 0 to 31"),
        ({"model": "none/at/all"}, "unknown model 'none/at/all'"),
        ({"data": "none.json"}, r"none\.json' does not exist"),
        ({"images": ["none"]}, "image folder 'none' does not exist"),
        ({"held_back": 1000}, "held_back 1000 leaves nothing to train on"),
        ({"batch_size": 40}, "batch_size 40 cannot be shared out to 4 processes in micro-batches of 8"),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan(settings(**given))


def test_rows_are_checked_without_a_tokenizer() -> None:
    rows = [
        {
            "id": "a",
            "image": "a.png",
            "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "b"}],
        }
    ]
    Path("rows.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match=r"100\.0% of the rows cannot be used.*1 x image not found \(a\)"):
        plan(settings(data="rows.json", held_back=0))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_settings_can_be_planned(path: Path) -> None:
    """With the paper's numbers, on its four GPUs."""
    config = load_train_config(path)
    assert (config.batch_size, config.schedule, config.warmup, config.epochs) == (128, "cosine", 0.03, 1)
    assert (config.lr_z, config.lr_heads, config.lr_biases, config.bf16) == (1e-4, 1e-4, 1e-4, True)
    assert (config.lambda_atp, config.lambda_target, config.options.lambda_sample) == (0.1, 0.2, 3)
    assert config.options.layers == ((1, 13, 25) if "88" in path.stem else (4, 14, 24))
    assert (config.options.positions == "2d") == (config.lm == "trainable")
    assert config.lm == "frozen" or config.lr_lm == 2e-5
    found = plan(config)
    assert found["parameters"]["total"] > PUBLISHED
    way = "shared (ZeRO-3, FSDP)" if config.lm == "trainable" else "whole (DDP)"
    assert found["memory_per_gpu"][way]["total"] < 38 * 2**30, "too much for the paper's GPUs of 40 GB"


def test_both_settings_of_four_gpus_are_accelerate_s() -> None:
    zero3, fsdp = (load_config_from_file(str(CONFIGS / f"accelerate_{name}.yaml")) for name in ("zero3", "fsdp"))
    assert zero3.num_processes == fsdp.num_processes == 4
    assert zero3.deepspeed_config["zero_stage"] == 3
    wrapped = fsdp.fsdp_config["fsdp_transformer_layer_cls_to_wrap"]
    assert wrapped in {type(module).__name__ for module in pruning_llava().modules()}
