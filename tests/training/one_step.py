"""The gradients of one training step, in one process or, run as a script, in one of several."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from engine.small import PAD
from torch import Tensor
from transformers import TrainerCallback

from atp_eval.training.collate import collate
from atp_eval.training.config import TrainConfig
from atp_eval.training.masks import Estimator
from atp_eval.training.model import PruningLlava
from atp_eval.training.recipe import arguments
from atp_eval.training.trainer import AtpTrainer
from training.small import Talk, options, pruning_llava, samples

# Pictures in the first half only: in two processes, one sees none.
UNEVEN = [
    Talk(3, 5, 4),
    Talk(2, 9, 2),
    Talk(0, 7, 3, False),
    Talk(4, 4, 6),
    *[Talk(0, 4 + i, 1 + i, False) for i in range(4)],
]

CLIP = 0.01


class Catch(TrainerCallback):
    """Copies of the gradients, before the optimizer uses them."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def settings(output: Path, **given: Any) -> TrainConfig:
    """Everything that a step needs; a target that is missed from above."""
    base: dict[str, Any] = {"data": "none.json", "output": output, "options": options(), "target": 5, "lm": "trainable"}
    base |= {"device": "cpu", "max_steps": 1, "batch_size": 8, "micro_batch": 8, "max_grad_norm": 1e12, "clip": CLIP}
    return TrainConfig(**base | {"held_back": 0, "lambda_atp": 0.3, "lambda_target": 0.7} | given)


def trainer(config: TrainConfig, processes: int = 1, talks: Any = UNEVEN, **more: Any) -> AtpTrainer:
    """On fixed samples in their own order."""
    estimator = Estimator(config.estimator, config.temperature, config.clip)
    model: PruningLlava = pruning_llava(config.options, estimator, trainable=config.lm == "trainable")
    args = arguments(config, config.shares(processes))
    args.train_sampling_strategy = "sequential"
    return AtpTrainer(
        model,
        config,
        args=args,
        data_collator=partial(collate, pad=PAD),
        train_dataset=samples(talks),
        **more,
    )


def gradients(output: Path, micro_batch: int, processes: int = 1) -> dict[str, Tensor]:
    """Of one step over all samples, in micro-batches."""
    catch = Catch()
    trainer(settings(output, micro_batch=micro_batch), processes, callbacks=[catch]).train()
    return catch.found


def in_processes(output: Path, processes: int, *micro_batches: int) -> list[dict[str, Tensor]]:
    """The same in several processes (gloo): the gradients of each, for the first micro-batch, the second, and so on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for rank in range(processes):
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        env = os.environ | ranks | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        command = [sys.executable, "-m", "training.one_step", str(output), *map(str, micro_batches)]
        running.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    told = [process.communicate(timeout=300)[0] for process in running]
    assert all(process.returncode == 0 for process in running), "\n".join(told)
    return [torch.load(output / f"{m}-{rank}.pt") for m in micro_batches for rank in range(processes)]


if __name__ == "__main__":
    folder, rank, world = Path(sys.argv[1]), os.environ["RANK"], int(os.environ["WORLD_SIZE"])
    for micro in map(int, sys.argv[2:]):
        torch.save(gradients(folder, micro, world), folder / f"{micro}-{rank}.pt")
