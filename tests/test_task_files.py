"""The folders of YAML files that lmms-eval gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from atp_eval import task_files
from atp_eval.benchmarks import BENCHMARKS, MAIN, get_benchmark
from atp_eval.errors import UserError


class Loader(yaml.SafeLoader):
    """YAML with `!function` left as text."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATP_EVAL_CACHE", str(tmp_path / 'a "cache" #1'))
    monkeypatch.delenv("ATP_EVAL_DATA", raising=False)
    monkeypatch.setattr(task_files, "materialise", lambda: tmp_path / "the: suite")


def load(folder: Path) -> dict[str, dict[str, Any]]:
    return {p.stem: yaml.load(p.read_text(encoding="utf-8"), Loader) for p in folder.glob("*.yaml")}


def test_every_benchmark_has_its_task() -> None:
    real, mini = load(task_files.task_folder("real")), load(task_files.task_folder("mini"))
    assert {name: c["task"] for name, c in real.items()} == {n: get_benchmark(n).task("real") for n in BENCHMARKS}
    assert {name: c["task"] for name, c in mini.items()} == {n: get_benchmark(n).task("mini") for n in MAIN}


@pytest.mark.parametrize("suite", ["mini", "real"])
def test_each_includes_lmms_evals_own(suite: str) -> None:
    for name, config in load(task_files.task_folder(suite)).items():  # type: ignore[arg-type]
        included = Path(config["include"])
        assert included.is_file() and included.stem == BENCHMARKS[name].source


def test_mini_tasks_read_the_suites_files(tmp_path: Path) -> None:
    for name, config in load(task_files.task_folder("mini")).items():
        (file,) = config["dataset_kwargs"]["data_files"].values()
        assert file == f"{tmp_path}/the: suite/{name}.parquet"


def test_functions_lie_where_the_files_look_for_them() -> None:
    folder = task_files.task_folder("mini")
    text = (folder.parent / "utils.py").read_text(encoding="utf-8")
    for path in folder.glob("*.yaml"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if "../utils." in line:
                assert f"def {line.split('../utils.')[1].split()[0]}(" in text


def test_a_second_call_writes_nothing(tmp_path: Path) -> None:
    folder = task_files.task_folder("real")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert task_files.task_folder("real") == folder
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    (folder / "gqa.yaml").unlink()
    task_files.task_folder("real")
    assert (folder / "gqa.yaml").is_file()


def test_local_copies_take_the_place_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "data" / "GQA" / "testdev_balanced_instructions" / "testdev-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    file.touch()
    (file.parent / "train-00000-of-00001.parquet").touch()
    monkeypatch.setenv("ATP_EVAL_DATA", str(tmp_path / "data"))
    configs = load(task_files.task_folder("real"))
    assert configs["gqa"]["dataset_path"] == "parquet"
    assert configs["gqa"]["dataset_kwargs"] == {"data_files": {"testdev": [str(file)]}}
    assert configs["pope"]["dataset_path"] == "lmms-lab-encoder/POPE" and configs["pope"]["dataset_kwargs"] is None


def test_a_local_copy_without_the_split_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "VQAv2").mkdir(parents=True)
    monkeypatch.setenv("ATP_EVAL_DATA", str(tmp_path / "data"))
    with pytest.raises(UserError, match=r"VQAv2 has no data/validation-\*\.parquet.*hf download"):
        task_files.task_folder("real")


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ATP_EVAL_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot write to .*file: Not a directory.*ATP_EVAL_CACHE"):
        task_files.task_folder("real")


def test_a_missing_data_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATP_EVAL_DATA", "/no/such/folder")
    with pytest.raises(UserError, match="ATP_EVAL_DATA=/no/such/folder is not a folder"):
        task_files.task_folder("real")
