"""`atp-eval run` end to end through lmms-eval: a small random checkpoint, the mini-suite, the page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bundles import small_bundle, small_checkpoint
from methods.adapters import random_adapter

from atp_eval import cli, driver
from atp_eval.backend import AtpEval
from atp_eval.benchmarks import aggregate, get_benchmark
from atp_eval.errors import TaskFailure, UserError
from atp_eval.records import SampleRecord, read_run
from atp_eval.rounds import FOLDER
from atp_eval.run import Finished
from atp_eval.task_files import task_folder
from atp_eval.writer import RunWriter

METHODS = "upper_bound,fastv@18"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small-llava")


@pytest.fixture(scope="module")
def finished(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two benchmarks and two methods."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    assert run(*common(checkpoint, folder)) == 0
    return folder


def common(checkpoint: Path, folder: Path) -> list[str]:
    return [
        *("run", "--model", str(checkpoint), "--suite", "mini", "--tasks", "gqa,mme"),
        *("--methods", METHODS, "--limit", "3", "-o", str(folder)),
    ]


def run(*args: str) -> int:
    """The exit code of a command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["atp-eval", *args])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 0
    return 0


def test_a_run_leaves_scores_records_tables_and_a_page(finished: Path) -> None:
    opened = read_run(finished)
    assert opened.manifest.finished
    assert [(r.method, r.benchmark, r.samples) for r in opened.results()] == [
        ("upper_bound", "gqa", 3),
        ("upper_bound", "mme", 4),  # pairs: an odd limit is rounded up
        ("fastv@18", "gqa", 3),
        ("fastv@18", "mme", 4),
    ]
    rows = opened.samples()
    assert len(rows) == 14
    assert set(rows["prompt"].str.contains("Answer the question using a single word or phrase.")) == {True}
    assert (finished / "report.html").stat().st_size > 1000
    assert list((finished / "images").glob("*.webp"))


def test_scores_of_samples_add_up_to_those_of_lmms_eval(finished: Path) -> None:
    opened = read_run(finished)
    for result, rows in ((r, opened.samples()) for r in opened.results()):
        own = rows[(rows["method"] == result.method) & (rows["benchmark"] == result.benchmark)]
        columns = (own[name].tolist() for name in ("score", "category", "group"))
        assert aggregate(get_benchmark(result.benchmark), *columns) == pytest.approx(result.score)


def test_the_same_command_again_answers_nothing_twice(finished: Path, checkpoint: Path) -> None:
    files = sorted(finished.glob("*/*/samples.jsonl"))
    before = [f.read_bytes() for f in files]
    assert run(*common(checkpoint, finished)) == 0
    assert [f.read_bytes() for f in files] == before


def test_a_method_is_added_to_a_finished_run(finished: Path, checkpoint: Path) -> None:
    args = common(checkpoint, finished)
    args[args.index(METHODS)] = "grid@18"
    before = (finished / "fastv@18" / "gqa" / "samples.jsonl").read_bytes()
    assert run(*args) == 0
    assert list(read_run(finished).manifest.methods) == ["upper_bound", "fastv@18", "grid@18"]
    assert (finished / "fastv@18" / "gqa" / "samples.jsonl").read_bytes() == before


def test_starting_over_gives_the_same_answers(finished: Path, checkpoint: Path) -> None:
    def answers() -> list[object]:
        rows = read_run(finished).samples().sort_values(["method", "benchmark", "doc_id"])
        return rows[["method", "benchmark", "doc_id", "response", "trace"]].values.tolist()

    before = answers()
    (stale := finished / FOLDER / "agreed" / "64").parent.mkdir()
    stale.touch()
    assert run(*common(checkpoint, finished), "--no-resume") == 0
    assert answers() == before
    assert not stale.exists()


def test_an_adapter_runs_beside_the_others_and_another_one_in_its_place_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter, model = tmp_path / "adapter", small_bundle().model
    random_adapter(model).save(adapter)
    args = [*common(checkpoint, tmp_path / "run"), "--tasks", "gqa", "--methods", f"upper_bound,atp:adapter={adapter}"]
    assert run(*args) == 0
    averages = {r.method: r.samples for r in read_run(tmp_path / "run").results()}
    assert averages == {"upper_bound": 3, f"atp:adapter={adapter}": 3}
    random_adapter(model, seed=2).save(adapter)
    capsys.readouterr()
    assert run(*args) == 2
    assert "(its adapter) differ" in capsys.readouterr().err


def test_another_protocol_is_refused_by_name(
    finished: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*common(checkpoint, finished), "--image", "crop") == 2
    error = capsys.readouterr().err
    assert "holds a run of another protocol: image differ" in error and "--output" in error


