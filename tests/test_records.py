"""The run folder: what is written is read back, a torn line is repaired, and only one process writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atp_eval import writer
from atp_eval.errors import TaskFailure, UserError
from atp_eval.records import (
    SAMPLES,
    BenchmarkInfo,
    Manifest,
    Result,
    SampleRecord,
    asked_text,
    read_run,
    read_samples,
    slug,
)
from atp_eval.writer import RunWriter, repair, write_atomically


def record(doc_id: int = 0, **fields: object) -> SampleRecord:
    base = {"method": "fastv@144", "benchmark": "gqa", "image_id": "a", "question": "q", "target": "t", "response": "r"}
    return SampleRecord.model_validate({**base, "doc_id": doc_id, **fields})


def manifest(**fields: object) -> Manifest:
    info = BenchmarkInfo(task="gqa_mini", hash="h", documents=3, metric="exact_match", scale=1, aggregation="mean")
    base = {
        "created": "2026-01-01T00:00:00",
        "atp_eval": "0",
        "versions": {},
        "model": {},
        "protocol": {"model": "tiny"},
        "config": {},
        "benchmarks": {"gqa": info},
        "methods": {"fastv@144": {}},
        "device": "cpu",
    }
    return Manifest.model_validate({**base, **fields})


def result(samples: int) -> Result:
    return Result(
        method="fastv@144",
        benchmark="gqa",
        task="gqa_mini",
        metric="exact_match",
        score=0.5,
        scale=1,
        samples=samples,
        errors=0,
        invalid=0,
    )


@given(st.text(), st.text(), st.text())
def test_any_text_survives_the_file(question: str, target: str, response: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, RunWriter(Path(folder)) as run:
        written = record(question=question, target=target, response=response)
        try:
            written.model_dump_json().encode("utf-8")
        except Exception:  # lone surrogates cannot come from a tokenizer
            return
        run.append([written])
        assert run.records("fastv@144", "gqa") == {0: written}


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_cut_off_and_the_rest_stays(tmp_path: Path, cut: int) -> None:
    with RunWriter(tmp_path) as run:
        run.append([record(i) for i in range(3)])
    path = tmp_path / "fastv@144" / "gqa" / SAMPLES
    path.write_bytes(path.read_bytes()[:-cut])
    assert len(list(read_samples(path))) == 2  # reading alone changes nothing
    with RunWriter(tmp_path) as run:
        assert set(run.records("fastv@144", "gqa")) == {0, 1}
        run.append([record(2)])
        assert set(run.records("fastv@144", "gqa")) == {0, 1, 2}
    assert repair(path) == 0


@pytest.mark.parametrize("piece", [1, 2, 3, 100])
@pytest.mark.parametrize("data", [b"", b"\n", b"torn", b"\ntorn", b"one\n", b"one\ntwo\n", b"one\ntwo\ntorn"])
def test_a_torn_line_is_found_in_pieces_of_any_size(
    data: bytes, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PIECE", piece)
    (tmp_path / "x").write_bytes(data)
    whole = data[: data.rfind(b"\n") + 1]
    assert repair(tmp_path / "x") == len(data) - len(whole)
    assert (tmp_path / "x").read_bytes() == whole


def test_a_file_is_on_the_disk_before_it_takes_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, sync, replace = list[str](), os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: done.append("fsync") or sync(number))
    monkeypatch.setattr(os, "replace", lambda a, b: done.append(f"replace by {a.read_text()}") or replace(a, b))
    write_atomically(tmp_path / "x", "new")
    assert done == ["fsync", "replace by new"] and (tmp_path / "x").read_text() == "new"


@pytest.mark.parametrize("broken", ["{broken", "[]", "{}"])
def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, broken: str) -> None:
    with RunWriter(tmp_path) as run:
        run.append([record(0)])
    path = tmp_path / "fastv@144" / "gqa" / SAMPLES
    path.write_text(f"{broken}\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(UserError, match=r"samples\.jsonl:1 "):
        list(read_samples(path))


@pytest.mark.parametrize("broken", ["", "[]", '{"schema_version": 1}'])
def test_a_broken_result_is_named(tmp_path: Path, broken: str) -> None:
    with RunWriter(tmp_path) as run:
        run.write_manifest(manifest())
        run.append([record(0)])
        run.finish(result(1), {0: 1.0})
    (tmp_path / "fastv@144" / "gqa" / "results.json").write_text(broken, encoding="utf-8")
    with pytest.raises(UserError, match=r"results\.json cannot be read: .* Delete it"):
        read_run(tmp_path).results()


def test_rows_of_before_a_field_was_added_are_read_without_it(tmp_path: Path) -> None:
    """`objects`, `asked_cells` and `asked_map` came later, within one schema version."""
    with RunWriter(tmp_path) as run:
        run.append([record(0, objects=5, asked_cells=1, asked_map=asked_text([0]))])
    path = tmp_path / "fastv@144" / "gqa" / SAMPLES
    row = json.loads(path.read_text(encoding="utf-8"))
    assert (row.pop("objects"), row.pop("asked_cells"), row.pop("asked_map")) == (5, 1, "gA" + 94 * "A")
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    (found,) = read_samples(path)
    assert found == record(0) and (found.objects, found.asked_cells, found.asked_map) == (None, None, None)
    assert found.asked() is None


@given(st.sets(st.integers(0, 575)))
def test_the_cells_asked_about_are_read_back(cells: set[int]) -> None:
    text = asked_text(sorted(cells))
    assert text is not None and len(text) == 96
    found = record(0, asked_map=text).asked()
    assert found is not None and found.dtype == bool and found.shape == (576,)
    assert set(found.nonzero()[0].tolist()) == cells


def test_cells_are_packed_in_raster_order_the_first_in_the_highest_bit() -> None:
    assert asked_text([0, 7, 8]) == "gYAA" + 92 * "A"  # 0x81, 0x80
    assert asked_text([]) == 96 * "A"
    assert asked_text(None) is None


@pytest.mark.parametrize("cell", [-1, 576])
def test_cells_outside_of_the_grid_are_no_cells(cell: int) -> None:
    with pytest.raises(ValueError, match=f"cell {cell} is not on the grid of 24 x 24"):
        asked_text([3, cell])


def test_a_mask_of_another_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="24 x 24"):
        record(0, asked_map="AAAA").asked()


def test_the_cells_asked_about_reach_the_table_that_analysis_reads(tmp_path: Path) -> None:
    with RunWriter(tmp_path) as run:
        run.write_manifest(manifest())
        run.append([record(0, asked_map=asked_text([5])), record(1)])
        run.finish(result(2), {0: 1.0, 1: 0.0})
    table = read_run(tmp_path).samples()
    assert table["asked_map"].tolist()[0] == asked_text([5])
    assert table["asked_map"].isna().tolist() == [False, True]


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    with RunWriter(tmp_path) as run:
        run.write_manifest(manifest())
    path = tmp_path / "run.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(UserError, match="schema version 99"):
        read_run(tmp_path)


def test_a_folder_without_manifest_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        read_run(tmp_path)


def test_two_processes_cannot_write_one_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from atp_eval.writer import RunWriter\n"
        "RunWriter(Path(sys.argv[1])).__enter__()"
    )
    with RunWriter(tmp_path):
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert other.returncode != 0
    assert f"is in use by process {os.getpid()}" in other.stderr
    free = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert free.returncode == 0, free.stderr


def test_a_full_disk_ends_the_run_and_keeps_what_was_answered(tmp_path: Path) -> None:
    with RunWriter(tmp_path) as run:
        run.append([record(0)])
        run._files[tmp_path / "fastv@144" / "gqa" / SAMPLES] = open("/dev/full", "a", encoding="utf-8")  # noqa: SIM115
        with pytest.raises(TaskFailure, match="No space left on device"):
            run.append([record(1)])
        assert run.broken
    with RunWriter(tmp_path) as run:
        assert set(run.records("fastv@144", "gqa")) == {0}


def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="cannot write"):
        RunWriter(blocked / "run")


def test_finished_rows_are_read_with_scores(tmp_path: Path) -> None:
    with RunWriter(tmp_path) as run:
        run.write_manifest(manifest())
        run.append([record(i) for i in (2, 0, 1)])
        run.finish(result(2), {0: 1.0, 1: 0.0})
    opened = read_run(tmp_path)
    rows = opened.samples()
    assert rows["doc_id"].tolist() == [0, 1]
    assert rows["score"].tolist() == [1.0, 0.0]
    assert opened.results() == [result(2)]


def test_forgetting_starts_over(tmp_path: Path) -> None:
    with RunWriter(tmp_path) as run:
        run.append([record(0)])
    with RunWriter(tmp_path) as run:
        run.forget("fastv@144", "gqa")
        assert run.records("fastv@144", "gqa") == {}


@given(st.text(min_size=1))
def test_slugs_are_plain_file_names(label: str) -> None:
    assert not set(slug(label)) & set('/\\:*?"<>| \0')


def test_slugs_of_different_specs_differ() -> None:
    specs = ["fastv@144", "fastv:layer=2,keep=72", "fastv:layer=27,keep=2", "random@144", "random@144:seed=1"]
    assert len({slug(s) for s in specs}) == len(specs)
