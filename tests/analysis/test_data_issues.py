"""Data issues: what failed, is no answer, is missing, there twice or torn, counted by hand on small run folders."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from synthetic import METHODS, FakeMethod, write_run

from atp_eval.analysis.data_issues import DataIssues, ErrorText, error_texts, find_issues, issues_frame, kind, one_line
from atp_eval.records import PARQUET, SAMPLES, Run, slug

TWO = {name: METHODS[name] for name in ("upper_bound", "grid@144")}
THREE = TWO | {"fastv@144": METHODS["fastv@144"]}


def edit(run: Run, method: str, change: object) -> None:
    path = run.path / slug(method) / "gqa" / PARQUET
    change(pd.read_parquet(path)).to_parquet(path, index=False)  # type: ignore[operator]


def cell(found: DataIssues, label: str) -> object:
    return next(c for c in found.cells if c.label == label)


def test_a_clean_run_has_none(tmp_path: Path) -> None:
    found = find_issues([write_run(tmp_path / "run", methods=TWO, documents=6)])
    assert len(found.cells) == 6 and found.poor == () and found.errors == ()


def test_failures_and_invalid_answers_are_counted_with_wilsons_intervals(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", methods=TWO, benchmarks=["gqa"], documents=10)
    texts = [None, *["out of memory at batch size 1", "out of memory at batch size 16"], "broken picture", *[None] * 6]
    edit(run, "grid@144", lambda rows: rows.assign(error=texts, invalid=[i == 9 for i in range(10)]))
    found = find_issues([run])
    (poor,) = found.poor
    assert (poor.label, poor.failures, poor.invalids, poor.samples) == ("grid@144", 3, 1, 10)
    assert poor.failed == pytest.approx((0.3, 0.10779, 0.60322), abs=1e-5)  # Wilson's, 3 of 10
    assert [(e.text, e.count, e.methods, e.example) for e in found.errors] == [
        ("out of memory at batch size 1", 2, ("grid@144",), ("grid@144", "gqa", 1)),
        ("broken picture", 1, ("grid@144",), ("grid@144", "gqa", 3)),
    ]


def test_missing_documents_are_named_and_told_apart_from_those_that_others_miss_too(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", methods=THREE, benchmarks=["gqa"], documents=20)
    edit(run, "grid@144", lambda rows: rows[~rows["doc_id"].isin([3, 4, 19])])
    edit(run, "fastv@144", lambda rows: rows[rows["doc_id"] != 3])
    found = find_issues([run])
    grid, fastv = cell(found, "grid@144"), cell(found, "fastv@144")
    assert (grid.missing, grid.missing_count, grid.missing_here_only) == ((3, 4, 19), 3, 2)
    assert (fastv.missing, fastv.missing_count, fastv.missing_here_only) == ((3,), 1, 0)
    assert (grid.samples, grid.expected) == (17, 20)


def test_only_a_dozen_missing_documents_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", methods=TWO, benchmarks=["gqa"], documents=30)
    edit(run, "grid@144", lambda rows: rows[rows["doc_id"] < 5])
    found = cell(find_issues([run]), "grid@144")
    assert found.missing == tuple(range(5, 17)) and found.missing_count == 25


def test_rows_that_are_there_twice_and_torn_files_are_found(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", methods=TWO, benchmarks=["gqa"], documents=6)
    edit(run, "grid@144", lambda rows: pd.concat([rows, rows.head(2), rows.head(1)]))
    with (run.path / "upper_bound" / "gqa" / SAMPLES).open("a") as f:
        f.write('{"schema_version": 1, "met')
    found = find_issues([run])
    assert [(c.label, c.repeated, c.torn) for c in found.poor] == [("upper_bound", 0, True), ("grid@144", 3, False)]


def test_what_was_asked_for_and_not_finished_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", methods=TWO, documents=6, skip=[("grid@144", "pope")])
    (poor,) = find_issues([run]).poor
    assert (poor.label, poor.benchmark, poor.finished, poor.missing_count) == ("grid@144", "pope", False, 6)


def test_many_error_texts_are_cut_to_the_most_frequent(tmp_path: Path) -> None:
    methods = {"a": FakeMethod(0.5), "b": FakeMethod(0.5)}
    run = write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=30)
    words = ["x" * (1 + i // 2) for i in range(30)]  # fifteen texts, each twice
    edit(run, "a", lambda rows: rows.assign(error=words))
    found = find_issues([run])
    assert len(found.errors) == 12 and found.more_errors == 3 and {e.count for e in found.errors} == {2}


def test_errors_that_differ_in_numbers_are_one_kind() -> None:
    assert kind("tried 2.32 GiB\nof 80 GiB") == "tried # GiB" == kind("\n  tried 1,024 GiB")
    assert one_line(" \n\t\n") == "(no text)"
    rows = pd.DataFrame({"doc_id": [7, 8], "error": ["at 1", "at 22"], "label": ["a", "b"], "benchmark": "gqa"})
    assert list(error_texts(rows)) == [ErrorText("at 1", 2, ("a", "b"), ("a", "gqa", 7))]


def test_the_table_has_a_row_a_method_and_benchmark(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", methods=TWO, documents=6)
    edit(run, "grid@144", lambda rows: rows[rows["doc_id"] != 2])
    table = issues_frame(find_issues([run])).set_index(["method", "benchmark"])
    assert len(table) == 6
    assert table.loc[("grid@144", "gqa"), ["missing", "missing_documents", "samples"]].tolist() == [1, "2", 5]
