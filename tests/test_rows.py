"""samples.jsonl by columns and as parquet: the same rows as its records, whatever they say, and few in memory."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from atp_eval import rows
from atp_eval.errors import UserError
from atp_eval.recorded import Recorded
from atp_eval.records import SAMPLES, SampleRecord, asked_text
from atp_eval.rows import Answer, read_answers, read_columns, schema, write_parquet
from atp_eval.writer import RunWriter

TRACE = {"grid": [2, 3], "layers": 4, "stages": [[1, 0, "gA=="]]}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def record(doc_id: int, **fields: object) -> SampleRecord:
    base = {"method": "fastv@144", "benchmark": "gqa", "image_id": "a", "question": "q", "target": "t", "response": "r"}
    return SampleRecord.model_validate({**base, "doc_id": doc_id, **fields})


def written(path: Path, records: list[SampleRecord]) -> Path:
    path.write_text("".join(r.model_dump_json() + "\n" for r in records), encoding="utf-8")
    return path


@settings(max_examples=30)
@given(st.lists(st.tuples(TEXT, st.none() | TEXT, st.none() | TEXT, st.floats(0, 1e6), st.booleans()), max_size=5))
def test_answers_are_those_of_the_records(found: list[tuple[str, str | None, str | None, float, bool]]) -> None:
    records = [
        record(i, question=question, response=response, error=error, seconds=seconds, invalid=invalid, new_tokens=i)
        for i, (question, response, error, seconds, invalid) in enumerate(found)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder) / SAMPLES, records)
        assert read_answers(path) == {r.doc_id: Answer.of(r) for r in records}
        assert read_columns(path, ["doc_id", "question"]).to_pylist() == [
            {"doc_id": r.doc_id, "question": r.question} for r in records
        ]


def test_every_field_has_a_column_of_its_kind() -> None:
    found = schema()
    assert found.names == list(SampleRecord.model_fields)
    kinds = {name: str(found.field(name).type) for name in ("doc_id", "objects", "seconds", "warm", "error", "trace")}
    assert kinds == dict(doc_id="int64", objects="int64", seconds="double", warm="bool", error="string", trace="string")
    assert str(found.field("peak_bytes").type) == "int64"


def test_parquet_has_the_scored_rows_by_document_and_the_last_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "PIECE", 2)
    records = [
        record(5, trace=TRACE), record(2, response="old"), record(3), record(2, response="new", objects=7),
        record(0, asked_map=asked_text([1]), error="broken", response=None),
    ]  # fmt: skip
    write_parquet(written(tmp_path / SAMPLES, records), tmp_path / "x.parquet", {0: 0.0, 2: 0.5, 5: 1.0})
    found = pd.read_parquet(tmp_path / "x.parquet")
    assert list(found.columns) == [*SampleRecord.model_fields, "score"]
    assert found["doc_id"].tolist() == [0, 2, 5] and found["score"].tolist() == [0.0, 0.5, 1.0]
    assert found["response"].tolist()[1:] == ["new", "r"] and pd.isna(found["response"][0])
    assert found["objects"].isna().tolist() == [True, False, True]
    assert json.loads(found["trace"][2]) == TRACE and pd.isna(found["trace"][0])
    assert parquet.ParquetFile(tmp_path / "x.parquet").num_row_groups == 2


@pytest.mark.parametrize("names", [["doc_id"], ["doc_id", "response"]])
def test_an_empty_file_has_no_rows(tmp_path: Path, names: list[str]) -> None:
    table = read_columns(written(tmp_path / SAMPLES, []), names)
    assert (table.num_rows, table.column_names) == (0, names)
    write_parquet(tmp_path / SAMPLES, tmp_path / "x.parquet", {})
    assert pd.read_parquet(tmp_path / "x.parquet").empty


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{broken", "no sample record"),
        ("[]", "no sample record"),
        ("{}", "schema version None"),
        ('{"schema_version": 2, "doc_id": 1}', "schema version 2"),
        ('{"schema_version": 1}', "no sample record"),
        ('{"schema_version": 1, "doc_id": "x"}', "no sample record"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = written(tmp_path / SAMPLES, [record(0)])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match=said) as caught:
        read_columns(path, ["doc_id"])
    assert f"{SAMPLES}:2 " in str(caught.value)


def test_a_line_longer_than_a_block_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BLOCK", 1000)
    path = written(tmp_path / SAMPLES, [record(0), record(1, response="x" * 5000), record(2)])
    assert [len(a.response or "") for a in read_answers(path).values()] == [1, 5000, 1]


def test_only_numbers_of_documents_stay_in_memory_where_there_is_a_folder(tmp_path: Path) -> None:
    with RunWriter(tmp_path) as writer:
        kept = Recorded(writer)
        assert kept.add([record(0), record(1), record(1)]) == 2
        assert kept.add([record(1, response="again")]) == 0
        assert kept.documents("fastv@144", "gqa") == {0, 1} and not kept._records
        assert [a.response for a in kept.answers("fastv@144", "gqa").values()] == ["r", "r"]
        assert kept.records("fastv@144", "gqa") == {0: record(0), 1: record(1)}
        assert kept.documents("other", "gqa") == set() == set(kept.answers("other", "gqa"))


def test_without_a_folder_the_records_are_kept() -> None:
    kept = Recorded()
    assert kept.add([record(0), record(0)]) == 1
    assert kept.records("fastv@144", "gqa") == {0: record(0)}
    assert kept.answers("fastv@144", "gqa") == {0: Answer.of(record(0))}
    assert kept.answers("other", "gqa") == {}


def test_answers_beside_count_and_are_not_touched(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run") as run:
        run.append([record(0), record(1)])
    path = tmp_path / "run" / "fastv@144" / "gqa" / SAMPLES
    torn = path.read_bytes() + b'{"schema_version":1,"met'
    path.write_bytes(torn)
    with RunWriter(tmp_path / "part", beside=tmp_path / "run") as part:
        part.append([record(2)])
        assert part.documents("fastv@144", "gqa") == {0, 1, 2} == set(part.answers("fastv@144", "gqa"))
    assert path.read_bytes() == torn
