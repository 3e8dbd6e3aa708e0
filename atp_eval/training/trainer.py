"""transformers' Trainer with the losses of ATP-LLaVA, the modules' learning rates, and small checkpoints.

Loop, schedule, accumulation, mixed precision, distribution and reporting are transformers' and accelerate's.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import Trainer

from atp_eval.errors import TaskFailure
from atp_eval.training.collate import IGNORED
from atp_eval.training.config import TrainConfig
from atp_eval.training.losses import average_tokens, l_atp, l_target, processes, share
from atp_eval.training.masks import Raw
from atp_eval.training.model import Passed, PruningLlava
from atp_eval.training.tally import Tally
from atp_eval.training.weights import last_checkpoint, load_checkpoint, reading, save_checkpoint, trained


class NotFinite(TaskFailure):
    """A loss or a gradient is NaN or infinite. It reaches no checkpoint, and no weight, except that DeepSpeed steps
    before it tells of a gradient."""


class Totals(NamedTuple):
    """Of a whole step, over all processes and micro-batches: answer tokens, and samples with an image."""

    answers: Tensor
    images: Tensor


class Measured(NamedTuple):
    """Samples under hard masks: the language loss an answer token; of the S samples with an image theta [S, K, 2], and
    counts [S, K], the tokens that stay."""

    loss: float
    theta: Tensor
    counts: Tensor


class AtpTrainer(Trainer):
    """Trains a `PruningLlava`; `config` says what transformers does not know of."""

    def __init__(self, model: PruningLlava, config: TrainConfig, **options: Any) -> None:
        self.config = config
        self.pruning = model  # Trainer replaces its own `model` by a wrap under FSDP
        super().__init__(model=model, **options)
        self.model_accepts_loss_kwargs = True  # compute_loss divides by the counts of the whole step
        model.masks.weight = processes() / config.batch_size
        self._earlier: list[list[Raw]] = []  # scores of the micro-batches of this step so far
        self._tally = Tally()

    def create_accelerator_and_postprocess(self) -> None:
        """DeepSpeed has an autocast of its own, in which weights stay fp32, unlike in its bf16 mode."""
        super().create_accelerator_and_postprocess()
        if self.is_deepspeed_enabled:
            state: Any = self.accelerator.state
            autocast = {"enabled": self.config.bf16, "dtype": "bfloat16", "lower_precision_safe_modules": []}
            state.deepspeed_plugin.deepspeed_config["torch_autocast"] = autocast

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW without weight decay, with a learning rate for each group of parameters."""
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(parameter_groups(model or self.pruning, self.config), weight_decay=0.0)
        return self.optimizer

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Any:
        """Trainer asks before the first micro-batch of a step, with all of them."""
        answers = sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in batch_samples)
        images = sum(len(batch.get("pixel_values", ())) for batch in batch_samples)
        counts = torch.tensor([answers, images], dtype=torch.float32, device=device)
        return Totals(*self.accelerator.reduce(counts, "sum"))

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """L = L_ntp + lambda_ATP * L_ATP + lambda_target * L_target (Eq. 14): this process's part of a global mean.

        L_ATP and L_target come with the last micro-batch of a step, over the whole step: the tokens of the earlier ones
        are decided again from their scores, which costs next to nothing, since scores take no gradient. So accumulation
        gives the gradients of one large batch.
        """
        totals: Totals = num_items_in_batch
        complete = self.accelerator.sync_gradients
        earlier = [Raw(*map(torch.cat, zip(*raws, strict=True))) for raws in zip(*self._earlier, strict=True)]
        passed = self._forward(model, inputs, earlier if complete and earlier else None)
        assert passed.loss is not None
        loss = share(passed.loss, totals.answers)
        parts = {"loss_lm": loss}
        self._tally.micro_batch(passed, self.pruning.options.layers, totals.images)
        if complete:
            self._earlier = []
            parts |= self._budget(passed.tokens, totals.images)
            loss = loss + self.config.lambda_atp * parts["loss_atp"]
            loss = loss + self.config.lambda_target * parts["loss_target"]
            self._tally.step(totals.images)
        else:
            self._earlier.append(passed.scores)
        self._check(loss, parts)
        for name, value in parts.items():
            self._tally.add(name, value)
        return (loss, passed) if return_outputs else loss

    def _forward(self, model: Any, inputs: dict[str, Any], earlier: list[Raw] | None = None) -> Passed:
        """In bf16 where that is asked for; a cache would hold a second copy of weights that are used once."""
        device = self.args.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.config.bf16, cache_enabled=False):
            return model(**inputs, earlier=earlier)

    def _budget(self, tokens: Tensor, images: Tensor) -> dict[str, Tensor]:
        """L_ATP, L_target and N-bar; `tokens` [samples of this process in the step, K]."""
        atp = share(l_atp(tokens, self.pruning.options.layers, self.pruning.geometry.cells).sum(), images)
        target = l_target(self.averages(tokens), self.config.target, images)
        return {"loss_atp": atp, "loss_target": target.loss, "average_tokens": target.mean}

    def averages(self, tokens: Tensor) -> Tensor:
        """[S]: mean over the layers of the visual tokens that enter them, from `tokens` [S, K]."""
        geometry = self.pruning.geometry
        return average_tokens(tokens, self.pruning.options.layers, geometry.num_layers, geometry.cells)

    def _check(self, loss: Tensor, parts: dict[str, Tensor]) -> None:
        """Stop all processes if the loss of one is not finite."""
        bad = self.accelerator.reduce((~loss.detach().isfinite()).float().reshape(1), "sum")
        if bad.item():
            values = ", ".join(f"{name} {value.item():.4g}" for name, value in parts.items())
            raise NotFinite(f"the loss is not finite in step {self.state.global_step + 1} ({values}). {self._advice()}")

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Also logs the norm of the threshold modules, and stops before a gradient that is not finite reaches them."""
        own = [p.grad for p in self.pruning.thresholds.parameters() if p.grad is not None]
        if own:  # DeepSpeed has taken its steps, and the gradients away, by now
            norm = nn.utils.get_total_norm(own)
            self._tally.add("grad_norm_modules", norm.full_tensor() if isinstance(norm, DTensor) else norm)
        total = super()._clip_grad_norm(model)
        if not math.isfinite(float(total)):
            raise NotFinite(f"the gradient is not finite in step {self.state.global_step + 1}. {self._advice()}")
        return total

    def _advice(self) -> str:
        good = last_checkpoint(Path(str(self.args.output_dir)))
        kept = f"The last good checkpoint is {good}, --resume goes on from it" if good else "There is no checkpoint yet"
        return f"{kept}. If this comes again, lower the learning rates or max_grad_norm, in another output"

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds our own means to the training's log lines."""
        if "loss" in logs:
            logs |= self._tally.means(lambda values: self.accelerator.reduce(values, "mean"))
        super().log(logs, start_time)

    @torch.no_grad()
    def measure(self, dataset: Any) -> Measured:
        """Run samples through the model as it is. Every process gets the whole result; some samples count twice where
        they cannot be shared out evenly."""
        model: Any = self.model_wrapped
        model.eval()
        mine = []
        for inputs in self.get_eval_dataloader(dataset):
            passed = self._forward(model, self._prepare_inputs(inputs))
            assert passed.loss is not None
            answers = int((inputs["labels"][:, 1:] != IGNORED).sum())
            mine.append((passed.loss.item(), answers, passed.theta.float().cpu(), passed.tokens.long().cpu()))
        model.train()
        losses, answered, theta, tokens = zip(*gather_object(mine), strict=True)
        return Measured(sum(losses) / max(1, sum(answered)), torch.cat(theta), torch.cat(tokens))

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Language loss and average of tokens on the held-back samples."""
        found = self.measure(eval_dataset)
        metrics = {f"{metric_key_prefix}_loss_lm": found.loss}
        if len(found.counts):
            metrics[f"{metric_key_prefix}_average_tokens"] = self.averages(found.counts.double()).mean().item()
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """What is trained, nothing else. DeepSpeed and FSDP save theirs together with the optimizer's state."""
        if self.args.should_save and not (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            save_checkpoint(self.pruning, Path(output_dir or str(self.args.output_dir)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with reading(Path(resume_from_checkpoint)):
            if self.is_fsdp_enabled:
                super()._load_from_checkpoint(resume_from_checkpoint, model)
            else:
                load_checkpoint(self.pruning, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with reading(Path(str(checkpoint))):
            if checkpoint and not (self.is_deepspeed_enabled or self.is_fsdp_enabled):
                for file in ("optimizer.pt", "scheduler.pt"):  # transformers goes on without them
                    Path(checkpoint, file).stat()
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with reading(Path(str(checkpoint))):
            super()._load_rng_state(checkpoint)


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """What is trained by its learning rate: the first matrix of the modules, their heads, their biases (with the
    learned mix), the language model. The 1152 inputs of the first matrix add up, so it takes small steps."""
    groups: dict[str, list[nn.Parameter]] = {"z": [], "heads": [], "biases": [], "lm": []}
    for name, parameter in trained(model):
        own, _, kind = name.partition("thresholds.")[2].rpartition(".")
        if not own:
            groups["lm"].append(parameter)
        elif kind != "weight":
            groups["biases"].append(parameter)
        else:
            groups["z" if own.endswith(".z") else "heads"].append(parameter)
    rates = {"z": config.lr_z, "heads": config.lr_heads, "biases": config.lr_biases, "lm": config.lr_lm}
    return [{"params": group, "lr": rates[name]} for name, group in groups.items() if group]
