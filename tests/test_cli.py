"""The command line: bad input is one line with the fix and exit code 2, and help answers without heavy imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typed import call

from atp_eval import listing

BAD = [
    (("run", "--tasks", "gqaa"), "unknown benchmark 'gqaa'. Did you mean: gqa"),
    (("run", "--methods", "fastvv@144"), "unknown method 'fastvv'. Did you mean: fastv"),
    (("run", "--methods", "fastv@0"), "fastv@0"),
    (("run", "--methods", "fastv:layer=-3,keep=9"), "layer=-3"),
    (("run", "--methods", "fastv:lair=3"), "unknown parameter of fastv 'lair'. Did you mean: layer"),
    (("run", "--methods", "fastv:keep=many"), "keep"),
    (("run", "--limit", "-1"), "--limit = -1"),
    (("run", "--batch-size", "0"), "--batch-size = 0"),
    (("run", "--image", "stretch"), "--image = 'stretch'"),
    (("run", "--tasks", "docvqa"), "docvqa"),
    (("run", "--config", "missing.yaml"), "cannot read settings missing.yaml"),
    (("report", "nowhere"), "nowhere is not a run folder"),
    (("show", "nowhere"), "nowhere is not a run folder"),
    (("list", "metods"), "unknown list 'metods'. Did you mean: methods"),
    (("tasks", "maxi"), "unknown suite 'maxi'"),
    (("train", "missing.yaml"), "cannot read settings missing.yaml"),
    (("adapter", "info", "nowhere"), "no adapter at 'nowhere'"),
    (("run", "--methods", "atp"), "atp needs an adapter"),
    (("run", "--methods", "atp:adapter=nowhere"), "no adapter at 'nowhere'"),
]


@pytest.mark.parametrize(("args", "message"), BAD)
def test_bad_input_is_one_line_with_the_fix(
    args: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, *args)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []  # nothing was begun


@pytest.mark.parametrize("args", [("--device", "cuda:7"), ("--device", "abacus"), ("--model", "no/such/model")])
def test_a_model_or_device_that_cannot_be_had_is_one_line(
    args: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call(monkeypatch, capsys, "run", *args)
    assert code == 2
    assert args[1] in err and err.count("\n") == 1


def test_an_interrupted_command_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(listing.LISTS, "runs", interrupted)
    code, _, err = call(monkeypatch, capsys, "list", "runs")
    assert code == 130
    assert err == "atp-eval: interrupted; the same command goes on where it stopped (train: with --resume)\n"


def test_unknown_options_exit_with_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(monkeypatch, capsys, "run", "--metods", "fastv")
    assert code == 2 and "--metods" in err


@pytest.mark.parametrize("what", ["methods", "benchmarks", "models", "runs"])
def test_every_list_has_json(what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(monkeypatch, capsys, "list", what, "--json")
    assert code == 0
    assert isinstance(json.loads(out), list)
    code, table, _ = call(monkeypatch, capsys, "list", what)
    assert code == 0 and table


def test_the_fifteen_benchmarks_and_their_upper_bounds_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {r["benchmark"]: r for r in json.loads(call(monkeypatch, capsys, "list", "benchmarks", "--json")[1])}
    assert len(rows) == 15
    assert rows["gqa"]["paper (LLaVA-1.5-7B)"] == 62.0
    assert rows["mme"]["paper (LLaVA-1.5-7B)"] == 1510.7


def test_help_shows_examples_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['atp-eval', 'run', '--help']\n"
        "from atp_eval import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'lmms_eval', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "HEAVY []" in found
    assert "Examples" in found and "atp-eval run --tasks gqa,mmb" in found


def test_the_folder_of_a_suites_tasks_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(monkeypatch, capsys, "tasks", "real")
    assert code == 0 and (Path(out.strip()) / "vqav2.yaml").exists()


def test_the_shim_is_the_command() -> None:
    shim = Path(__file__).parents[1] / "cli.py"
    found = subprocess.run([sys.executable, str(shim), "--version"], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("atp-eval ")


def test_the_list_of_methods_names_what_a_spec_can_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(monkeypatch, capsys, "list", "methods", "--json")
    told = {row["method"]: row["parameters"] for row in json.loads(out)}
    assert code == 0
    assert told["atp"] == "adapter, layers, control, scale"
    assert told["fastv"] == "layer, keep, positions, r, rule"
    assert told["upper_bound"] == ""


def test_the_list_of_adapters_names_their_specs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(monkeypatch, capsys, "list", "adapters", "--json")
    assert code == 0
    assert [(row["adapter"], row["spec"], row["model"]) for row in json.loads(out)] == [
        ("tiny-144", "atp@144", "tiny"),
        ("tiny-144-trained", "atp:adapter=tiny-144-trained", "tiny"),
        ("tiny-88", "atp@88", "tiny"),
    ]
