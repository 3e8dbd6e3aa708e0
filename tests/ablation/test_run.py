"""`atp-eval ablate` end to end on a random checkpoint: trains what is missing once, answers, writes the table."""

from __future__ import annotations

import fcntl
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from models.hub_folder import write_hub_folder
from PIL import Image

from atp_eval import cli
from atp_eval.ablation import run as ablation_run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, six samples, and an ablation of a trained row, its static control, and a schedule."""
    home = tmp_path_factory.mktemp("ablation")
    write_hub_folder(home / "model")
    noise, rows = np.random.default_rng(0), []
    for i in range(6):
        Image.fromarray(noise.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(home / f"{i}.png")
        asked, told = {"from": "human", "value": "<image>\nWhat is there?"}, {"from": "gpt", "value": "a red star"}
        rows.append({"id": str(i), "image": f"{i}.png", "conversations": [asked, told]})
    (home / "data.json").write_text(json.dumps(rows))
    training = {
        **{"model": str(home / "model"), "data": str(home / "data.json"), "images": [str(home)], "output": "unused"},
        **{"options": {"layers": [1, 2], "hidden": 8}, "target": 300, "batch_size": 2, "micro_batch": 2},
        **{"max_steps": 1, "held_back": 0, "statistics": 2, "device": "cpu"},
    }
    ablation = {
        "title": "Small",
        "training": "training.yaml",
        "reference": "atp",
        "run": {"suite": "mini", "batch_size": 4},
        "rows": [
            {"name": "atp", "training": {}},
            {"name": "static", "training": {}, "parameters": {"control": "static"}},
            {"name": "fixed", "method": "schedule:layers=1-2,keep=100-50"},
        ],
    }
    (home / "training.yaml").write_text(yaml.safe_dump(training))
    (home / "mine.yaml").write_text(yaml.safe_dump(ablation))
    return home


def ablate(home: Path, *args: str) -> int:
    """The exit code of the command in this process."""
    common = ("ablate", str(home / "mine.yaml"), "-o", str(home / "out"), "--tasks", "gqa", "--limit", "2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["atp-eval", *common, *args])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 0
    return 0


def test_a_dry_run_says_what_is_missing_and_makes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ablate(home, "--dry-run", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert len(planned["to_train"]) == 1  # the control prunes with the same adapter
    assert planned["rows"]["static"][0].endswith(",control=static")
    assert not (home / "out").exists()


def test_it_trains_answers_and_writes_the_table_and_does_nothing_twice(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ablate(home) == 0
    shown = capsys.readouterr().out
    assert "upper_bound" in shown
    assert "static" in shown
    written = (home / "out" / "mine.md").read_text()
    assert "## Small" in written
    data: dict[str, Any] = json.loads((home / "out" / "mine.json").read_text())
    assert [row["name"] for row in data["rows"]] == ["upper_bound", "atp", "static", "fixed"]
    assert data["questions"] == 2
    assert data["rows"][3]["tokens"] == (576 + 100 + 50 + 50) / 4

    monkeypatch.setattr(ablation_run, "train", lambda *args, **kwargs: pytest.fail("trained again"))
    samples = {path: path.read_bytes() for path in (home / "out").rglob("samples.jsonl")}
    assert ablate(home) == 0
    assert samples == {path: path.read_bytes() for path in (home / "out").rglob("samples.jsonl")}
    assert (home / "out" / "mine.md").read_text() == written


def test_a_folder_in_use_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "out").mkdir(exist_ok=True)
    with (home / "out" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert ablate(home) == 2
    assert "in use by another process" in capsys.readouterr().err


def test_an_unknown_benchmark_is_refused_before_any_training(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ablate(home, "--tasks", "gqq", "-o", str(home / "other")) == 2
    assert "gqq" in capsys.readouterr().err
    assert not (home / "other").exists()


def test_an_error_of_a_training_keeps_its_own_words(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object, **kwargs: object) -> None:
        raise FileNotFoundError(2, "No such file", "weights")

    monkeypatch.setattr(ablation_run, "train", missing)
    with pytest.raises(FileNotFoundError, match="weights"):
        ablate(home, "-o", str(home / "fresh"))
    assert ablate(home, "-o", "/proc/nowhere") == 2
