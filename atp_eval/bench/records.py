"""What a bench folder is made of: `bench.json`, what was measured where, and a line a measurement in a second file.

Read by pages and tables, so neither torch nor transformers is imported here. Only `bench` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from atp_eval.cost import ModelGeometry, VisionGeometry
from atp_eval.errors import UserError

SCHEMA = 1
BENCH, MEASURED = "bench.json", "measured.jsonl"
REFERENCE = "upper_bound"
Kind = Literal["methods", "growth"]


class Strict(BaseModel):
    """Fields as they are written, no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Cell(Strict):
    """One thing to measure. batch: questions answered together, each about its own image; attention: the backend; side:
    of the visual grid, so an image is side * side tokens; new: tokens that are written, the first one included."""

    method: str
    batch: int
    attention: str
    side: int
    new: int

    @property
    def tokens(self) -> int:
        """Image tokens before pruning."""
        return self.side * self.side

    def __str__(self) -> str:
        return f"{self.method}, batch {self.batch}, {self.attention}, {self.tokens} tokens, {self.new} new"


class Settings(Strict):
    """What was asked for. layers: decoder layers, where fewer than the model's own; text: tokens beside the image."""

    kind: Kind
    model: str
    random_weights: bool
    layers: int | None
    methods: tuple[str, ...]
    dtype: str
    text: int
    rounds: int
    cells: tuple[Cell, ...]


class Machine(Strict):
    """Where it was measured. memory: bytes. flops: a second, of the best square matrix product in the bench's dtype;
    bandwidth: bytes a second, of the best pass over memory; both measured. load: of the last minute, before the start.
    """

    device: str
    memory: int
    flops: float
    bandwidth: float
    load: float | None
    versions: dict[str, str]


class Bench(Strict):
    """`bench.json`. weights: a hash, or `random`. geometry: of the model as it was measured; full_layers: decoder
    layers of the model as it is published. vision_bytes, language_bytes: of the weights that a pass has to read once:
    tower and projector; layers and LM head. clock: what times were taken with."""

    schema_version: Literal[1] = 1
    created: str
    atp_eval: str
    settings: Settings
    weights: str
    geometry: dict[str, Any]
    full_layers: int
    vision_bytes: int
    language_bytes: int
    clock: str
    machine: Machine

    def model_geometry(self) -> ModelGeometry:
        """The sizes, as an object."""
        sizes = {**self.geometry, "grid": tuple(self.geometry["grid"]), "place": None}
        return ModelGeometry(**{**sizes, "vision": VisionGeometry(**sizes["vision"])})


class Survey(Strict):
    """What needs no clock, of one run of a cell.

    solved: the method with every parameter. tokens: [layers], visual tokens that entered each, mean over the batch;
    averages: [batch], each sample's mean over layers. text: tokens beside the image's. FLOPs are of the whole batch, as
    torch counted them while it ran, with two for each multiply-accumulate. peak_bytes: the most that was allocated at
    once on top of weights and inputs; None where nobody measures that.
    """

    solved: str
    tokens: tuple[float, ...]
    averages: tuple[float, ...]
    text: int
    vision_flops: float
    prefill_flops: float
    decode_flops: float
    peak_bytes: int | None


class Stages(NamedTuple):
    """Seconds of the whole batch: tower and projector; the prompt, until the first new token's scores; the others."""

    vision: float
    prefill: float
    decode: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


class Measured(NamedTuple):
    """A cell with what is known of it. rounds: by their numbers. not_run: why there is nothing."""

    cell: Cell
    survey: Survey | None
    rounds: dict[int, Stages]
    not_run: str | None


def survey_line(place: int, survey: Survey) -> str:
    """The line that a survey is kept as; place: of its cell in the settings."""
    return json.dumps({"cell": place, "survey": survey.model_dump(mode="json")}) + "\n"


def round_line(place: int, number: int, stages: Stages) -> str:
    """The line that one round of a cell is kept as."""
    return json.dumps({"cell": place, "round": number, **stages._asdict()}) + "\n"


def not_run_line(place: int, why: str) -> str:
    """The line about a cell that could not run."""
    return json.dumps({"cell": place, "not_run": why}) + "\n"


def read_bench(folder: Path) -> tuple[Bench, list[Measured]]:
    """What a folder holds; cells in their order. Raises UserError for one that holds no bench, or a damaged one."""
    path = folder / BENCH
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(
            f"{folder} is not a bench: it holds no {BENCH}. `atp-eval bench --output DIR` makes one"
        ) from None
    except ValueError:
        raise UserError(f"{path} is not JSON; the bench is damaged, measure again") from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA:
        raise UserError(f"{path} has schema version {version!r}; this atp-eval reads version {SCHEMA}")
    try:
        bench = Bench.model_validate(data)
        bench.model_geometry()
        return bench, list(_measured(bench.settings.cells, _lines(folder / MEASURED)))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UserError(f"{folder} holds a damaged bench ({said}); measure again in another folder") from None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines; a last one that was cut while it was written is none. Raises UserError for a damaged one."""
    if not path.exists():
        return
    *whole, _ = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(whole, 1):
        try:
            yield json.loads(line)
        except ValueError:
            raise UserError(
                f"{path}, line {number} is not JSON; delete the line, and the same command measures it again"
            ) from None


def _measured(cells: Sequence[Cell], lines: Iterator[dict[str, Any]]) -> Iterator[Measured]:
    """What the lines say of each cell; of two lines about one thing the later holds."""
    surveys: dict[int, Survey] = {}
    refused: dict[int, str] = {}
    rounds: dict[int, dict[int, Stages]] = {place: {} for place in range(len(cells))}
    for line in lines:
        place = line["cell"]
        if "survey" in line:
            surveys[place] = Survey.model_validate(line["survey"])
            refused.pop(place, None)
        elif "not_run" in line:
            refused[place] = str(line["not_run"])
        else:
            rounds[place][line["round"]] = Stages(*(float(line[name]) for name in Stages._fields))
    for place, cell in enumerate(cells):
        yield Measured(cell, surveys.get(place), rounds[place], refused.get(place))
