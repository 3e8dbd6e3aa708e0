"""A trained ATP as a folder: `config.json`, `modules.safetensors` and `language_model.safetensors` for a trained LM."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atp_eval.errors import UserError
from atp_eval.methods.atp.options import AtpOptions
from atp_eval.methods.atp.thresholds import ThresholdModule

SCHEMA = 1
CONFIG, MODULES, LANGUAGE_MODEL = "config.json", "modules.safetensors", "language_model.safetensors"


class BaseModelId(BaseModel):
    """The model that an adapter was trained on. fingerprint: of its language model and projector (`engine`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    fingerprint: str
    num_layers: int
    grid: tuple[int, int]


class AdapterConfig(BaseModel):
    """`config.json`. target: N_target (Eq. 13); average: what was measured after training; both in visual tokens, as a
    mean over the layers' inputs. budget: an adapter that ships answers to `atp@budget`; None: to its name only.
    training: the settings, for the record."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1] = 1
    base: BaseModelId
    options: AtpOptions
    target: float | None = None
    average: float | None = None
    budget: int | None = None
    language_model: bool = False
    training: dict[str, Any] = {}

    @field_validator("options")
    @classmethod
    def _check(cls, options: AtpOptions, info: ValidationInfo) -> AtpOptions:
        base: BaseModelId | None = info.data.get("base")
        if base is not None and options.layers[-1] >= base.num_layers:
            layers = "-".join(map(str, options.layers))
            raise ValueError(f"layers {layers}: {base.id} has layers 0 to {base.num_layers - 1}")
        return options


@dataclass(frozen=True)
class Adapter:
    """What a pruning ATP needs.

    modules: one for each prune layer. theta: [K, 2], mean theta_r and theta_s of each prune point over training
    samples; counts: [S, K] tokens that stayed in S training samples: what the controls use.
    language_model: the trained weights by their names in the whole model; None where it was frozen.
    """

    config: AdapterConfig
    modules: nn.ModuleList
    theta: Tensor
    counts: Tensor
    language_model: dict[str, Tensor] | None = None

    def to(self, device: torch.device) -> Adapter:
        """On a device; this very adapter where it is there already."""
        if self.theta.device == device:
            return self
        return replace(
            self, modules=self.modules.to(device), theta=self.theta.to(device), counts=self.counts.to(device)
        )

    def digest(self) -> str:
        """12 hex digits of all that was trained; of the language model a few values of every tensor."""
        found = hashlib.sha256()
        language = {name: value.flatten()[:256] for name, value in (self.language_model or {}).items()}
        tensors = {**self.modules.state_dict(), "theta": self.theta, "counts": self.counts, **language}
        for name, tensor in sorted(tensors.items()):
            found.update(name.encode())
            found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()[:12]

    def save(self, folder: Path) -> None:
        """Write the folder. One that is there already is replaced when everything is written; after a kill it holds the
        old adapter, the new one or none, never parts of both."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            f"modules.{name}": tensor.detach().cpu().contiguous() for name, tensor in self.modules.state_dict().items()
        }
        files = {MODULES: {**state, "theta": self.theta.cpu(), "counts": self.counts.cpu()}}
        if self.language_model is not None:
            files[LANGUAGE_MODEL] = {k: v.detach().cpu().contiguous() for k, v in self.language_model.items()}
        building = {name: folder / f"{name}.new" for name in (*files, CONFIG)}
        for name, tensors in files.items():
            write_tensors(tensors, building[name])
        building[CONFIG].write_text(self.config.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (folder / CONFIG).unlink(missing_ok=True)  # without it there is no adapter here
        (folder / LANGUAGE_MODEL).unlink(missing_ok=True)
        for name, path in building.items():
            os.replace(path, folder / name)


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """A safetensors file that others may read, as the umask says; safetensors itself lets nobody but the owner."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path)
    path.chmod(mode)


def new_modules(options: AtpOptions) -> nn.ModuleList:
    """Untrained threshold modules, in fp32."""
    return nn.ModuleList(ThresholdModule(options.hidden, learned_mix=options.learned_mix) for _ in options.layers)


def read_config(folder: Path) -> AdapterConfig:
    """`config.json` of an adapter. Raises UserError for a folder that is none, or of another schema version."""
    path = folder / CONFIG
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"no adapter at {str(folder)!r}: it holds no {CONFIG}. `atp-eval train` makes one") from None
    except ValueError:
        raise UserError(f"{path} is not JSON; the adapter is damaged") from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA:
        raise UserError(f"{path} has schema version {version!r}; this atp-eval reads version {SCHEMA}")
    try:
        return AdapterConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def load_adapter(folder: Path) -> Adapter:
    """Read an adapter folder. Raises UserError, in one line, where a file is missing, damaged or does not fit."""
    config = read_config(folder)
    tensors = _read(folder / MODULES)
    modules = new_modules(config.options)
    state = {name.removeprefix("modules."): t for name, t in tensors.items() if name.startswith("modules.")}
    try:
        modules.load_state_dict(state)
        theta, counts = tensors["theta"], tensors["counts"]
        if theta.shape != (len(modules), 2) or counts.shape[1:] != (len(modules),):
            raise ValueError
    except (RuntimeError, KeyError, ValueError):
        raise UserError(
            f"{folder / MODULES} does not hold what {CONFIG} says: {len(modules)} threshold modules with "
            f"hidden={config.options.hidden}, learned_mix={config.options.learned_mix}, and their statistics"
        ) from None
    language_model = _read(folder / LANGUAGE_MODEL) if config.language_model else None
    return Adapter(config, modules.eval().requires_grad_(False), theta, counts, language_model)


def shipped() -> dict[str, Path]:
    """Adapters that come with the package, by name."""
    home = Path(__file__).parents[2] / "assets" / "adapters"
    return {path.parent.name: path.parent for path in sorted(home.glob(f"*/{CONFIG}"))}


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; the adapter is incomplete") from None
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read ({error}); the adapter is damaged") from None
