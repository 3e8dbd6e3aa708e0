"""The run folder: a versioned schema, read by everything that comes after a run (`writer.py` writes it).

    RUN/run.json                           Manifest: what was run on what, and the protocol that makes runs comparable
    RUN/<method>/<benchmark>/samples.jsonl one SampleRecord a line, in the order of answering
    RUN/<method>/<benchmark>/samples.parquet  the same rows with their scores, sorted by doc_id, once finished
    RUN/<method>/<benchmark>/results.json  Result: the benchmark's metric as lmms-eval computed it
    RUN/images/<image_id>.webp             the pictures shown in reports, as the model saw them

Neither torch nor lmms-eval is imported here. Do not rename or reorder fields without raising SCHEMA_VERSION; a new
field with a default needs no new version, since older rows are read with that default.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atp_eval.errors import UserError
from atp_eval.trace import KeepTrace, pack, unpack

SCHEMA_VERSION = 1
MANIFEST, SAMPLES, PARQUET, RESULT, IMAGES = "run.json", "samples.jsonl", "samples.parquet", "results.json", "images"
ASKED_GRID = (24, 24)  # rows and columns of the cells that documents name


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SampleRecord(_Model):
    """One answered (or failed) question.

    `prompt` is the text that was sent, `question` the bare question in it. Either `response` or `error` is set. Times
    are this sample's share of its batch: `seconds` is prefill and decode of the LLM with the pruning method,
    `vision_seconds` vision tower and projector; `prefill_seconds` is the part of `seconds` until the batch's first new
    token could be chosen, the method's own work included. `peak_bytes`: the most that was allocated on the GPU while
    its batch was answered, weights included; None elsewhere, and both None in rows of older versions. `group` names
    samples that are scored together (MME's pairs, MMBench's circular rows). `objects` counts the things in the picture,
    `asked_cells` the grid cells of those that the question is about and `asked_map` which they are (`asked_text`); None
    where nobody knows. `trace` is `KeepTrace.to_json()`.
    """

    schema_version: int = SCHEMA_VERSION
    method: str
    benchmark: str
    doc_id: int
    image_id: str | None
    question: str
    prompt: str = ""
    target: str
    category: str | None = None
    group: str | None = None
    kind: str | None = None
    level: str | None = None
    objects: int | None = None
    asked_cells: int | None = None
    response: str | None
    error: str | None = None
    invalid: bool = False
    prompt_tokens: int = 0
    new_tokens: int = 0
    seconds: float = 0.0
    vision_seconds: float = 0.0
    batch: int = 0
    batch_size: int = 1
    warm: bool = True
    trace: dict[str, Any] | None = None
    asked_map: str | None = None
    prefill_seconds: float | None = None
    peak_bytes: int | None = None

    def keep_trace(self) -> KeepTrace | None:
        """The tokens that stayed, or None for a failed or text-only sample."""
        return KeepTrace.from_json(self.trace) if self.trace else None

    def asked(self) -> NDArray[np.bool_] | None:
        """[576] bool on ASKED_GRID, in raster order: the cells that the question is about; None where nobody knows."""
        return None if self.asked_map is None else unpack(self.asked_map, ASKED_GRID)


class Result(_Model):
    """A benchmark's score for one method: `score` in the metric's own unit, of at most `scale`."""

    schema_version: int = SCHEMA_VERSION
    method: str
    benchmark: str
    task: str
    metric: str
    score: float
    scale: float
    samples: int
    errors: int
    invalid: int
    metrics: dict[str, float] = Field(default_factory=dict)


class BenchmarkInfo(_Model):
    """What was asked: the lmms-eval task, a hash of its configuration and data, and how many documents it has."""

    task: str
    hash: str
    documents: int
    metric: str
    scale: float
    aggregation: str


class Manifest(_Model):
    """What was run. Two runs are comparable when their `protocol` is equal."""

    schema_version: int = SCHEMA_VERSION
    created: str
    atp_eval: str
    versions: dict[str, str]
    model: dict[str, Any]
    protocol: dict[str, Any]
    config: dict[str, Any]
    benchmarks: dict[str, BenchmarkInfo]
    methods: dict[str, dict[str, Any]]
    device: str
    git_commit: str | None = None
    finished: bool = False
    seconds: float = 0.0


def asked_text(cells: Sequence[int] | None) -> str | None:
    """Raster indexes on ASKED_GRID as `asked_map` holds them: 96 characters, a bit a cell; None for None.

    Raises ValueError for a cell outside.
    """
    if cells is None:
        return None
    mask = np.zeros(ASKED_GRID[0] * ASKED_GRID[1], dtype=bool)
    if outside := [cell for cell in cells if not 0 <= cell < mask.size]:
        raise ValueError(f"cell {outside[0]} is not on the grid of {ASKED_GRID[0]} x {ASKED_GRID[1]}")
    mask[list(cells)] = True
    return pack(mask)


def slug(name: str) -> str:
    """A folder name for a method's label: `schedule:layers=1-3` becomes `schedule_layers-1-3`."""
    return re.sub(r"[^A-Za-z0-9@._-]+", "-", name.replace(":", "_")).strip("-")