@pytest.mark.parametrize("spec", ["fastv@9999", "fastv:layer=9,keep=4", "fastv:layer=1,keep=99", "pool@35"])
def test_budgets_that_do_not_fit_the_model_are_refused(
    spec: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = common(checkpoint, tmp_path / "none")
    args[args.index(METHODS)] = spec
    assert run(*args) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_an_unwritable_output_is_refused(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(*common(checkpoint, tmp_path / "file" / "run")) == 2
    assert "cannot write to" in capsys.readouterr().err


def test_a_run_of_which_nothing_could_be_scored_says_why(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*args: object, **options: object) -> None:
        raise TaskFailure("no score today")

    monkeypatch.setattr(driver, "evaluate", failing)
    assert run(*common(checkpoint, tmp_path)) == 1
    assert "no score today" in capsys.readouterr().err


def test_a_run_whose_workers_all_gave_up_before_they_wrote_anything_says_why(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = Finished(tmp_path, ["share 1 of 2 failed: 3 workers died of it", "share 2 of 2 failed"])
    monkeypatch.setattr("atp_eval.shards.start.start", lambda *args, **options: failed)
    assert run(*common(checkpoint, tmp_path), "--workers", "2") == 1
    assert "share 1 of 2 failed: 3 workers died of it; share 2 of 2 failed" in capsys.readouterr().err


def test_lmms_eval_gets_no_answers_of_an_earlier_model(checkpoint: Path, tmp_path: Path) -> None:
    RunWriter(tmp_path).append(
        [SampleRecord(method="grid@18", benchmark="gqa", doc_id=0, image_id=None, question="", target="", response="")]
    )
    with pytest.raises(UserError, match=r"holds answers of grid@18 already\. Name a new folder"):
        AtpEval(pretrained=str(checkpoint), method="grid@18", output=str(tmp_path))
    AtpEval(pretrained=str(checkpoint), method="random@18", output=str(tmp_path))


def test_show_gives_every_answer_and_its_tokens(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run("show", str(finished), "-b", "mme", "-d", "1", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["method"] for r in rows][:2] == ["upper_bound", "fastv@18"]
    assert rows[1]["average_input"] == 18.0
    assert run("show", str(finished), "-b", "mme", "-d", "1") == 0
    assert "18.0 tokens on average" in capsys.readouterr().out
    assert run("show", str(finished), "-d", "77") == 2


def test_a_dry_run_only_tells(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(*common(checkpoint, tmp_path / "none"), "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["methods"]["fastv@18"]["solved"].startswith("fastv:layer=")
    assert [b["task"] for b in plan["benchmarks"]] == ["gqa_mini", "mme_mini"]
    assert not (tmp_path / "none").exists()


def test_lmms_evals_own_command_line_gives_the_same_scores(finished: Path, checkpoint: Path, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "lmms_eval", "--model", "atp_eval", "--tasks", "gqa_mini", "--limit", "3"),
        *("--model_args", f"pretrained={checkpoint},method=fastv@18", "--batch_size", "16"),
        *("--include_path", str(task_folder("mini")), "--output_path", str(tmp_path), "--log_samples"),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (results,) = tmp_path.rglob("*_results.json")
    theirs = json.loads(results.read_text(encoding="utf-8"))["results"]["gqa_mini"]["exact_match,none"]
    (samples,) = tmp_path.rglob("*_samples_gqa_mini.jsonl")
    texts = [json.loads(line)["filtered_resps"] for line in samples.read_text(encoding="utf-8").splitlines()]
    run_ = read_run(finished)
    (ours,) = (r for r in run_.results() if (r.method, r.benchmark) == ("fastv@18", "gqa"))
    rows = run_.samples().query("method == 'fastv@18' and benchmark == 'gqa'").sort_values("doc_id")
    assert theirs == ours.score
    assert [t[0] if isinstance(t, list) else t for t in texts] == rows["response"].tolist()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--decode", "graph"], "records CUDA graphs, and the device is cpu"),
        (["--decode", "compiled", "--attention", "eager"], "takes attention sdpa, not eager"),
        (["--decode", "fast"], "decode"),
    ],
)
def test_a_way_of_decoding_that_cannot_be_is_refused(
    given: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["atp-eval", "run", "--dry-run", "--device", "cpu", "--output", str(tmp_path / "r"), *given]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_way_of_decoding_that_the_model_does_not_know_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("atp_eval.run.decodable", lambda model: False)
    args = common(checkpoint, tmp_path / "none")
    assert run(*args, "--decode", "compiled") == 2
    assert f"--decode compiled does not know how to decode {checkpoint}; leave it out" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not (tmp_path / "none").exists()
