"""The wheel carries tasks, report templates and the embedded model, and works far from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), "."]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("atp_eval-*.whl")
    return path


def test_the_wheel_holds_the_data_and_nothing_of_the_workshop(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "atp_eval/_data/tasks/mini/gqa.yaml",
        "atp_eval/_data/tasks/real/vqav2.yaml",
        "atp_eval/_data/tasks/utils.py",
        "atp_eval/_data/reports/report.html.j2",
        "atp_eval/assets/tiny/model.safetensors",
        "atp_eval/assets/tiny/tokenizer.json",
    ):
        assert needed in names
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/", "docs/"))]
    assert wheel.stat().st_size < 16 * 2**20


def test_an_installed_wheel_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(site), "ATP_EVAL_CACHE": str(tmp_path / "cache")}
    code = (
        "import atp_eval, sys; from atp_eval.models import load_model, tiny; from atp_eval.paths import data_folder\n"
        "print(atp_eval.__file__); print(data_folder('tasks')); print(data_folder('reports'))\n"
        "print(load_model('tiny').geometry.cells)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, env=environment, check=True, capture_output=True, text=True
    ).stdout.split()
    assert all(path.startswith(str(site)) for path in found[:3])
    assert found[3] == "576"
    listed = subprocess.run(
        [str(site / "bin" / "atp-eval"), "list", "methods", "--json"],
        cwd=elsewhere,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "fastv" in listed.stdout
