"""Which cells methods keep: from run folders to tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import METHODS, FakeMethod, write_run

from atp_eval.analysis import agreement, measure, summarise, write_summary
from atp_eval.analysis.agreement import agreement_rows
from atp_eval.analysis.export import agreement_frame
from atp_eval.analysis.reading import entries
from atp_eval.trace import KeepTrace


def test_a_summary_holds_the_pruning_methods(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", methods=METHODS | {"pool@144": FakeMethod(0.7, [(0, 144)], merged=144)})
    found = summarise([run], resamples=50).agreement
    assert found is not None
    assert found.groups == (("fastv@144", "random@144", "grid@144", "pool@144"),)
    assert {p.label for p in found.places} == {"fastv@144", "random@144", "grid@144"}
    assert len(found.overlaps) == 3 and all(o.samples == 72 for o in found.overlaps)
    traces = run.samples().groupby("method")["trace"].apply(list)
    keeps = [[KeepTrace.from_json(json.loads(t)).keep_at(7) for t in traces[m]] for m in ("fastv@144", "grid@144")]
    both = np.mean([(a & b).sum() / (a | b).sum() for a, b in zip(*keeps, strict=True)])
    overlap = found.overlap("grid@144", "fastv@144")
    assert overlap is not None and overlap.at(7).value.value == pytest.approx(both)
    grid = found.place("grid@144")
    assert grid is not None and grid.asked == sum(3 for i in range(24) if i % 7)
    assert grid.recall[0].chance == pytest.approx(0.25)


def test_pieces_of_files_are_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", documents=20)
    whole = agreement_frame(summarise([run], resamples=50).agreement)
    monkeypatch.setattr(agreement, "PIECE", 12)
    sizes = [len(f) for _, piece in agreement_rows(entries([run])) for f in piece.values()]
    assert max(sizes) == 3 and sum(sizes) == 20 * 3 * 4
    pd.testing.assert_frame_equal(agreement_frame(summarise([run], resamples=50).agreement), whole)


def test_many_methods_are_compared_within_budgets_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = {f"m{i}@{n}": FakeMethod(0.5, [(0, n)]) for n in (144, 64) for i in (1, 2)}
    run = write_run(tmp_path / "run", methods=METHODS | methods, benchmarks=["gqa"], documents=6)
    together = summarise([run], resamples=20).agreement
    assert together is not None and len(together.groups) == 1 and len(together.overlaps) == 21
    monkeypatch.setattr(measure, "MOST_TOGETHER", 6)
    apart = summarise([run], resamples=20).agreement
    assert apart is not None
    assert set(apart.groups) == {
        ("m1@64", "m2@64"),
        ("fastv@144", "random@144", "grid@144", "m1@144", "m2@144"),
    }
    assert len(apart.overlaps) == 11


def test_the_unpruned_model_alone_says_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", methods={"upper_bound": METHODS["upper_bound"]}, benchmarks=["gqa"])
    assert summarise([run], resamples=20).agreement is None


def test_a_run_of_before_asked_cells_were_recorded_is_measured_without_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", benchmarks=["gqa"])
    for path in run.path.rglob("samples.parquet"):
        pd.read_parquet(path).drop(columns="asked_map").to_parquet(path, index=False)
    found = summarise([run], resamples=20).agreement
    assert found is not None and found.asked_row is None
    assert all(p.recall == () and p.asked == 0 for p in found.places)


def test_the_table_has_a_row_for_every_stretch_of_layers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", benchmarks=["gqa"])
    summary = summarise([run], resamples=50)
    write_summary(summary, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "agreement.csv")
    pairs = table[table["measure"] == "overlap"]
    assert pairs[["method", "other", "first_layer", "last_layer"]].values.tolist() == [
        ["fastv@144", "random@144", 0, 1],
        ["fastv@144", "random@144", 2, 7],
        ["fastv@144", "grid@144", 0, 1],
        ["fastv@144", "grid@144", 2, 7],
        ["random@144", "grid@144", 0, 1],
        ["random@144", "grid@144", 2, 7],
    ]
    found = summary.agreement
    assert found is not None
    overlap = found.overlap("fastv@144", "grid@144")
    assert overlap is not None
    assert pairs["value"].tolist()[3] == pytest.approx(overlap.at(7).value.value)
    assert pairs["chance"].tolist()[3] == pytest.approx(overlap.at(7).chance)
    assert pairs["gain"].tolist()[3] == pytest.approx(overlap.at(7).gain.value)
    assert set(table["measure"]) == {"overlap", "asked", "row", "column"}
    grid = table[(table["measure"] == "row") & (table["method"] == "grid@144")]
    assert grid[["first_layer", "last_layer"]].values.tolist() == [[0, 7]] and grid["chance"].isna().all()


def test_files_without_rows_are_not_left_from_before(tmp_path: Path) -> None:
    names = ("agreement.csv", "fairness.csv", "adaptivity.csv")
    for name in names:
        (tmp_path / name).write_text("old")
    run = write_run(tmp_path / "run", methods={"upper_bound": METHODS["upper_bound"]}, benchmarks=["gqa"])
    written = write_summary(summarise([run], resamples=20), tmp_path)
    assert [(tmp_path / name).exists() for name in names] == [False, True, False]
    assert (tmp_path / "fairness.csv") in written and (tmp_path / "fairness.csv").read_text() != "old"
