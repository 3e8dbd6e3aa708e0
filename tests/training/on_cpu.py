"""A training under FSDP or ZeRO-3 on CPUs: `accelerate launch --config_file ... -m training.on_cpu settings.yaml`.

accelerate has both for accelerators only; it is told that the CPU is one. ZeRO-3 shares out even the smallest tensor.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from transformers import TrainingArguments

from atp_eval.training import recipe
from atp_eval.training.config import load_train_config
from atp_eval.training.trainer import AtpTrainer

FSDP = os.environ.get("ACCELERATE_USE_FSDP") == "true"


def pretend() -> None:
    """Change accelerate and transformers where they would stop."""
    kind = DistributedType.MULTI_XPU if FSDP else DistributedType.MULTI_CPU
    PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", kind)
    if FSDP:
        PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))
    recipe.TrainingArguments = lambda **given: TrainingArguments(**given | {"use_cpu": False})
    create = AtpTrainer.create_accelerator_and_postprocess

    def share_all(self: Any) -> None:
        create(self)
        if self.is_deepspeed_enabled:
            zero = self.accelerator.state.deepspeed_plugin.deepspeed_config["zero_optimization"]
            zero["stage3_param_persistence_threshold"] = 0

    AtpTrainer.create_accelerator_and_postprocess = share_all


if __name__ == "__main__":
    pretend()
    recipe.train(load_train_config(Path(sys.argv[1])), resume="--resume" in sys.argv)
