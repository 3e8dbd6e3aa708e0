"""Train the threshold modules of ATP-LLaVA, alone or with the language model, and write an adapter."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from rich.console import Console
from torch.utils.data import Subset
from transformers import PrinterCallback, TrainingArguments, set_seed

from atp_eval.engine import model_geometry
from atp_eval.engine.fingerprint import fingerprint
from atp_eval.errors import UserError
from atp_eval.methods.atp import Adapter, AdapterConfig, BaseModelId, new_modules
from atp_eval.models import Bundle, load_model, model_config
from atp_eval.training.checks import check_files, check_fit, check_start, prepare, world_size
from atp_eval.training.collate import collate
from atp_eval.training.config import Shares, TrainConfig
from atp_eval.training.data import Conversations
from atp_eval.training.masks import Estimator
from atp_eval.training.model import PruningLlava
from atp_eval.training.progress import Moving
from atp_eval.training.trainer import AtpTrainer
from atp_eval.training.weights import base_name, trained, whole

LOG = "log.json"


class Trained(NamedTuple):
    """The adapter's folder, the steps that were made, and the average of tokens on held-back samples (None without)."""

    adapter: Path
    steps: int
    average: float | None


class Split(NamedTuple):
    """Samples to train on and samples held back, apart; some of the first kind, all with a picture, for the adapter's
    statistics."""

    training: Any
    held_back: Any
    statistics: Any


def train(config: TrainConfig, resume: bool = False, console: Console | None = None) -> Trained:
    """Train, measure, save. Started by `accelerate launch` or `torchrun`, every process calls this.

    resume: go on from the last checkpoint in `config.output`; from the start where there is none yet.

    Raises UserError for settings, data or a folder that cannot be used, and NotFinite, a TaskFailure, where the loss or
    its gradient is no number any more.
    """
    console = console or Console(file=sys.stderr)
    check_start(config)
    check_fit(config, model_geometry(model_config(config.model)))
    check_files(config)
    checkpoint = prepare(config, resume)

    set_seed(config.seed)
    bundle = load(config)
    geometry = bundle.geometry
    base = BaseModelId(
        id=config.model, fingerprint=fingerprint(bundle.model), num_layers=geometry.num_layers, grid=geometry.grid
    )
    data = Conversations(
        config.data, config.images, bundle, max_length=config.max_length, max_bad_share=config.max_bad_share
    )
    split = split_data(data, config)
    model = PruningLlava(
        bundle.model,
        config.options,
        Estimator(config.estimator, config.temperature, config.clip),
        trainable=config.lm == "trainable",
        checkpointing=config.checkpointing,
    )

    moving = Moving(console)
    trainer = AtpTrainer(
        model,
        config,
        args=arguments(config, config.shares(world_size())),
        data_collator=partial(collate, pad=bundle.tokenizer.pad_token_id),
        train_dataset=split.training,
        eval_dataset=split.held_back,
        callbacks=[moving],
    )
    trainer.remove_callback(PrinterCallback)
    with told_in_a_line(config, data):
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            moving.stop()
        average = save(trainer, config, base, data, split)
    return Trained(config.adapter, trainer.state.global_step, average)


@contextmanager
def told_in_a_line(config: TrainConfig, data: Conversations) -> Iterator[None]:
    """Inside the block errors of others become ours: a reporter's, and a DataLoader worker's, which holds a traceback.

    What is wrong with the data is known here, too, so that it is told again in the data's own words.
    """
    try:
        yield
    except UserError:
        data.check()
        raise
    except Exception as error:
        reporter = type(error).__module__.partition(".")[0]
        if reporter not in config.report_to:
            raise
        first = str(error).strip().partition("\n")[0]
        raise UserError(f"report_to: {reporter}: {first}") from error


