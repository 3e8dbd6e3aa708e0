"""`atp-eval sweep` end to end on a random checkpoint: it plans, answers once, goes on, shares the work; exit codes."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bundles import small_checkpoint

from atp_eval import cli
from atp_eval.answering import Answerer
from atp_eval.records import read_run
from atp_eval.sweep import Shard, plan, planning
from atp_eval.sweep.settings import load_sweep
from sweep.files import write

FAMILIES = [
    {"panel": "before", "name": "grid", "spec": "grid:layer=0"},
    {"panel": "before", "name": "random", "spec": "random:layer=0", "seeds": [0, 1], "role": "random"},
    {"panel": "inside", "name": "FastV", "spec": "fastv"},
]
HERE = ["upper_bound", "grid@18:layer=0", "grid@9:layer=0", "fastv@18"]  # 36 tokens, 4 layers: fastv@9 leaves nothing
DRAWN = [f"random@{budget}:layer=0{seed}" for budget in (18, 9) for seed in ("", ",seed=1")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and a sweep of it."""
    home = tmp_path_factory.mktemp("sweep")
    run = {"suite": "mini", "batch_size": 4}
    model = str(small_checkpoint(home / "model"))
    write(home, families=FAMILIES, budgets=[18, 9], model=model, tasks=["gqa", "mme"], limit=2, run=run)
    return home


@pytest.fixture(scope="module")
def finished(home: Path) -> Path:
    """The folder of a finished sweep."""
    assert sweep(home, "-o", str(home / "out")) == 0
    return home / "out"


def sweep(home: Path, *args: str) -> int:
    """The exit code of the command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["atp-eval", "sweep", str(home / "mine.yaml"), *args])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 0
    return 0


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How many questions of each benchmark each method is asked from now on."""
    counts: Counter[tuple[str, str]] = Counter()
    answer = Answerer._answer_batch

    def counting(self: Answerer, batch: Any) -> None:
        counts.update((method, x.ask.benchmark) for x in batch.loaded for method in batch.methods)
        answer(self, batch)

    monkeypatch.setattr(Answerer, "_answer_batch", counting)
    return counts


def test_a_dry_run_says_what_it_takes_and_makes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(home, "--dry-run", "--json", "-o", str(home / "dry")) == 0
    planned = json.loads(capsys.readouterr().out)
    assert sorted(planned["methods"]) == sorted([*HERE, *DRAWN])
    assert planned["to_answer"] == planned["methods"]
    assert planned["answers"] == 8 * (2 + 2)
    assert planned["recorded"] == 0
    (refused,) = planned["out_of_reach"]
    assert (refused["family"], refused["budget"]) == ("FastV", 9)
    assert "fastv@9 is out of reach" in refused["reason"]
    assert sweep(home, "--dry-run", "-o", str(home / "dry")) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "8 methods; 8 of them to answer" in shown and "32 answers, 0 of them there" in shown
    assert "out of reach: FastV (inside) at 9: @… is out of reach" in shown
    assert not (home / "dry").exists()


