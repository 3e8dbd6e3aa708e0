"""The settings of a training: one typed place, read from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from atp_eval.config import describe, read_settings
from atp_eval.errors import UserError
from atp_eval.methods.atp.options import AtpOptions

CHANGEABLE = {"output", "save_steps", "keep_checkpoints", "logging_steps", "eval_steps", "workers", "report_to"}


class Shares(NamedTuple):
    """How a step is shared out: samples a process and forward pass, and forward passes of a process in a step."""

    micro_batch: int
    accumulation: int


class TrainConfig(BaseModel):
    """Everything that `atp-eval train` can be told. Field names are the YAML keys.

    model: as for `atp-eval run`. data: a file in LLaVA's format; images: folders that its pictures are looked for in.
    output: folder of checkpoints, curves and, in the end, the adapter (`output/adapter`). options: see `AtpOptions`.

    lm: whether the language model learns, too (Tab. 3). target: N_target in tokens, lambda_target, lambda_atp: weights
    of the losses (Eq. 13, 14; L_target counts in tokens). budget: `atp@budget` finds the adapter where it ships.
    estimator, temperature, clip: see `Estimator`.

    lr_*: learning rates of the language model, and of the modules' first matrix, heads and biases; the paper has one,
    1e-4, for all of a module. warmup: a share of the steps. epochs, or max_steps where that is given.
    batch_size: samples a step, over all processes; micro_batch: at most so many a process and forward pass. What is
    left is gradient accumulation. checkpointing: compute activations twice to save memory. bf16: autocast; the
    thresholds and all trained weights stay fp32.

    held_back: samples that are not trained on, at least so many, since all that share a picture go together. The
    average of tokens is measured on those with an image among them, also every eval_steps. statistics: training samples
    with an image, for the thresholds' means and counts in the adapter.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = "tiny"
    data: Path
    images: tuple[Path, ...] = ()
    output: Path
    options: AtpOptions

    lm: Literal["frozen", "trainable"] = "frozen"
    target: float = Field(gt=0)
    budget: int | None = Field(default=None, ge=1)
    lambda_atp: float = Field(default=0.1, ge=0)
    lambda_target: float = Field(default=0.2, ge=0)
    estimator: Literal["straight_through", "sigmoid"] = "straight_through"
    temperature: float = Field(default=20.0, gt=0)
    clip: float = Field(default=0.05, gt=0, allow_inf_nan=True)

    lr_lm: float = Field(default=2e-5, ge=0)
    lr_z: float = Field(default=1.6e-4, ge=0)
    lr_heads: float = Field(default=2.4e-3, ge=0)
    lr_biases: float = Field(default=2e-2, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(default=0.03, ge=0, lt=1)
    epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=128, ge=1)
    micro_batch: int = Field(default=8, ge=1)
    max_grad_norm: float = Field(default=1.0, gt=0, allow_inf_nan=True)
    bf16: bool = False
    checkpointing: bool = False
    device: Literal["auto", "cpu"] = "auto"
    seed: int = Field(default=0, ge=0)

    max_length: int = Field(default=2048, ge=8)
    max_bad_share: float = Field(default=0.01, ge=0, le=1)
    prompt: Literal["hf", "vicuna_v1"] = "hf"
    image: Literal["pad", "crop"] = "pad"
    workers: int = Field(default=0, ge=0)
    held_back: int = Field(default=256, ge=0)
    statistics: int = Field(default=512, ge=1)
    eval_steps: int | None = Field(default=None, ge=1)
    save_steps: int = Field(default=500, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    logging_steps: int = Field(default=10, ge=1)
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ()

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if self.options.positions == "2d" and self.lm == "frozen":
            raise ValueError("options.positions=2d renumbers the image, which a frozen lm never learned; use 1d")
        if self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of micro_batch {self.micro_batch}")
        return self

    @property
    def adapter(self) -> Path:
        """Where the trained adapter goes."""
        return self.output / "adapter"

    def shares(self, processes: int) -> Shares:
        """A step, shared out. Raises UserError where the batch does not come out even."""
        if processes < 1:
            raise UserError(f"{processes} processes cannot train; give 1 or more")
        micro_batch = min(self.micro_batch, max(1, self.batch_size // processes))
        accumulation, rest = divmod(self.batch_size, micro_batch * processes)
        if rest:
            raise UserError(
                f"batch_size {self.batch_size} cannot be shared out to {processes} processes in micro-batches of "
                f"{micro_batch}; choose a multiple of {self.micro_batch * processes}, or another micro_batch"
            )
        return Shares(micro_batch, accumulation)

    def to_yaml(self) -> str:
        """The settings as YAML that `load_train_config` reads."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False)

    def changed(self, other: TrainConfig) -> list[str]:
        """Settings that differ and that weights depend on: with them, a training cannot go on as the other one."""
        fields = TrainConfig.model_fields.keys() - CHANGEABLE
        return sorted(name for name in fields if getattr(self, name) != getattr(other, name))


def load_train_config(path: Path) -> TrainConfig:
    """Read a training's YAML file. Raises UserError with the line of an unknown key or bad value."""
    return TrainConfig.model_validate(read_settings(path, TrainConfig))


def with_changes(config: TrainConfig, **changes: Any) -> TrainConfig:
    """The settings with some replaced (None: not given). Raises UserError for a bad value."""
    given = {name: value for name, value in changes.items() if value is not None}
    try:
        return TrainConfig.model_validate({**config.model_dump(), **given})
    except ValidationError as error:
        raise UserError(describe(error.errors()[0], TrainConfig)) from None
