"""What a training would take, without doing it: parameters, memory a GPU, steps, tokens; and a look at the data."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import torch
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Column, Table
from transformers import AutoProcessor, LlavaConfig, LlavaForConditionalGeneration

from atp_eval.engine import ModelGeometry, model_geometry
from atp_eval.errors import UserError
from atp_eval.models import Bundle, model_config, model_source
from atp_eval.training.checks import check_files, check_fit
from atp_eval.training.config import TrainConfig
from atp_eval.training.data import Conversations
from atp_eval.training.geometries import TEXT, known_config
from atp_eval.training.model import PruningLlava
from atp_eval.training.recipe import split_data

SAMPLED = 64  # samples whose lengths are looked at
FULL, HALF = 4, 2  # bytes of a number


@dataclass(frozen=True)
class Parameters:
    """Numbers in the model. largest_layer: of one decoder layer; around: everything but the decoder layers."""

    language_model: int
    vision_and_projector: int
    threshold_modules: int
    trainable: int
    largest_layer: int
    around: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.language_model + self.vision_and_projector + self.threshold_modules


MEMORY = ("weights", "gradients", "optimizer", "gathered", "activations")


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU. gathered: weights of other processes that are there for a moment. activations: an estimate."""

    weights: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int

    @property
    def total(self) -> int:
        """Without what CUDA, its libraries and fragmentation take: some 2 GiB more."""
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations


def plan(config: TrainConfig, processes: int = 4) -> dict[str, Any]:
    """A training on `processes` GPUs in figures, for printing. Needs no weights for the models in `geometries.TEXT`.

    Raises UserError for what `train` would refuse: options that do not fit the model, data that cannot be used.
    """
    shares = config.shares(processes)
    shape = find_shape(config.model)
    geometry = model_geometry(shape.config)
    check_fit(config, geometry)
    check_files(config)
    parameters = count(config, shape.config)
    data, tokens = look_at(config, shape.config)
    samples = len(split_data(data, config).training)
    steps = config.max_steps or math.ceil(config.epochs * math.ceil(samples / config.batch_size))
    longest = activations(config, geometry, shares.micro_batch)
    shared = memory(config, parameters, processes, longest)
    whole = memory(config, parameters, 1, longest)
    return {
        "model": shape.told,
        "parameters": asdict(parameters) | {"total": parameters.total},
        "memory_per_gpu": {
            "shared (ZeRO-3, FSDP)": asdict(shared) | {"total": shared.total},
            "whole (DDP)": asdict(whole) | {"total": whole.total},
        },
        "batch": {
            "batch_size": config.batch_size,
            "processes": processes,
            **shares._asdict(),
        },
        "steps": steps,
        "warmup_steps": math.ceil(steps * config.warmup),
        "samples": samples,
        "data": str(data.report),
        "tokens_per_sample": tokens,
        "tokens": None if tokens is None else round(steps * config.batch_size * tokens),
        "visual_tokens": {
            "per_image": geometry.cells,
            "target": config.target,
            "least": geometry.cells * config.options.layers[0] / geometry.num_layers,
            "layers": list(config.options.layers),
        },
        "output": str(config.output),
    }


def plan_table(found: dict[str, Any]) -> RenderableType:
    """What `plan` found, for a terminal."""
    numbers, batch, visual = found["parameters"], found["batch"], found["visual_tokens"]
    length = "no tokenizer here" if found["tokens_per_sample"] is None else f"{found['tokens_per_sample']:.0f} a sample"
    total = "" if found["tokens"] is None else f", {found['tokens'] / 1e6:.1f} M in all"
    head = Table.grid(padding=(0, 2))
    for name, told in (
        ("model", found["model"]),
        ("parameters", f"{numbers['total']:,}, of which trained {numbers['trainable']:,}"),
        ("", f"language model {numbers['language_model']:,}, threshold modules {numbers['threshold_modules']:,}"),
        ("data", found["data"]),
        ("samples", f"{found['samples']:,} to train on"),
        ("tokens", f"{length}{total}"),
        ("visual tokens", f"{visual['per_image']} an image; on average {visual['target']:g} are wanted"),
        ("", f"at least {visual['least']:.1f}: what the layers before the first prune layer make of that average"),
        ("prune layers", "-".join(map(str, visual["layers"]))),
        ("batch", "{batch_size} = {processes} processes x {accumulation} x {micro_batch}".format(**batch)),
        ("steps", f"{found['steps']:,}, the first {found['warmup_steps']:,} to warm up"),
        ("output", found["output"]),
    ):
        head.add_row(f"[bold]{name}", escape(told))
    table = Table("GiB a GPU", *(Column(part, justify="right") for part in (*MEMORY, "total")))
    for way, sizes in found["memory_per_gpu"].items():
        table.add_row(way, *(f"{sizes[part] / 2**30:.1f}" for part in (*MEMORY, "total")))
    note = "Arithmetic; activations are an estimate for the longest samples. CUDA and fragmentation take 2 GiB or more."
    return Group(head, table, note)


