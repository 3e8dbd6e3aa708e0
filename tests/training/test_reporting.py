"""What reporters are told: the values of the log, by Trainer's own way; and one line where they fail."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from training.command import Command, home, train

__all__ = ["home", "train"]
Told = list[tuple[int, dict[str, float]]]


def install(patch: pytest.MonkeyPatch, name: str, told: Told, error: Exception | None = None) -> None:
    """A reporter in the place of transformers' own for `name`, whether that package is here or not."""

    class Recorder(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            if error is not None:
                raise error

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            told.append((state.global_step, dict(logs)))

    find = importlib.util.find_spec
    patch.setattr("importlib.util.find_spec", lambda package, *rest: package == name or find(package, *rest))
    patch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, name, Recorder)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_reporter_is_told_what_the_log_holds(train: Command, name: str) -> None:
    """Trainer makes its reporters by these names, and calls them with each log line."""
    told: Told = []
    install(train.monkeypatch, name, told)
    code, _, err = train({"report_to": [name], "max_steps": 2})
    assert code == 0, err
    log = json.loads((train.folder / "out" / "log.json").read_text())
    steps = [(line.pop("step"), line) for line in log if "loss_lm" in line]
    assert [line for line in told if "loss_lm" in line[1]] == steps
    wanted = {"loss", "loss_lm", "loss_atp", "loss_target", "average_tokens", "rescued", "grad_norm_modules"}
    wanted |= {f"{what}_{layer}" for what in ("tokens", "theta_r", "theta_s") for layer in (1, 2)}
    assert wanted <= steps[0][1].keys()


def test_a_reporter_that_fails_is_one_line(train: Command, home: Path) -> None:
    error = type("UsageError", (Exception,), {"__module__": "wandb.errors"})("No API key configured.\nMore of it.")
    install(train.monkeypatch, "wandb", [], error)
    train.refused({"report_to": ["wandb"]}, "atp-eval: report_to: wandb: No API key configured.\n")
