"""The settings of a run: one typed place, from the command line, a YAML file, or both.

This module and what it imports stay light, so that `atp-eval --help` answers at once.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from atp_eval.errors import UserError, did_you_mean

DEFAULT_METHODS = ["upper_bound", "fastv@144", "random@144", "grid@144"]
TINY_METHODS = ["upper_bound", "atp@144", *DEFAULT_METHODS[1:]]  # an adapter for atp@144 ships for tiny only
DEFAULT_TASKS = ["gqa", "mmb", "mme", "pope", "seed", "sqa", "vqav2"]
KINDS = {  # pydantic's words for these are Python's
    "list_type": "input should be a list, such as [a, b]",
    "tuple_type": "input should be a list, such as [a, b]",
    "model_type": "input should be keys with values, such as `layers: [1, 3]`",
}


def _batch_size(given: Any) -> Any:
    """A number, or `auto`: by the memory that is free."""
    if given == AUTO or (isinstance(given, int) and not isinstance(given, bool)) or str(given).isdigit():
        return given if given == AUTO else int(given)
    raise PydanticCustomError("batch_size", "input should be a whole number of at least 1, or auto")


AUTO: Literal["auto"] = "auto"
BatchSize = Annotated[Annotated[int, Field(ge=1)] | Literal["auto"], BeforeValidator(_batch_size)]


class RunConfig(BaseModel):
    """Everything that `atp-eval run` can be told. Field names are the YAML keys and, with dashes, the options."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    tasks: list[str] = Field(default=DEFAULT_TASKS, min_length=1)
    methods: list[str] = Field(default=DEFAULT_METHODS, min_length=1)
    model: str = "tiny"
    suite: Literal["auto", "mini", "real"] = "auto"
    limit: int | None = Field(default=None, ge=1)
    batch_size: BatchSize = 16
    output: Path | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    image: Literal["pad", "crop"] = "pad"
    prompt: Literal["hf", "vicuna_v1"] = "hf"
    seed: int = Field(default=0, ge=0)
    keep_images: int = Field(default=24, ge=0)
    share_pictures: bool = True
    decode: Literal["plain", "graph", "compiled"] = "plain"
    loaders: int = Field(default=2, ge=0, le=64)
    cache_features: Path | None = None
    cache_features_gb: float = Field(default=20.0, gt=0)
    resume: bool = True

    @model_validator(mode="before")
    @classmethod
    def _default_methods(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "methods" in given:
            return given
        return {**given, "methods": TINY_METHODS if given.get("model", "tiny") == "tiny" else DEFAULT_METHODS}

    @property
    def resolved_suite(self) -> Literal["mini", "real"]:
        """The mini-suite for the embedded model, the real benchmarks for every other one, unless said otherwise."""
        if self.suite != "auto":
            return self.suite
        return "mini" if self.model == "tiny" else "real"

    def protocol_options(self) -> dict[str, Any]:
        """What must be equal for two runs to be comparable, as far as the configuration decides it."""
        return {
            "model": self.model,
            "suite": self.resolved_suite,
            "dtype": self.dtype,
            "attention": self.attention,
            "image": self.image,
            "prompt": self.prompt,
            "seed": self.seed,
        }

    def run_folder(self) -> Path:
        """The output folder; by default one for each model and protocol, so that the same command goes on in it."""
        if self.output is not None:
            return self.output
        digest = hashlib.sha256(json.dumps(self.protocol_options(), sort_keys=True).encode()).hexdigest()[:6]
        return Path("runs") / f"{Path(self.model).name}-{self.resolved_suite}-{digest}"

    def to_yaml(self) -> str:
        """The settings as YAML that `--config` reads."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False)


def load_config(path: Path) -> dict[str, Any]:
    """The keys of a run.yaml, checked by name. Raises UserError with the line of an unknown key or bad value."""
    return read_settings(path, RunConfig)


def read_settings(path: Path, model: type[BaseModel]) -> dict[str, Any]:
    """The keys of a YAML file that a settings class takes. Raises UserError with the line of what is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read settings {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"cannot read settings {path}: it is not UTF-8 text. Save it as UTF-8.") from None
    try:
        node, data = yaml.compose(text), yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where} is not YAML: {getattr(error, 'problem', error)}.") from None
    data = {} if data is None else data
    if not isinstance(data, dict) or not (node is None or isinstance(node, yaml.MappingNode)):
        raise UserError(f"{path} must hold `key: value` lines, such as `model: tiny`.")
    try:
        model.model_validate(data)
    except ValidationError as error:
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # it may be the missing one
        raise UserError(f"{path}:{_line(node, first['loc'])}: {describe(first, model)}") from None
    return data


def _line(node: yaml.Node | None, place: tuple[int | str, ...]) -> int:
    """The line of a setting, by its keys; that of the nearest key around it where it is not there."""
    line = node.start_mark.line + 1 if node else 1
    for name in place:
        if not isinstance(node, yaml.MappingNode):
            break
        found = [(key, value) for key, value in node.value if key.value == str(name)]
        if not found:
            break
        line, node = found[0][0].start_mark.line + 1, found[0][1]
    return line


def make_config(**settings: Any) -> RunConfig:
    """A RunConfig from options that were given (None: not given). Raises UserError for a bad value."""
    try:
        return RunConfig.model_validate({k: v for k, v in settings.items() if v is not None})
    except ValidationError as error:
        raise UserError(describe(error.errors()[0], option=True)) from None


def describe(error: Any, model: type[BaseModel] = RunConfig, option: bool = False) -> str:
    """One line about a pydantic error: the setting (as an option of the command line if asked), the value and what it
    must be."""
    place = [part for part in error["loc"] if isinstance(part, str)]
    name = ".".join(place)
    if error["type"] == "extra_forbidden":
        return f"unknown key {name!r}. {did_you_mean(place[-1], _fields(model, place[:-1]))}"
    if error["type"] == "missing":
        return f"{name} is missing."
    message = KINDS.get(error["type"], error["msg"].removeprefix("Value error, "))
    message = f"{message[0].lower()}{message[1:]}."
    if error["type"] == "value_error":
        return message
    shown = "--" + place[0].replace("_", "-") if option else name
    return f"{shown} = {error['input']!r}: {message}"


def _fields(model: type[BaseModel], place: list[str]) -> list[str]:
    """The keys that a settings class, or one inside it, knows."""
    for name in place:
        inner = model.model_fields[name].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            model = inner
    return list(model.model_fields)
