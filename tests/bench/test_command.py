"""`atp-eval bench`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typed import call

from atp_eval.bench import machine
from bench.small import small_folder


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model's folder; the machine's peak is not measured for seconds."""
    monkeypatch.setattr(machine, "SIDES", {"cpu": 64})
    monkeypatch.setattr(machine, "BYTES", 2**16)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    return small_folder(tmp_path / "small")


QUICK = ("--random-weights", "--text-tokens", "12", "--new-tokens", "3", "--rounds", "1", "--device", "cpu")


def test_a_bench_from_the_command_line_and_again(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("bench", "--model", small, *QUICK, "--methods", "fastv@12,atp@18", "--attention", "sdpa,eager,flash")
    code, out, err = call(monkeypatch, capsys, *args, "--batch", "1,2", "--json")
    assert code == 0, err
    data = json.loads(out)
    assert len(data["rows"]) == 3 * 2 * 2 and len(data["not_run"]) == 6
    assert "not run" in err and "flash-attn" in " ".join(err.split())
    page = Path(data["page"])
    assert page.exists() and page.parent.parent == Path("runs") and page.with_name("results.csv").exists()
    before = (page.parent / "measured.jsonl").read_text()
    code, out, err = call(monkeypatch, capsys, *args, "--batch", "1,2", "--no-figures")
    assert code == 0 and "upper_bound" in out and "Batch 2, eager" in out, err
    assert (page.parent / "measured.jsonl").read_text() == before


def test_growth_from_the_command_line(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(
        monkeypatch, capsys, "bench", "growth", "--model", small, "--tokens", "9,16,36,64,144", "--batch", "1,2",
        "--new-tokens", "2,4", "--text-tokens", "12", "--rounds", "1", "--device", "cpu", "-o", "grown",
    )  # fmt: skip
    assert code == 0, err
    assert "stops being linear" in out
    names = {path.name for path in Path("grown").iterdir()}
    assert {"bench.json", "measured.jsonl", "bench.html", "results.json", "results.csv", "fits.csv", "figures"} <= names
    assert {p.name for p in Path("grown/figures").glob("*.pdf")} == {
        "bench-1-tokens.pdf", "bench-1-batch.pdf", "bench-1-new.pdf",
    }  # fmt: skip


def test_a_dry_run_says_the_plan_and_makes_nothing(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(
        monkeypatch, capsys, "bench", "--model", small, *QUICK, "--methods", "fastv@12", "--dry-run", "--json"
    )
    data = json.loads(out)
    assert code == 0 and [c["method"] for c in data["cells"]] == ["upper_bound", "fastv@12"], err
    assert data["weights_bytes"] > 0 and data["free_bytes"] > 0 and data["flops_in_all"] > 0
    code, out, _ = call(monkeypatch, capsys, "bench", "--model", small, *QUICK, "--methods", "fastv@12", "--dry-run")
    assert code == 0 and "TFLOP in all" in " ".join(out.split()) and not Path("runs").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("grwth",), "unknown bench 'grwth'. Did you mean: growth"),
        (("--batch", "one"), "--batch 'one': write whole numbers"),
        (("--model", "8b"), "unknown model '8b'"),
        (("--methods", "fastv@9999"), "fastv@9999"),
        (("--attention", "flash"), "nothing can be measured"),
        (("--layers", "3"), "add --random-weights"),
        (("--rounds", "0"), "--rounds 0"),
        (("--dtype", "int8"), "unknown dtype 'int8'"),
    ],
)
def test_bad_input_is_one_line(
    args: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(monkeypatch, capsys, "bench", *args)
    assert code == 2 and out == "" and message in err and err.count("\n") == 1
