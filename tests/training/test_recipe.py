"""`train` from settings to an adapter: what it writes, how it goes on after a break, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models.hub_folder import write_hub_folder
from PIL import Image
from safetensors.torch import load_file

from atp_eval.engine import prune
from atp_eval.errors import TaskFailure, UserError
from atp_eval.methods import get_method
from atp_eval.methods.atp import load_adapter
from atp_eval.models import load_model
from atp_eval.training.config import TrainConfig
from atp_eval.training.data import Conversations
from atp_eval.training.recipe import Trained, split_data, train
from atp_eval.training.weights import WEIGHTS, last_checkpoint

KILLED_IN_STEP_5 = """
import os, signal, sys
from pathlib import Path
from atp_eval.training import progress, recipe
from atp_eval.training.config import load_train_config
def kill(self, args, state, control, **kwargs):
    if state.global_step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
progress.Moving.on_step_begin = kill
recipe.train(load_train_config(Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 4 layers and 576 visual tokens, and 18 samples; a third without a picture."""
    home = tmp_path_factory.mktemp("training")
    write_hub_folder(home / "model")
    noise, rows = np.random.default_rng(0), []
    for i in range(18):
        asked = "What is in the picture?"
        answers = [{"from": "gpt", "value": "a red star " * (1 + i % 3)}]
        row: dict[str, Any] = {"id": str(i), "conversations": [{"from": "human", "value": asked}, *answers]}
        if i % 3:
            row["image"] = f"{i}.png"
            row["conversations"][0]["value"] = f"<image>\n{asked}"
            Image.fromarray(noise.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(home / row["image"])
        rows.append(row)
    (home / "data.json").write_text(json.dumps(rows))
    return home


def settings(home: Path, **given: Any) -> TrainConfig:
    """Six steps, checkpoints at 2, 4 and 6, two epochs."""
    base: dict[str, Any] = {
        "model": str(home / "model"),
        "data": home / "data.json",
        "images": [home],
        "options": {"layers": [1, 2], "hidden": 8},
        "lm": "trainable",
        "target": 150,
        "batch_size": 4,
        "micro_batch": 2,
        "max_steps": 6,
        "held_back": 4,
        "statistics": 6,
        "save_steps": 2,
        "keep_checkpoints": 9,
        "logging_steps": 1,
        "device": "cpu",
    }
    return TrainConfig(**base | given)


@pytest.fixture(scope="module")
def unbroken(home: Path) -> tuple[TrainConfig, Trained]:
    config = settings(home, output=home / "unbroken")
    return config, train(config)


def weights(config: TrainConfig) -> dict[str, torch.Tensor]:
    return load_file(config.output / "checkpoint-6" / WEIGHTS)


def same_weights(one: TrainConfig, other: TrainConfig) -> None:
    truth, found = weights(one), weights(other)
    assert truth.keys() == found.keys()
    for name, value in truth.items():
        assert torch.equal(found[name], value), name


def test_a_training_moves_what_it_should(home: Path, unbroken: tuple[TrainConfig, Trained]) -> None:
    config, trained = unbroken
    first, last = (load_file(config.output / f"checkpoint-{step}" / WEIGHTS) for step in (2, 6))
    assert all(not torch.equal(first[name], last[name]) for name in last)
    assert {name.split(".")[0] for name in last} == {"thresholds", "model"}
    assert not any("vision" in name or "projector" in name for name in last)
    assert trained.steps == 6


def test_the_log_tells_losses_tokens_and_thresholds(unbroken: tuple[TrainConfig, Trained]) -> None:
    config, _ = unbroken
    steps = [line for line in json.loads((config.output / "log.json").read_text()) if "loss_lm" in line]
    assert len(steps) == 6
    assert 0 < sum("loss_target" in line for line in steps) < 6  # one step has text only
    for line in steps:
        assert line["grad_norm_modules"] <= line["grad_norm"]
        if "loss_target" not in line:
            assert line["loss"] == pytest.approx(line["loss_lm"]) and "average_tokens" not in line
            continue
        total = line["loss_lm"] + 0.1 * line["loss_atp"] + 0.2 * line["loss_target"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
        assert line["loss_target"] == pytest.approx(abs(line["average_tokens"] - 150), rel=1e-5)
        entering = 576 + line["tokens_1"] + 2 * line["tokens_2"]
        assert line["average_tokens"] == pytest.approx(entering / 4, rel=1e-5)
        assert 0 < line["theta_r_1"] < 1 and 0 < line["theta_s_2"] < 1
        assert line["rescued"] == 0


def test_the_adapter_prunes_as_it_was_measured(home: Path, unbroken: tuple[TrainConfig, Trained]) -> None:
    """The engine, with the trained language model in the base model's place, keeps what training said it would."""
    config, trained = unbroken
    adapter = load_adapter(trained.adapter)
    assert adapter.config.target == 150 and adapter.config.average == trained.average
    assert adapter.theta.shape == (2, 2) and ((adapter.theta > 0) & (adapter.theta < 1)).all()
    bundle = load_model(config.model, device="cpu")
    held_back = split_data(Conversations(config.data, config.images, bundle), config).held_back
    averages = []
    for sample in held_back:
        if sample.pixel_values is not None:
            asked = sample.input_ids[: int((sample.labels != -100).nonzero()[0])][None]
            with prune(bundle.model, get_method(f"atp:adapter={trained.adapter}")) as pruned, torch.no_grad():
                bundle.model(input_ids=asked, pixel_values=sample.pixel_values[None])
                averages.append(pruned.trace.tokens_per_layer().mean())
    assert trained.average == pytest.approx(np.mean(averages))


def test_resuming_gives_the_weights_of_an_unbroken_training(home: Path, unbroken: tuple[TrainConfig, Trained]) -> None:
    """From step 2 in the first epoch, and from step 4 in the second."""
    config, _ = unbroken
    for step in (2, 4):
        other = settings(home, output=home / f"resumed-{step}")
        shutil.copytree(config.output / f"checkpoint-{step}", other.output / f"checkpoint-{step}")
        train(other, resume=True)
        same_weights(config, other)


def test_a_killed_training_goes_on(home: Path, unbroken: tuple[TrainConfig, Trained]) -> None:
    config = settings(home, output=home / "killed")
    (home / "killed.yaml").write_text(config.to_yaml())
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", KILLED_IN_STEP_5, str(home / "killed.yaml")], env=env, check=False)
    assert done.returncode == -signal.SIGKILL
    assert last_checkpoint(config.output) == config.output / "checkpoint-4"
    torn = config.output / "checkpoint-5"  # a kill while saving
    torn.mkdir()
    (torn / WEIGHTS).write_bytes(b"half of it")
    assert last_checkpoint(config.output) == config.output / "checkpoint-4"
    with pytest.raises(UserError, match=r"holds checkpoint-4 already; add --resume"):
        train(config)
    assert train(config, resume=True).steps == 6
    same_weights(unbroken[0], config)


def test_going_on_with_other_settings_is_refused(home: Path, unbroken: tuple[TrainConfig, Trained]) -> None:
    with pytest.raises(UserError, match=r"was trained with another lr_lm, target"):
        train(settings(home, output=home / "unbroken", lr_lm=1.0, target=77), resume=True)


def test_a_loss_that_is_no_number_stops_by_name(home: Path) -> None:
    """Warm-up starts from a rate of 0, so step 2 is the first to move the weights, and step 3 the first to fail."""
    config = settings(home, output=home / "broken", lr_lm=1e30, save_steps=1, warmup=0.5)
    with pytest.raises(
        TaskFailure, match=r"the loss is not finite in step 3 .*last good checkpoint is \S*/checkpoint-2, --resume"
    ):
        train(config)
    kept = last_checkpoint(config.output)
    assert kept is not None
    assert all(value.isfinite().all() for value in load_file(kept / WEIGHTS).values())


def test_a_frozen_training_is_small(home: Path) -> None:
    config = settings(
        home, output=home / "frozen", lm="frozen", max_steps=2, bf16=True, checkpointing=True, eval_steps=1
    )
    trained = train(config)
    assert load_adapter(trained.adapter).language_model is None
    saved = load_file(config.output / "checkpoint-2" / WEIGHTS)
    assert {name.split(".")[0] for name in saved} == {"thresholds"}
    assert all(value.dtype == torch.float32 for value in saved.values())
    log = json.loads((config.output / "log.json").read_text())
    assert [line["eval_average_tokens"] for line in log if "eval_loss_lm" in line][-1] == trained.average


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "tinny"}, "unknown model 'tinny'"),
        ({"data": Path("none.json")}, "none.json' does not exist"),
        ({"images": ["none"]}, "image folder 'none' does not exist"),
        ({"options": {"layers": [1, 4]}}, r"options.layers 1-4: .*model has layers 0 to 3"),
        ({"held_back": 18}, "held_back 18 leaves nothing to train on: the data has 18 samples"),
        ({"max_length": 100}, "max_length 100 is too short"),
        ({"output": Path("/proc/none")}, "output '/proc/none' cannot be written"),
    ],
)
def test_what_cannot_work_is_refused(home: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(settings(home, **{"output": home / "refused", **given}))


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_broken_pictures_are_one_clear_line(home: Path, tmp_path: Path, workers: int) -> None:
    """Found while training, also by another process."""
    for picture in home.glob("*.png"):
        (tmp_path / picture.name).write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"^training data .*image cannot be read") as found:
        train(settings(home, output=tmp_path / "out", images=[tmp_path], workers=workers))
    assert "\n" not in str(found.value)


def test_a_reporter_that_is_not_installed_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="report_to: wandb is not installed; pip install wandb"):
        train(settings(home, output=home / "refused", report_to=["wandb"]))


def test_a_batch_that_processes_cannot_share_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(
        UserError,
        match="batch_size 4 cannot be shared out to 3 processes in micro-batches of 1; choose a multiple of 6",
    ):
        train(settings(home, output=home / "refused"))


def test_a_language_model_is_stored_as_its_checkpoint_is(home: Path) -> None:
    write_hub_folder(home / "half", dtype=torch.bfloat16)
    trained = train(settings(home, output=home / "from_half", model=str(home / "half"), max_steps=1))
    language = load_adapter(trained.adapter).language_model
    assert language
    assert {weight.dtype for weight in language.values()} == {torch.bfloat16}