def read_samples(path: Path) -> Iterator[SampleRecord]:
    """The records of a samples.jsonl. Raises UserError that names the line which is not a record of this schema."""
    with path.open(encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            if not line.endswith("\n"):
                return  # torn by a kill; `repair` removes it before the next append
            yield parse_sample(line, f"{path}:{number}")


def parse_sample(line: str | bytes, where: str) -> SampleRecord:
    """The record of a line. Raises UserError where it is none, or one of another schema version."""
    try:
        row = json.loads(line)
        check_schema(row, where)
        return SampleRecord.model_validate(row)
    except (json.JSONDecodeError, ValidationError, AttributeError) as error:
        raise UserError(f"{where} is no sample record ({one_line(error)}). Delete the line.") from None


def check_schema(data: dict[str, Any], where: object) -> None:
    """Refuse data of another schema version by name."""
    version = data.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{where} has schema version {version}, this atp-eval reads {SCHEMA_VERSION}. "
            "Use the version that wrote it, or run again into another folder with --output."
        )


def one_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True)
class Run:
    """A run folder, open for reading."""

    path: Path
    manifest: Manifest

    def results(self) -> list[Result]:
        """The finished scores, in the order of the manifest's methods and benchmarks.

        Raises UserError that names a file which is not a result of this schema.
        """
        found = []
        for method in self.manifest.methods:
            for benchmark in self.manifest.benchmarks:
                path = self.path / slug(method) / benchmark / RESULT
                if path.exists():
                    found.append(read_result(path))
        return found

    def samples(self) -> pd.DataFrame:
        """All finished rows: the fields of SampleRecord (`trace` as JSON text) and `score` in [0, 1]."""
        paths = [self.path / slug(r.method) / r.benchmark / PARQUET for r in self.results()]
        return pd.concat([pd.read_parquet(p) for p in paths], ignore_index=True) if paths else pd.DataFrame()

    def image(self, image_id: str) -> Path | None:
        """The picture of a sample as the model saw it, if the run kept it."""
        path = self.path / IMAGES / f"{image_id}.webp"
        return path if path.exists() else None


def read_result(path: Path) -> Result:
    """A results.json. Raises UserError where it is none, or one of another schema version."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        check_schema(data, path)
        return Result.model_validate(data)
    except (json.JSONDecodeError, ValidationError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read: {one_line(error)}. Delete it; the same `atp-eval run` scores the answers again."
        ) from None


def read_run(path: str | Path) -> Run:
    """Open a run folder. Raises UserError where there is none, or one of another schema version."""
    path = Path(path)
    file = path / MANIFEST
    if not file.exists():
        raise UserError(f"{path} is not a run folder (no {MANIFEST}). `atp-eval list runs` shows the runs here.")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        check_schema(data, file)
        return Run(path, Manifest.model_validate(data))
    except (json.JSONDecodeError, ValidationError, AttributeError) as error:
        raise UserError(f"{file} cannot be read: {one_line(error)}") from None