def test_it_answers_and_writes_table_and_figure(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = read_run(finished / "run-2")
    assert sorted(run.manifest.methods) == sorted([*HERE, *DRAWN])
    assert len(run.results()) == 8 * 2
    endings = sorted(path.suffix for path in finished.glob("mine-2.*"))
    assert endings == [".csv", ".json", ".md", ".pdf", ".png", ".svg"]
    rows = json.loads((finished / "mine-2.json").read_text())["rows"]
    assert [(row["family"], row["budget"], row["tokens"]) for row in rows] == [
        *[("grid", 18, 18), ("grid", 9, 9), ("random", 18, 18), ("random", 9, 9)],
        *[("FastV", 18, 18), ("FastV", 9, None)],
    ]
    assert "| FastV |" in (finished / "mine-2.md").read_text()


def test_the_same_command_asks_nothing_twice(
    home: Path, finished: Path, asked: Counter[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "mine-2.json").read_text()
    assert sweep(home, "-o", str(finished), "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == json.loads(before)["rows"]
    (finished / "run-2" / "fastv@18" / "gqa" / "results.json").unlink()  # scored again from what is recorded
    assert sweep(home, "-o", str(finished)) == 0
    assert (finished / "run-2" / "fastv@18" / "gqa" / "results.json").exists()
    assert not asked
    planned = plan(load_sweep(str(home / "mine.yaml")), finished)
    assert (planned.recorded, planned.open_tasks) == (planned.answers, [])


def test_it_goes_on_after_ctrl_c(
    home: Path, tmp_path: Path, asked: Counter[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: Answerer, records: Any) -> None:
        if records[0].benchmark == "mme":
            raise KeyboardInterrupt
        keep(self, records)

    keep = Answerer._keep
    monkeypatch.setattr(Answerer, "_keep", interrupted)
    assert sweep(home, "-o", str(tmp_path)) == 130
    assert "goes on where it stopped" in capsys.readouterr().err
    monkeypatch.setattr(Answerer, "_keep", keep)
    asked.clear()
    assert sweep(home, "-o", str(tmp_path)) == 0
    assert {benchmark for _, benchmark in asked} == {"mme"}
    assert set(asked.values()) == {2}


def test_shards_share_the_methods_and_the_table_reads_all(
    home: Path, finished: Path, tmp_path: Path, asked: Counter[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = load_sweep(str(home / "mine.yaml"))
    shares = [set(plan(found, tmp_path, shard=Shard(i, 2)).run.methods) for i in (1, 2)]
    assert shares[0] & shares[1] == {"upper_bound"}
    assert shares[0] | shares[1] == {*HERE, *DRAWN}
    assert abs(len(shares[0]) - len(shares[1])) <= 1
    for share in shares:  # a budget is dealt out before the next one: the dear ones are not all in one share
        assert sum("@18" in method for method in share) == 2

    assert sweep(home, "-o", str(tmp_path), "--shard", "1/2") == 0
    assert {method for method, _ in asked} == shares[0]
    partly = json.loads((tmp_path / "mine-2.json").read_text())["rows"]
    assert any(row["missing"] and row["missing"].startswith("not finished") for row in partly)
    assert sweep(home, "-o", str(tmp_path), "--shard", "2/2") == 0
    whole = json.loads((tmp_path / "mine-2.json").read_text())
    assert whole["rows"] == json.loads((finished / "mine-2.json").read_text())["rows"]
    assert {run["name"] for run in whole["runs"]} == {"run-2-1of2", "run-2-2of2"}

    asked.clear()
    assert plan(found, tmp_path).run.methods == []
    assert sweep(home, "-o", str(tmp_path)) == 0
    assert not asked
    assert not (tmp_path / "run-2").exists()


def test_a_method_with_other_parameters_is_not_finished(home: Path, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "run-2", tmp_path / "run-2")
    found = load_sweep(str(home / "mine.yaml"))
    assert plan(found, tmp_path).open_tasks == []
    path = tmp_path / "run-2" / "run.json"
    manifest = json.loads(path.read_text())
    manifest["methods"]["fastv@18"]["weights"] = "of another adapter"
    path.write_text(json.dumps(manifest))
    assert plan(found, tmp_path).open_tasks == ["gqa", "mme"]  # `evaluate` then says what differs
    assert plan(found, tmp_path / "new", others=[tmp_path / "run-2"]).run.methods == ["upper_bound", "fastv@18"]


def test_answers_to_other_questions_are_no_shard(home: Path, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "run-2-1of2").mkdir()
    (tmp_path / "run-2-1of2" / "run.json").write_bytes((finished / "run-2" / "run.json").read_bytes())
    found = load_sweep(str(home / "mine.yaml"))
    assert [path.name for path in plan(found, tmp_path).elsewhere] == ["run-2-1of2"]
    assert plan(found.model_copy(update={"limit": None}), tmp_path).elsewhere == ()


def test_a_table_is_made_of_what_is_there_without_the_model(
    home: Path, finished: Path, tmp_path: Path, asked: Counter[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "model_config", lambda name: pytest.fail("the model was looked for"))
    for path in finished.glob("mine-2.*"):
        path.unlink()
    assert sweep(home, "-o", str(finished), "--table-only") == 0
    assert (finished / "mine-2.svg").exists()
    elsewhere = tmp_path / "new"
    assert sweep(home, "-o", str(elsewhere), "--no-run", "--from", str(finished / "run-2")) == 0
    assert (elsewhere / "mine-2.md").read_text() == (finished / "mine-2.md").read_text()
    assert not asked


def test_what_another_folder_holds_is_not_asked_again(
    home: Path, finished: Path, tmp_path: Path, asked: Counter[Any]
) -> None:
    more = [*FAMILIES, {"panel": "inside", "name": "grid", "spec": "grid", "budgets": [18]}]
    data = load_sweep(str(home / "mine.yaml"))
    path = write(
        tmp_path, families=more, budgets=[18, 9], model=data.model, tasks=list(data.tasks), limit=2, run=data.run
    )
    assert Path(path).stem == "mine"
    assert sweep(tmp_path, "-o", str(tmp_path / "out"), "--from", str(finished / "run-2")) == 0
    assert {method for method, _ in asked} == {"upper_bound", "grid@18"}
    rows = json.loads((tmp_path / "out" / "mine-2.json").read_text())["rows"]
    assert [row["family"] for row in rows if row["missing"]] == ["FastV"]


@pytest.mark.parametrize(
    ("changes", "args", "said"),
    [
        ({"families": [{"name": "x", "spec": "fastvv"}]}, (), "unknown method 'fastvv'. Did you mean: fastv"),
        ({"families": [{"name": "x", "spec": "fastv:lair=1"}]}, (), "family 'x': unknown parameter of fastv 'lair'"),
        ({"budgets": [0]}, (), "budgets"),
        ({"tasks": ["gqaa"]}, (), "unknown benchmark 'gqaa'. Did you mean: gqa"),
        ({"run": {"model": "tiny"}}, (), "run.model: the file's families, its model and --output decide that"),
        ({"run": {"methods": ["grid@144"]}}, (), "run.methods: the file's families"),
        ({"run": {"lmit": 3}}, (), "unknown key 'lmit'"),
        ({}, ("--limit", "0"), "--limit = 0"),
        ({}, ("--shard", "3/2"), "--shard = '3/2': write the number of a share"),
        ({}, ("--shard", "half"), "--shard = 'half'"),
        ({}, ("--ray", "yes"), "--ray yes: write --ray local"),
        ({}, ("--from", "nowhere"), "nowhere is not a run folder"),
        ({}, ("--tasks", "docvqa"), "docvqa"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_loaded(
    tmp_path: Path,
    changes: dict[str, object],
    args: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "model_config", lambda name: pytest.fail("the model was loaded"))
    write(tmp_path, **changes)
    assert sweep(tmp_path, *args) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1 and captured.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_a_table_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    assert sweep(tmp_path, "--table-only", "-o", str(tmp_path / "out")) == 2
    assert "there are no answers in" in capsys.readouterr().err


def test_a_sweep_out_of_reach_altogether_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, families=[{"name": "x", "spec": "fastv"}], budgets=[8, 9])
    assert sweep(tmp_path, "--dry-run", "-o", str(tmp_path / "out")) == 2
    assert "tiny can do nothing of this sweep: fastv@9 is out of reach" in capsys.readouterr().err


def test_a_benchmark_that_fails_is_exit_code_1_and_the_others_are_shown(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from atp_eval import driver
    from atp_eval.errors import TaskFailure

    def failing(view: Any, benchmark: Any, *args: Any, **options: Any) -> Any:
        if (view.method, benchmark.name) == ("fastv@18", "gqa"):
            raise TaskFailure("gqa with fastv@18 failed")
        return evaluate(view, benchmark, *args, **options)

    evaluate = driver.evaluate
    monkeypatch.setattr(driver, "evaluate", failing)
    assert sweep(home, "-o", str(tmp_path)) == 1
    assert "gqa with fastv@18 failed" in capsys.readouterr().err
    rows = json.loads((tmp_path / "mine-2.json").read_text())["rows"]
    unfinished = [(row["family"], row["budget"]) for row in rows if row["missing"]]
    assert unfinished == [("FastV", 18), ("FastV", 9)]


def test_shipped_sweeps_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["atp-eval", "list", "sweeps", "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    (row,) = [row for row in json.loads(capsys.readouterr().out) if row["sweep"] == "baselines"]
    assert row["budgets"] == "192, 144, 128, 88, 64, 36"
