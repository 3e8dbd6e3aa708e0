"""The benchmarks of scale: what they write and figure out, not how long anything takes."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from synthetic import write_run

from atp_eval.records import read_samples
from atp_eval.scenes.schemas import features


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        yield {name: importlib.import_module(name) for name in ("stub_run", "scale", "scale_plan")}


def test_synthetic_questions_have_the_real_columns(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    stub = modules["stub_run"]
    stub.write_questions(tmp_path, 12)
    (path,) = tmp_path.rglob("*.parquet")
    rows = pd.read_parquet(path)
    assert set(rows.columns) == set(features("vqav2")) - set(stub.OURS)
    assert rows["question_id"].tolist() == list(range(12))
    assert rows["image_id"].tolist() == [0] * 5 + [1] * 5 + [2] * 2
    assert rows["image"][0]["bytes"] == rows["image"][4]["bytes"] != rows["image"][5]["bytes"]


def test_written_records_are_those_of_a_large_model(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    found = modules["scale"].writing(tmp_path, 40, 2)
    assert len(found["rates"]) == 2 and found["records_a_second"] > 0
    (path,) = (tmp_path / "written-1").rglob("samples.jsonl")
    records = list(read_samples(path))
    assert [r.doc_id for r in records] == list(range(40))
    assert found["bytes_a_record"] == path.stat().st_size / 40
    kept = records[0].keep_trace()
    assert kept is not None and [stage.tokens for stage in kept.stages] == [120, 88, 20]


def test_the_plan_adds_up(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    """Upper bound alone: 6.6 billion weights; everything else by hand."""
    scale = {
        "whole": {"answers_a_second": 500.0, "samples": 1000, "stages": {"scores": {"seconds": 3.0}}},
        "picture_ms": 10.0,
    }
    (tmp_path / "scale.json").write_text(json.dumps(scale))
    run = write_run(tmp_path / "run", benchmarks=("gqa",))
    options = argparse.Namespace(
        scale=tmp_path / "scale.json", run=run.path, model="llava-hf/llava-1.5-7b-hf", methods="upper_bound",
        samples=3600, per_picture=2.0, gpus=2, tflops=100.0, share=0.5, bandwidth=1.0, batch=8, before=5, after=35,
        new_tokens=3, price=4.0,
    )  # fmt: skip
    found = modules["scale_plan"].plan(options)
    (row,) = found["methods"]
    cached = 2 * 32 * 616 * 4096 * 2  # keys and values of 576 + 40 tokens in 32 layers, bf16
    read = 2 * (32 * (4 * 4096**2 + 3 * 4096 * 11008) + 4096 * 32064)
    assert row["decode_ms"] == pytest.approx(2 * 1e3 * (read / 8 + cached) / 1e12)
    assert 100 < row["prefill_ms"] < 200  # 8 TFLOP at 50 TFLOP/s
    gpu = 3600 * (row["prefill_ms"] + row["decode_ms"]) / 1e3 + 1800 * found["vision_ms"] / 1e3
    assert found["gpu_hours"] == pytest.approx(gpu / 3600)
    assert found["processor_hours"] == pytest.approx((3600 * 0.002 + 1800 * 0.010) / 3600)
    assert found["bottleneck"] == "GPU" and found["price"] == pytest.approx(4 * gpu / 3600)
    assert found["hours"] == pytest.approx(gpu / 3600 / 2) and found["scoring_hours"] == pytest.approx(0.003)
    cell = run.path / "upper_bound" / "gqa"
    assert found["gigabytes"]["samples.jsonl"] == pytest.approx(
        (cell / "samples.jsonl").stat().st_size / 24 * 3600 / 1e9
    )
    assert "Bottleneck: GPU" in modules["scale_plan"].table(found)


@pytest.mark.parametrize("until", [None, 1])
def test_a_run_that_ends_too_soon_is_no_measurement(
    until: int | None, modules: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "import sys; print('the disk is full'); sys.exit(0 if len(sys.argv) > 1 else 1)"
    code = [] if until is None else ["done"]  # exit code 0: without a record that is no better
    monkeypatch.setattr(modules["scale"], "command", lambda *args: [sys.executable, "-c", said, *code])
    with pytest.raises(SystemExit, match="the disk is full"):
        modules["scale"].watched(tmp_path, tmp_path / "run", until=until)


def test_what_an_earlier_measurement_left_is_not_gone_on_with(
    modules: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale, found = modules["scale"], list[str]()

    def watched(folder: Path, output: Path, *more: str, until: int | None = None) -> list[object]:
        found.extend(str(path.relative_to(folder)) for path in output.rglob("*.jsonl"))
        return [scale.Seen(float(i), 100 * i, 2**20, "answers") for i in range(1, 20)]

    monkeypatch.setattr(scale, "watched", watched)
    for name in ("run", "empty"):
        path = tmp_path / name / "fastv@12" / "vqav2" / "samples.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("{}\n")
    with pytest.raises(FileNotFoundError):  # the run itself is a stand-in
        scale.whole(tmp_path, 1000)
    assert found == []
    path = tmp_path / "run" / "fastv@12" / "vqav2" / "samples.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("{}\n")
    scale.going_on(tmp_path)
    assert found == ["run/fastv@12/vqav2/samples.jsonl"]


def test_every_way_has_to_end_with_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    passed = importlib.import_module("many_processes").passed
    same = {"identical": True, "said": ""}
    ways = {"one process": {}, "two ranks, one killed": {"said": "rank 1 of 2 (x) died"}, "two ranks": same}
    assert passed(ways)
    assert not passed({**ways, "Ray, a node killed": {"code": 1}})
    assert not passed({**ways, "two ranks": {"identical": False}})
    assert not passed({**ways, "two ranks, one killed": {"said": "a timeout"}})
