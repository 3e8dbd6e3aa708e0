"""A samples.jsonl of any length: some of its columns, or all as parquet, with few rows in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import json as arrow_json
from pyarrow import parquet

from atp_eval.records import SCHEMA_VERSION, SampleRecord, parse_sample, read_samples

ARROW = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}  # a trace is JSON text
BLOCK = 2**22  # bytes that are parsed at a time; a longer line is read the slow way
PIECE = 2**14  # rows of a row group, which are in memory at a time
NEVER_EMPTY = ("schema_version", "doc_id")


class Answer(NamedTuple):
    """What scoring, and whoever waits for it, needs of a SampleRecord; the fields are the record's."""

    doc_id: int
    response: str | None
    error: str | None
    invalid: bool
    prompt_tokens: int
    new_tokens: int
    seconds: float
    vision_seconds: float

    @classmethod
    def of(cls, record: SampleRecord) -> Answer:
        """The answer in a record."""
        return cls(
            record.doc_id, record.response, record.error, record.invalid,
            record.prompt_tokens, record.new_tokens, record.seconds, record.vision_seconds,
        )  # fmt: skip


def schema() -> pa.Schema:
    """The columns of a samples.parquet, less the score."""
    return pa.schema([(name, _arrow(field.annotation)) for name, field in SampleRecord.model_fields.items()])


def read_columns(path: Path, names: Sequence[str]) -> pa.Table:
    """Some columns (none of them `trace`) of a samples.jsonl, in the order of its lines.

    Raises UserError that names a line which is no record of this schema, as `read_samples` does.
    """
    kinds, wanted = schema(), dict.fromkeys((*NEVER_EMPTY, *names))
    columns = pa.schema([kinds.field(name) for name in wanted])
    if path.stat().st_size == 0:
        return columns.empty_table().select(list(names))
    try:
        table = arrow_json.read_json(
            path,
            read_options=arrow_json.ReadOptions(block_size=BLOCK),
            parse_options=arrow_json.ParseOptions(explicit_schema=columns, unexpected_field_behavior="ignore"),
        )
        good = all(table[name].null_count == 0 for name in NEVER_EMPTY)
        good = good and table["schema_version"].unique().to_pylist() == [SCHEMA_VERSION]
    except pa.ArrowInvalid:
        good = False
    if not good:  # a line is broken, which this names, or too long
        rows = [record.model_dump(include=set(wanted)) for record in read_samples(path)]
        table = pa.Table.from_pylist(rows, schema=columns)
    return table.select(list(names))


def read_answers(path: Path) -> dict[int, Answer]:
    """Every answer of a samples.jsonl by its doc_id; the last where a document is there twice."""
    table = read_columns(path, Answer._fields)
    return {row[0]: row for row in map(Answer._make, zip(*(c.to_pylist() for c in table.columns), strict=True))}


def write_parquet(samples: Path, target: Path, scores: Mapping[int, float]) -> None:
    """Write the rows of a samples.jsonl that have a score (by doc_id), sorted by doc_id, with it as a last column."""
    columns = schema().append(pa.field("score", pa.float64()))
    numbers = read_columns(samples, ["doc_id"])["doc_id"].to_numpy()
    starts = _starts(samples)
    last = {int(doc): int(start) for doc, start in zip(numbers, starts, strict=True) if doc in scores}
    places = iter(sorted(last.items()))
    with parquet.ParquetWriter(target, columns) as writer, samples.open("rb") as file:
        while piece := list(islice(places, PIECE)):
            rows = [_row(file, start, samples) | {"score": scores[doc]} for doc, start in piece]
            writer.write_table(pa.Table.from_pylist(rows, schema=columns))


def _row(file: BinaryIO, start: int, path: Path) -> dict[str, Any]:
    """The record that begins at a byte, as columns."""
    file.seek(start)
    row = parse_sample(file.readline(), f"{path}, at byte {start},").model_dump()
    row["trace"] = json.dumps(row["trace"]) if row["trace"] else None
    return row


def _starts(path: Path) -> NDArray[np.int64]:
    """Where each line of a file begins, in bytes."""

    def lengths() -> Iterator[int]:
        with path.open("rb") as file:
            yield from map(len, file)

    ends = np.cumsum(np.fromiter(lengths(), dtype=np.int64))
    return np.concatenate([np.zeros(1, dtype=np.int64), ends[:-1]]) if len(ends) else ends


def _arrow(annotation: Any) -> pa.DataType:
    kinds = [ARROW[kind] for kind in (get_args(annotation) or (annotation,)) if kind in ARROW]
    return kinds[0] if kinds else pa.string()
