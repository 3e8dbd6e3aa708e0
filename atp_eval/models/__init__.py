"""Load a model by name: `tiny`, a folder, or a hub id."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor, LlavaConfig, LlavaForConditionalGeneration
from transformers.utils import cached_file

from atp_eval.engine import ModelGeometry, model_geometry, place_of
from atp_eval.errors import UserError, did_you_mean, unknown
from atp_eval.models.llava import Bundle, PromptStyle
from atp_eval.models.pictures import ImageMode
from atp_eval.models.weights import weight_hash

__all__ = [
    "KNOWN_MODELS",
    "Bundle",
    "ImageMode",
    "ModelGeometry",
    "PromptStyle",
    "load_model",
    "model_config",
    "model_source",
]

KNOWN_MODELS = {
    "tiny": "embedded model, 3.8 M parameters, trained from scratch for the mini-suite; CPU, seconds",
    "llava-hf/llava-1.5-7b-hf": "LLaVA-1.5-7B, 14 GB of weights; a GPU with 24 GB",
    "llava-hf/llava-1.5-13b-hf": "LLaVA-1.5-13B, 27 GB of weights; a GPU with 40 GB",
}
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
STRATEGIES = {"clip_vision_model": "default", "siglip_vision_model": "full"}  # default leaves the first token out
ATTENTIONS = ("sdpa", "eager", "flash_attention_2")


def load_model(
    name: str = "tiny",
    *,
    device: str = "auto",
    dtype: str = "auto",
    attention: str = "sdpa",
    image: ImageMode = "pad",
    prompt: PromptStyle = "hf",
    trust_remote_code: bool = False,
) -> Bundle:
    """Load a LLaVA-1.5 model for evaluation.

    name: `tiny`, a folder in the layout of llava-hf/llava-1.5-7b-hf, or a hub id (looked up in the local cache first;
        downloaded where the network is allowed). Weights are read from safetensors only.
    device: auto (a GPU where there is one), cpu, cuda, cuda:1, mps. dtype: auto is float32 on a CPU and the
        checkpoint's own elsewhere. attention: sdpa, eager or flash_attention_2.
    image: pad to a square (LLaVA-1.5's protocol) or crop (the checkpoint's processor). prompt: hf or vicuna_v1.

    Raises UserError, in one line with the fix, for whatever of this cannot be had.
    """
    for what, value, choices in (
        ("image mode", image, ("pad", "crop")),
        ("prompt", prompt, ("hf", "vicuna_v1")),
    ):
        if value not in choices:
            raise unknown(what, value, choices)
    if trust_remote_code:
        raise UserError("trust_remote_code is not supported: LLaVA models are part of transformers and bring no code")
    where = find_device(device)
    kind = find_dtype(dtype, where)
    check_attention(attention, where, kind)
    source, config = model_source(name), model_config(name)
    if image == "crop" and config.vision_feature_select_strategy == "full":
        raise UserError(f"image mode crop: the SigLIP processor of {name!r} stretches pictures, it crops none; use pad")
    llava: Any = LlavaForConditionalGeneration
    try:
        model, loading = llava.from_pretrained(
            source,
            config=config,
            dtype=kind,
            attn_implementation=attention,
            use_safetensors=True,
            device_map=None if where.type == "cpu" else {"": where},
            ignore_mismatched_sizes=True,  # told of below, by name
            output_loading_info=True,
        )
        processor: Any = AutoProcessor.from_pretrained(source)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot load {name!r}: {_first_line(error)}") from error
    if drawn := sorted({*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])}):
        raise UserError(  # transformers has drawn them at random
            f"cannot load {name!r}: {len(drawn)} tensors that its config.json asks for are missing or of another "
            f"shape, such as {drawn[0]}; copy the whole folder again"
        )
    processor.tokenizer.padding_side = "left"
    return Bundle(
        model=model.eval(),
        processor=processor,
        model_id=name,
        weight_hash=weight_hash(Path(str(cached_file(source, "config.json"))).parent),
        geometry=model_geometry(config, place_of(model)),
        device=where,
        dtype=model.dtype,
        image_mode=image,
        prompt_style=prompt,
    )


def model_source(name: str) -> str:
    """What `from_pretrained` understands: a folder that exists, or a hub id."""
    if name == "tiny":
        from atp_eval.models import tiny

        if not (tiny.folder() / "config.json").is_file():
            raise UserError("the embedded tiny model is not in this installation; train it with: make tiny")
        return str(tiny.folder())
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise UserError(f"{name!r} holds no config.json; give a folder in the layout of llava-hf/llava-1.5-7b-hf")
        return name
    parts = name.split("/")
    if len(parts) != 2 or not all(parts) or name.startswith((".", "~")):
        hint = did_you_mean(name, KNOWN_MODELS)
        raise UserError(f"unknown model {name!r}: no folder of that name, and not a hub id (owner/name). {hint}")
    return name


def model_config(name: str) -> LlavaConfig:
    """The configuration of a model, without its weights.

    Raises UserError where there is none, or no LLaVA's, or its image tokens are not the cells of one grid.
    """
    source = model_source(name)
    try:
        config: Any = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        if Path(source).is_dir():
            raise UserError(f"cannot read the configuration of {name!r}: {_first_line(error)}") from error
        raise UserError(
            f"model {name!r} is not in the local Hugging Face cache and could not be fetched. With a network: "
            f"hf download {name}; without one, copy its folder here and give the path"
        ) from error
    if config.model_type != "llava":
        raise UserError(f"{name!r} is a {config.model_type} model; only llava models (LLaVA-1.5) are supported")
    if not isinstance(config.vision_feature_layer, int):
        raise UserError(f"{name!r} takes image tokens from {config.vision_feature_layer}; only one layer is supported")
    tower, strategy = config.vision_config.model_type, config.vision_feature_select_strategy
    if tower not in STRATEGIES:
        raise UserError(f"{name!r} has a {tower} vision tower; there are {', '.join(STRATEGIES)}")
    if strategy != STRATEGIES[tower]:
        has = "has a CLS token, which is none of the grid" if strategy == "full" else "has no CLS token to leave out"
        raise UserError(
            f"{name!r}: vision_feature_select_strategy={strategy!r} does not fit a {tower} vision tower, which {has}; "
            f"set it to {STRATEGIES[tower]!r} in its config.json"
        )
    return config


def find_device(name: str) -> torch.device:
    """A device by name; `auto` is a GPU where there is one. Raises UserError for one that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise unknown("device", name, ("auto", "cpu", "cuda", "mps")) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {name!r}: no CUDA device is available here; use device cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices, counted from 0")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device {name!r}: no Apple GPU is available here; use device cpu or auto")
    if device.type not in ("cpu", "cuda", "mps"):
        raise unknown("device", name, ("auto", "cpu", "cuda", "mps"))
    return device


def find_dtype(name: str, device: torch.device) -> Any:
    """A torch.dtype, or "auto" for the checkpoint's own. Raises UserError for an unknown one."""
    name = name.removeprefix("torch.")
    name = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "half": "float16"}.get(name, name)
    if name == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if name not in DTYPES:
        raise unknown("dtype", name, ("auto", *DTYPES))
    return DTYPES[name]


def check_attention(attention: str, device: torch.device, dtype: Any) -> None:
    """Raise UserError for an attention implementation that is unknown, or cannot run there."""
    if attention not in ATTENTIONS:
        raise unknown("attention", attention, ATTENTIONS)
    if attention != "flash_attention_2":
        return
    if device.type != "cuda" or importlib.util.find_spec("flash_attn") is None:
        raise UserError("flash_attention_2 needs a CUDA device and the flash-attn package; use attention sdpa")
    if dtype in (torch.float32, torch.float64):
        raise UserError(f"flash_attention_2 needs float16 or bfloat16, not {dtype}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
