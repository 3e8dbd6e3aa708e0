"""What an ablation compares: rows that are trained or fixed, and the rows of the paper's table that they answer to."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from atp_eval.config import describe, read_settings
from atp_eval.errors import UserError, unknown
from atp_eval.paper import PrintedRow, printed_row
from atp_eval.paths import data_folder
from atp_eval.training.config import CHANGEABLE, TrainConfig, load_train_config

ELSEWHERE = CHANGEABLE | {"data", "images", "budget"}  # settings that say where things lie, not what is trained


class Row(BaseModel):
    """One row. Either `method`, a spec that needs no training, or `training`, what it changes of the shared settings
    (keys of `TrainConfig`, `options` merged key by key); `parameters` are then added to its spec.

    paper: keys that find its row in the paper's table.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    method: str | None = None
    training: dict[str, Any] | None = None
    parameters: dict[str, str | float] = {}
    paper: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check(self) -> Row:
        if (self.method is None) == (self.training is None):
            raise ValueError(f"row {self.name!r} needs either a method or a training")
        if self.parameters and self.training is None:
            raise ValueError(f"row {self.name!r}: write its parameters into its method {self.method!r}")
        return self


class Ablation(BaseModel):
    """An ablation file. training: settings of `atp-eval train` that the rows share, a path beside the file.

    reference: the row that the others are held against. seeds: every trained row is trained once with each. paper: a
    table of `assets/paper.yaml`, table: its name in the paper. run: settings of the run that answers (`RunConfig`).
    note: what a reader has to know.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    training: Path
    rows: tuple[Row, ...] = Field(min_length=1)
    reference: str
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    paper: str | None = None
    table: str | None = None
    run: dict[str, Any] = {}
    note: str = ""

    @model_validator(mode="after")
    def _check(self) -> Ablation:
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError(f"rows need different names; {', '.join(names)} are given")
        if self.reference not in names:
            raise ValueError(f"reference {self.reference!r} is none of the rows {', '.join(names)}")
        if bad := [row.name for row in self.rows if row.paper is not None and self.paper is None]:
            raise ValueError(f"row {bad[0]!r} names a row of the paper; `paper` has to name the table")
        return self

    def printed(self, row: Row) -> PrintedRow | None:
        """The paper's row, or None."""
        return printed_row(self.paper, **row.paper) if self.paper and row.paper else None


def load_ablation(name: str) -> Ablation:
    """An ablation by its name (`tab4`) or from a file. Raises UserError that names what is wrong, with its line."""
    path = ablations().get(name, Path(name))
    if path.suffix not in (".yaml", ".yml"):
        raise unknown("ablation", name, ablations())
    found = Ablation.model_validate(read_settings(path, Ablation))
    found = found.model_copy(update={"training": path.parent / found.training})
    for row in found.rows:
        try:
            found.printed(row)
        except KeyError as error:
            raise UserError(f"{path}: row {row.name!r}: {error.args[0]}. See atp_eval/assets/paper.yaml") from None
    return found


def ablations() -> dict[str, Path]:
    """The ablations that come with the package, by name."""
    return {path.stem: path for path in sorted((data_folder("configs") / "ablations").glob("*.yaml"))}


def trainings(ablation: Ablation, adapters: Path) -> dict[str, tuple[TrainConfig, ...]]:
    """The settings of each trained row, one for each seed. Equal settings have equal folders below `adapters`, so that
    ablations share what was trained. Raises UserError for a setting that cannot be."""
    shared = load_train_config(ablation.training)
    return {
        row.name: tuple(_settings(shared, row, seed, adapters) for seed in ablation.seeds)
        for row in ablation.rows
        if row.training is not None
    }


def _settings(shared: TrainConfig, row: Row, seed: int, adapters: Path) -> TrainConfig:
    """The shared settings with what a row and a seed change."""
    changes = dict(row.training or {})
    options = changes.pop("options", {})
    if not isinstance(options, dict):
        raise UserError(f"row {row.name!r}: options = {options!r} must hold `key: value`, such as `scores: cross`")
    if "seed" in changes:
        raise UserError(f"row {row.name!r}: seed = {changes['seed']!r} belongs to the whole file: seeds: [{seed}, ...]")
    options = {**shared.options.model_dump(), **options}
    given = {**shared.model_dump(), "budget": None, "seed": seed, **changes, "options": options}
    try:
        found = TrainConfig.model_validate(given)
    except ValidationError as error:
        raise UserError(f"row {row.name!r}: {describe(error.errors()[0], TrainConfig)}") from None
    identity = json.dumps(found.model_dump(mode="json", exclude=ELSEWHERE), sort_keys=True)
    return found.model_copy(update={"output": adapters / hashlib.sha256(identity.encode()).hexdigest()[:8]})


def specs(row: Row, configs: tuple[TrainConfig, ...]) -> tuple[str, ...]:
    """The method specs of a row: its own, or one for each seed that it was trained with."""
    if row.method is not None:
        return (row.method,)
    extra = "".join(f",{key}={value}" for key, value in row.parameters.items())
    return tuple(f"atp:adapter={config.adapter}{extra}" for config in configs)