def load(config: TrainConfig) -> Bundle:
    """The base model on the CPU: Trainer moves it. What is trained is in fp32, what is not in bf16 if asked for."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # what its warnings are about is refused or meant
    half = config.bf16 and config.lm == "frozen"
    return load_model(
        config.model,
        device="cpu",
        dtype="bfloat16" if half else "float32",
        image=config.image,
        prompt=config.prompt,
    )


def split_data(data: Conversations, config: TrainConfig) -> Split:
    """Hold back whole pictures, drawn by the seed, until they have `held_back` samples: no picture lies on both sides.

    Raises UserError where nothing would be left to train on, or nothing with a picture.
    """
    generator = torch.Generator().manual_seed(config.seed)
    pictures = torch.from_numpy(data.pictures).unique(return_inverse=True)[1]
    drawn = torch.randperm(int(pictures.max()) + 1, generator=generator)[pictures]  # the turn of each sample's picture
    order = drawn.argsort(stable=True)
    upto = drawn.bincount().cumsum(0)
    held = int(upto[upto >= config.held_back][:1].sum()) if config.held_back else 0
    if held == len(data) or config.held_back > len(data):
        raise UserError(f"held_back {config.held_back} leaves nothing to train on: the data has {len(data)} samples")
    rest = order[held:]
    seen = rest[torch.from_numpy(data.pictured)[rest]]
    if not len(seen):
        raise UserError(f"no sample to train on has an image in {str(config.data)!r}: there is nothing to prune")
    spread = seen[torch.randperm(len(seen), generator=generator)[: config.statistics]]
    return Split(
        training=Subset(data, rest.sort().values.tolist()),
        held_back=Subset(data, order[:held].tolist()) if held else None,
        statistics=Subset(data, spread.tolist()),
    )


def arguments(config: TrainConfig, shares: Shares) -> TrainingArguments:
    """Our settings in transformers' words."""
    schedule = {"constant": "constant_with_warmup"}.get(config.schedule, config.schedule)
    return TrainingArguments(
        output_dir=str(config.output),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=shares.micro_batch,
        per_device_eval_batch_size=shares.micro_batch,
        gradient_accumulation_steps=shares.accumulation,
        lr_scheduler_type=schedule,
        warmup_steps=config.warmup,
        max_grad_norm=config.max_grad_norm,
        use_cpu=config.device == "cpu" or not torch.accelerator.is_available(),
        seed=config.seed,
        data_seed=config.seed,
        dataloader_num_workers=config.workers,
        dataloader_multiprocessing_context="spawn" if config.workers else None,  # a fork can hang after threads
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if config.eval_steps and config.held_back else "no",
        eval_steps=config.eval_steps,
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=config.keep_checkpoints,
        report_to=list(config.report_to) or "none",
        disable_tqdm=True,
    )


def save(
    trainer: AtpTrainer, config: TrainConfig, base: BaseModelId, data: Conversations, split: Split
) -> float | None:
    """Write the adapter and the log; returns the average of tokens on the held-back samples. A language model is stored
    with the precision of the checkpoint that it comes from."""
    statistics = trainer.measure(split.statistics)
    held_back = trainer.measure(split.held_back) if split.held_back else None
    average = None
    if held_back is not None and len(held_back.counts):
        average = trainer.averages(held_back.counts.double()).mean().item()
    main = trainer.is_world_process_zero()
    weights = {}
    for name, parameter in trained(trainer.pruning):
        value = whole(parameter)
        if main:
            weights[name] = value
    if not main:
        return average
    modules = new_modules(config.options)
    modules.load_state_dict(
        {n.removeprefix("thresholds."): w for n, w in weights.items() if n.startswith("thresholds.")}
    )
    dtype = model_config(config.model).dtype or torch.float32
    language = {base_name(n): w.to(dtype) for n, w in weights.items() if not n.startswith("thresholds.")}
    found = AdapterConfig(
        base=base,
        options=config.options,
        target=config.target,
        budget=config.budget,
        average=average,
        language_model=bool(language),
        training={
            **config.model_dump(mode="json", exclude={"options", "model"}),
            "steps": trainer.state.global_step,
            "samples": {"rows": data.report.rows, "unusable": data.report.bad_rows},
        },
    )
    Adapter(found, modules, statistics.theta.mean(0), statistics.counts, language or None).save(config.adapter)
    (config.output / LOG).write_text(json.dumps(trainer.state.log_history, indent=1) + "\n", encoding="utf-8")
    return average
