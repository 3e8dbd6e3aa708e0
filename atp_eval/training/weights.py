"""The weights that a training changes: by name, in full where processes share them out, and in checkpoints."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from atp_eval.errors import UserError
from atp_eval.methods.atp.adapter import write_tensors

WEIGHTS = "trainable.safetensors"
STATE = "trainer_state.json"  # transformers writes it last
WRAPPED = re.compile(r"(\.layers\.\d+)\.layer\.")


def trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that learn, by name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def base_name(name: str) -> str:
    """The name in the base model of a parameter of `PruningLlava`."""
    return WRAPPED.sub(r"\1.", name.removeprefix("model."))


def whole(parameter: nn.Parameter) -> Tensor:
    """A copy on the CPU of a parameter, gathered from all processes where they share it out (FSDP, ZeRO-3).

    A collective call: every process has to make it.
    """
    value: Any = parameter.detach()
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if hasattr(parameter, "ds_id"):  # DeepSpeed ZeRO-3 has put an empty tensor in its place
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().cpu().clone()
    return value.cpu().clone()


def save_checkpoint(model: nn.Module, folder: Path) -> None:
    """Write what is trained, nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors({name: p.detach().cpu().contiguous() for name, p in trained(model)}, folder / WEIGHTS)


@contextmanager
def reading(checkpoint: Path) -> Iterator[None]:
    """Inside the block a file of the checkpoint that is missing or cannot be read is a UserError."""
    try:
        yield
    except (OSError, EOFError, KeyError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        told = str(error).strip().partition("\n")[0]
        raise UserError(
            f"checkpoint {str(checkpoint)!r} cannot be read ({told}); if it is damaged, delete it: --resume goes on "
            "from the one before it"
        ) from error


def load_checkpoint(model: nn.Module, folder: Path) -> None:
    """Read what `save_checkpoint` wrote. Raises KeyError where the model learns something else."""
    saved = load_file(folder / WEIGHTS)
    with torch.no_grad():
        for name, parameter in trained(model):
            parameter.copy_(saved[name])


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; a kill can leave a torn one behind."""
    steps = [(int(path.name.split("-")[1]), path) for path in folder.glob("checkpoint-*") if _is_whole(path)]
    return max(steps)[1] if steps else None


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return checkpoint.name.removeprefix("checkpoint-").isdigit()