class Shape(NamedTuple):
    """A configuration, and what to say about where it is from."""

    config: LlavaConfig
    told: str


def find_shape(name: str) -> Shape:
    """Of a published model from its constants, of any other from its folder or the hub; where there is none, but the
    name holds that of a published one (weights/llava-1.5-7b-stage1), from that."""
    if name in TEXT:
        return Shape(known_config(name), name)
    try:
        return Shape(model_config(name), name)
    except UserError:
        like = [known for known in TEXT if Path(known).name.removesuffix("-hf") in Path(name).name]
        if not like:
            raise
        return Shape(known_config(like[0]), f"{name} (not here; planned in the shape of {like[0]})")


def count(config: TrainConfig, llava: LlavaConfig) -> Parameters:
    """Build the model without memory for its weights, and count."""
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(llava)
    pruning = PruningLlava(model, config.options, trainable=config.lm == "trainable")
    core: Any = model.model

    def numbers(*parts: torch.nn.Module) -> int:
        return sum({id(p): p.numel() for part in parts for p in part.parameters()}.values())

    layers = list(core.language_model.layers)
    return Parameters(
        language_model=numbers(core.language_model, model.lm_head),
        vision_and_projector=numbers(core.vision_tower, core.multi_modal_projector),
        threshold_modules=numbers(pruning.thresholds),
        trainable=sum(p.numel() for p in pruning.parameters() if p.requires_grad),
        largest_layer=max(numbers(layer) for layer in layers),
        around=numbers(pruning) - sum(numbers(layer) for layer in layers),
    )


def memory(config: TrainConfig, parameters: Parameters, processes: int, activations: int) -> Memory:
    """On each of `processes` that share everything out; 1 is a GPU that holds everything."""
    half = config.bf16 and config.lm == "frozen"
    number = HALF if half else FULL
    gathered = (parameters.around + 2 * parameters.largest_layer) * number if processes > 1 else 0  # the next one, too
    return Memory(
        weights=parameters.total * number // processes,
        gradients=parameters.trainable * FULL // processes,
        optimizer=2 * parameters.trainable * FULL // processes,
        gathered=gathered,
        activations=activations,
    )


def activations(config: TrainConfig, geometry: ModelGeometry, micro_batch: int) -> int:
    """Bytes that a micro-batch of the longest sequences leaves for the backward pass: a rough estimate.

    A decoder layer keeps, a token, about 8 vectors of the hidden and 4 of the inner size. With checkpointing only one
    layer does, and the others keep their input. Attention keeps no map.
    """
    number = HALF if config.bf16 else FULL
    first = 0 if config.lm == "trainable" else config.options.layers[0]
    layers = geometry.num_layers - first
    length = config.max_length
    tokens = micro_batch * length
    inside = tokens * (8 * geometry.hidden + 4 * geometry.intermediate) * number
    inputs = layers * tokens * geometry.hidden * FULL
    logits = 3 * micro_batch * (length - geometry.cells) * geometry.vocab * FULL
    return inputs + (1 if config.checkpointing else layers) * inside + max(0, logits)


class NoWords:
    """Stands for a tokenizer that is not here: rows are checked, tokens are not counted."""

    all_special_tokens = ("<s>", "</s>", "<unk>")

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": []}


def look_at(config: TrainConfig, llava: LlavaConfig) -> tuple[Conversations, float | None]:
    """The data, and its mean length in tokens; None where there is no tokenizer here to count with."""
    processor: Any
    try:
        processor = AutoProcessor.from_pretrained(config.model if config.model in TEXT else model_source(config.model))
    except (OSError, ValueError, UserError):
        processor = SimpleNamespace(image_token="<image>", tokenizer=NoWords())
    counts = not isinstance(processor.tokenizer, NoWords)
    bundle = Bundle(
        model=cast(LlavaForConditionalGeneration, None),
        processor=processor,
        model_id=config.model,
        weight_hash="",
        geometry=model_geometry(llava),
        device=torch.device("cpu"),
        dtype=torch.float32,
        image_mode=config.image,
        prompt_style=config.prompt if counts else "vicuna_v1",
    )
    data = Conversations(
        config.data, config.images, bundle, max_length=config.max_length, max_bad_share=config.max_bad_share
    )
    if not counts:
        return data, None
    lengths = [len(data[index].input_ids) for index in range(0, len(data), max(1, len(data) // SAMPLED))]
    return data, sum(lengths) / len(lengths)
