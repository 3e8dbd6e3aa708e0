"""`atp-eval claims`: contradictions, whole tables, measurements, and what it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from synthetic import METHODS, FakeMethod, write_run
from typed import call

from atp_eval.analysis.claims import ledger

REAL = {"model": "llava-hf/llava-1.5-7b-hf", "suite": "real", "image": "pad", "prompt": "vicuna_v1"}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def test_contradictions_are_what_it_shows_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(monkeypatch, capsys, "claims")
    assert code == 0
    assert "Tab. 1, fastv@192, gqa, % of upper bound" in out and "85.00 [84.85, 85.15]" in out
    assert "fastv@128" not in out and "Of 344 figures: 20 contradicted" in out


def test_json_and_csv_hold_every_claim_of_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, told, _ = call(monkeypatch, capsys, "claims", "--table", "suppl7", "--json")
    _, written, _ = call(monkeypatch, capsys, "claims", "--table", "suppl7", "--csv")
    rows, table = json.loads(told), pd.read_csv(io.StringIO(written))
    # 7 scores, tokens and an average, for two rows of three models; Qwen2-VL has a score less
    assert len(rows) == len(table) == 2 * (9 + 9 + 8)
    assert table["printed"].tolist() == [row["printed"] for row in rows]
    (wrong,) = [row for row in rows if row["status"] == "contradicted"]
    assert (wrong["row"], wrong["printed"], round(wrong["recomputed"], 2)) == ("atp@256", 96.7, 97.06)
    _, told, _ = call(monkeypatch, capsys, "claims", "--table", "all", "--json")
    assert len(json.loads(told)) == len(ledger())


def test_a_run_of_the_same_thing_is_shown_and_the_tiny_model_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = METHODS | {"fastv@192": FakeMethod(0.8, [(2, 160)])}
    real = write_run(tmp_path / "real", methods=methods, benchmarks=("gqa",), protocol=REAL)
    tiny = write_run(tmp_path / "tiny", methods=methods, benchmarks=("gqa",))
    _, told, _ = call(monkeypatch, capsys, "claims", str(real.path), "--json")
    (kept,) = [row for row in json.loads(told) if row["measured"] is not None]
    assert (kept["row"], kept["column"]) == ("fastv@192", "gqa, kept") and kept["measured_low"] < kept["measured"]
    _, told, _ = call(monkeypatch, capsys, "claims", str(tiny.path), "--table", "all", "--json")
    assert {row["measured"] for row in json.loads(told)} == {None}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--table", "tab9"), "unknown table 'tab9'. Did you mean: tab"),
        (("--json", "--csv"), "--json and --csv: give one of them"),
        (("nowhere",), "nowhere is not a run folder"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    args: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(monkeypatch, capsys, "claims", *args)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1
