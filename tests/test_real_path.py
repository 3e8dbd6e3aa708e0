"""The real path: a checkpoint in llava-1.5-7b-hf's layout and geometry over local files in each data set's schema.

The checkpoint has random weights at reduced width and depth; tasks, prompts and metrics are lmms-eval's own.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import real_schemas
from models.hub_folder import write_hub_folder
from real_schemas import build
from test_run import run

from atp_eval.benchmarks import MAIN
from atp_eval.records import read_run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATP_EVAL_DATA", str(build(tmp_path / "data")))
    write_hub_folder(tmp_path / "llava-1.5-7b-hf")
    return tmp_path


def test_the_seven_real_tasks_run_on_a_hub_checkpoint(folder: Path) -> None:
    output = folder / "run"
    code = run(
        *("run", "--model", str(folder / "llava-1.5-7b-hf"), "--tasks", ",".join(MAIN), "--limit", "2"),
        *("--methods", "upper_bound,fastv@288", "--prompt", "vicuna_v1", "--image", "pad", "-o", str(output)),
    )
    assert code == 0
    opened = read_run(output)
    assert [r.task for r in opened.results()[: len(MAIN)]] == [f"{name}_atp" for name in MAIN]
    rows = opened.samples()
    assert rows["error"].isna().all()
    pictured = rows[rows["method"] == "fastv@288"]
    assert set(pictured["benchmark"]) == set(MAIN)
    assert opened.manifest.protocol["prompt"] == "vicuna_v1"
    assert (output / "report.html").exists()


def test_documents_that_the_metric_does_not_count_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cognition = real_schemas._mme()[4:]  # what a small --limit may meet alone
    monkeypatch.setattr(real_schemas, "_mme", lambda: cognition)
    monkeypatch.setenv("ATP_EVAL_DATA", str(build(tmp_path / "data")))
    write_hub_folder(tmp_path / "llava")
    args = (
        "--model",
        str(tmp_path / "llava"),
        "--tasks",
        "mme",
        "--methods",
        "upper_bound",
        "-o",
        str(tmp_path / "run"),
    )
    assert run("run", *args) == 1
    error = capsys.readouterr().err
    assert "none of the documents asked counts for mme_perception_score" in error and "Traceback" not in error
