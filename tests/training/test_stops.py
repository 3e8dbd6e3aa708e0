"""How `atp-eval train` stops, what it leaves behind, and how `--resume` goes on from there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from atp_eval.training import recipe
from atp_eval.training.config import load_train_config
from atp_eval.training.trainer import AtpTrainer
from atp_eval.training.weights import WEIGHTS
from training.command import Command, home, train

__all__ = ["home", "train"]


def test_an_output_that_cannot_be_written_is_refused(train: Command, home: Path) -> None:
    train.refused({"output": "/proc/none"}, "output '/proc/none' cannot be written: No such file or directory")
    train.refused({"output": str(home / "data.json")}, "data.json' cannot be written: File exists; choose another")


@pytest.fixture(scope="module")
def finished(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an unbroken training."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command = Command(home, folder, patch, None)  # type: ignore[arg-type]
        recipe.train(load_train_config(command.write({})))
    return folder / "out"


def test_what_a_training_says(train: Command) -> None:
    code, out, err = train()
    assert code == 0
    assert out.startswith("4 steps, ") and f"Adapter: {train.folder / 'out' / 'adapter'}\n" in out
    assert [line.split(":")[0] for line in err.splitlines()] == [f"step {i}/4" for i in (1, 2, 3, 4)]


def test_a_training_that_is_there_is_not_written_over(train: Command, finished: Path) -> None:
    shutil.copytree(finished, train.folder / "out")
    train.refused(None, "out holds checkpoint-4 already; add --resume, or choose another output")
    changed = "was trained with another lr_heads, target"
    train.refused({"target": 99, "lr_heads": 1.0}, changed, "--resume")


@pytest.mark.parametrize(
    ("file", "gone"),
    [(name, gone) for name in (WEIGHTS, "optimizer.pt", "scheduler.pt") for gone in (False, True)]
    + [("rng_state.pth", False)],  # another number of processes has other files
)
def test_a_damaged_checkpoint_is_named(train: Command, finished: Path, file: str, gone: bool) -> None:
    torn = train.folder / "out" / "checkpoint-2" / file
    shutil.copytree(finished, train.folder / "out", ignore=shutil.ignore_patterns("checkpoint-4"))
    half = torn.read_bytes()[: torn.stat().st_size // 2]
    torn.unlink() if gone else torn.write_bytes(half)
    train.refused(None, "checkpoint-2' cannot be read (", "--resume")


def test_without_the_damaged_checkpoint_the_one_before_goes_on(train: Command, finished: Path) -> None:
    shutil.copytree(finished, train.folder / "out")
    shutil.rmtree(train.folder / "out" / "checkpoint-4")
    code, _, err = train(None, "--resume")
    assert code == 0, err
    same(finished, train.folder / "out")


def same(one: Path, other: Path) -> None:
    """Both trainings ended with the very same adapter."""
    truth, found = (load_file(output / "adapter" / "modules.safetensors") for output in (one, other))
    for name, value in truth.items():
        assert torch.equal(found[name], value), name


def test_a_loss_that_is_no_number_keeps_a_checkpoint_that_goes_on(train: Command, finished: Path) -> None:
    """A fault of the machine, say: once it is gone, the training ends as if it had not been."""
    forward, passes = AtpTrainer._forward, []

    def faulty(self: Any, *args: Any, **kwargs: Any) -> Any:
        passes.append(1)
        found = forward(self, *args, **kwargs)
        return found._replace(loss=found.loss * float("nan")) if len(passes) == 6 else found  # the last of step 3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AtpTrainer, "_forward", faulty)
        code, out, err = train()
    assert (code, out) == (1, "")
    line = err.splitlines()[-1]
    assert line.startswith("atp-eval: the loss is not finite in step 3 (loss_lm nan, ")
    assert f"The last good checkpoint is {train.folder / 'out' / 'checkpoint-2'}, --resume goes on from it. " in line
    assert "lower the learning rates or max_grad_norm, in another output" in line
    kept = load_file(train.folder / "out" / "checkpoint-2" / WEIGHTS)
    assert all(value.isfinite().all() for value in kept.values())
    assert not (train.folder / "out" / "adapter").exists()
    assert train(None, "--resume")[0] == 0
    same(finished, train.folder / "out")


def test_a_gradient_that_is_no_number_stops_by_name(train: Command) -> None:
    code, _, err = train({"lr_biases": 1e38, "lr_heads": 1e38, "lr_z": 1e38, "warmup": 0.5, "max_grad_norm": 1e38})
    assert code == 1
    assert err.splitlines()[-1].startswith("atp-eval: the ") and " is not finite in step " in err


def test_an_interrupted_training_goes_on(train: Command, finished: Path) -> None:
    forward, passes = AtpTrainer._forward, []

    def interrupted(self: Any, *args: Any, **kwargs: Any) -> Any:
        passes.append(1)
        if len(passes) == 6:
            raise KeyboardInterrupt
        return forward(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AtpTrainer, "_forward", interrupted)
        code, _, err = train()
    assert code == 130
    assert err.endswith("atp-eval: interrupted; the same command goes on where it stopped (train: with --resume)\n")
    assert train(None, "--resume")[0] == 0
    same(finished, train.folder / "out")
