"""From run folders to a Summary and its files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from synthetic import METHODS, FakeMethod, Texts, write_run

from atp_eval.analysis import protocol_differences, summarise, write_summary
from atp_eval.benchmarks import MINI_MME
from atp_eval.errors import UserError
from atp_eval.records import Result, Run
from atp_eval.writer import write_atomically


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("run") / "one", benchmarks=("gqa", "mme", "pope"), documents=120)


def test_scores_are_lmms_evals_in_the_shown_unit(run: Run) -> None:
    summary = summarise([run], resamples=100)
    assert [b.name for b in summary.benchmarks] == ["gqa", "mme", "pope"]
    assert [b.unit for b in summary.benchmarks] == ["%", f"of {200 * len(MINI_MME)}", "%"]
    for result in run.results():
        score = summary.method(result.method).scores[result.benchmark]
        factor = 1.0 if result.benchmark == "mme" else 100.0
        assert score.score.value == pytest.approx(result.score * factor)
        assert score.reported == pytest.approx(result.score * factor)
    assert not summary.warnings


def test_methods_are_held_against_the_upper_bound(run: Run) -> None:
    summary = summarise([run], resamples=200)
    upper, random = summary.method("upper_bound"), summary.method("random@144")
    assert upper.retention is not None and random.retention is not None
    assert upper.retention.value == 100.0 and not upper.retention.bounded
    assert random.retention.low < random.retention.value < 100.0
    assert (upper.average_tokens, summary.method("grid@144").average_tokens) == (576.0, 144.0)
    assert summary.full_tokens == 576.0
    assert random.timing is not None and random.timing.ratio is not None
    assert random.timing.ratio.value == pytest.approx(0.6, abs=0.01)
    pairs = {(c.first, c.second): c.difference for c in summary.contrasts}
    difference = pairs["upper_bound", "random@144"]
    assert difference.value == pytest.approx(100 - random.retention.value)
    assert difference.low == pytest.approx(100 - random.retention.high)


def test_methods_are_tested_against_the_upper_bound_in_one_family_a_column(run: Run) -> None:
    summary = summarise([run], resamples=200)
    assert summary.method("upper_bound").test is None
    assert summary.method("upper_bound").scores["gqa"].test is None
    pruned = [m for m in summary.methods if not m.is_reference]
    for column in ("gqa", "mme", "pope", None):
        tests = [m.scores[column].test if column else m.test for m in pruned]
        known = [t for t in tests if t and t.p_holm is not None and t.comparisons == len(pruned) == 3]
        assert len(known) == 3
        assert max(t.p for t in known) <= max(t.p_holm or 0 for t in known)
        assert min(t.p_holm or 0 for t in known) == pytest.approx(min(1.0, 3 * min(t.p for t in known)))
        assert {t.kind for t in known} == {"McNemar" if column in ("mme", "pope") else "bootstrap"}
    random = summary.method("random@144").scores["pope"]
    assert random.test is not None and random.test.significant
    rows = run.samples().query("benchmark == 'pope'").pivot(index="doc_id", columns="method", values="score")
    lost = int(((rows["upper_bound"] == 1) & (rows["random@144"] == 0)).sum())
    assert random.test.lost == lost > 0
    assert (random.pictures, random.differing > 0) == (60, True)


def test_methods_of_equal_budgets_are_tested_against_each_other(tmp_path: Path) -> None:
    methods = {
        "upper_bound": METHODS["upper_bound"],
        "a@144": FakeMethod(0.9, [(0, 144)]),
        "b@144": FakeMethod(0.6, [(0, 144)]),
        "c@88": FakeMethod(0.6, [(0, 88)]),
    }
    run = write_run(tmp_path / "run", methods=methods, benchmarks=["gqa", "pope"], documents=200)
    summary = summarise([run], resamples=500)
    lead = summary.contrast("a@144", "b@144")
    assert lead is not None and lead.test is not None
    assert lead.test.kind == "bootstrap" and lead.test.significant and lead.test.comparisons == 1
    assert lead.difference.low > 0
    assert lead.scores["pope"].test is not None and lead.scores["pope"].test.kind == "McNemar"
    assert lead.scores["gqa"].difference.value + lead.scores["pope"].difference.value == pytest.approx(
        2 * lead.difference.value
    )
    unlike = summary.contrast("a@144", "c@88")
    assert unlike is not None and unlike.test is None and not unlike.scores
    upper = summary.contrast("upper_bound", "c@88")
    assert upper is not None and upper.test == summary.method("c@88").test
    frame = pd.read_csv({p.name: p for p in write_summary(summary, tmp_path / "out")}["contrasts.csv"])
    assert len(frame) == 6 + 2
    row = frame.query("benchmark == 'pope' and first == 'a@144' and second == 'b@144'").iloc[0]
    assert (row["test"], row["p_holm"]) == ("McNemar", pytest.approx(lead.scores["pope"].test.p_holm))


def test_pope_has_its_f1_beside_its_accuracy(tmp_path: Path) -> None:
    texts = Texts(right="yes", wrong="Yes.")
    run = write_run(tmp_path / "run", benchmarks=["gqa", "pope"], documents=120, texts=texts)
    summary = summarise([run], resamples=200)
    random = summary.method("random@144").scores["pope"].extra
    assert set(random) == {"F1", "precision", "recall", "yes"}
    assert not summary.method("random@144").scores["gqa"].extra
    # Every target is yes and wrong answers are "Yes.", which is neither: F1 leaves them out.
    assert random["F1"].score.value == random["precision"].score.value == 100.0
    assert random["F1"].retention is not None and random["F1"].retention.value == 100.0
    assert random["yes"].score.value == pytest.approx(summary.method("random@144").scores["pope"].score.value)
    assert random["yes"].retention is None
    frame = pd.read_csv({p.name: p for p in write_summary(summary, tmp_path / "out")}["metrics.csv"])
    assert len(frame) == 4 * 4


@pytest.mark.parametrize(("documents", "said"), [(24, "12 pictures are too few"), (200, None)])
def test_few_pictures_are_warned_of(tmp_path: Path, documents: int, said: str | None) -> None:
    summary = summarise([write_run(tmp_path / "run", benchmarks=["gqa"], documents=documents)], resamples=50)
    assert [said in w for w in summary.warnings] == [True] if said else not summary.warnings


def test_few_answers_that_differ_are_warned_of(tmp_path: Path) -> None:
    methods = {"upper_bound": METHODS["upper_bound"], "same@144": METHODS["upper_bound"]}
    run = write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=40)
    (warning,) = summarise([run], resamples=50).warnings
    assert warning.startswith("gqa: in fewer than 5 pictures do same@144 score otherwise")


def test_failures_and_invalid_answers_are_counted(tmp_path: Path) -> None:
    methods = {"upper_bound": METHODS["upper_bound"], "bad": FakeMethod(0.9, errors=0.3, invalid=0.3)}
    run = write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=60)
    bad = summarise([run], resamples=50).method("bad")
    result = next(r for r in run.results() if r.method == "bad")
    assert result.errors > 0 and result.invalid > 0
    assert bad.errors.value == pytest.approx(result.errors / 60)
    assert bad.invalid.value == pytest.approx(result.invalid / 60)
    assert bad.errors.low < bad.errors.value < bad.errors.high


def test_what_is_only_described_has_fewer_draws(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "atp_eval.analysis.measure.measure_agreement", lambda *_, resamples, **__: asked.append(resamples)
    )
    assert summarise([run], resamples=2500).descriptive_resamples == 2000
    assert summarise([run], resamples=50).descriptive_resamples == 50
    assert asked == [2000, 50]


def test_times_of_several_workers_are_warned_of(run: Run) -> None:
    config = {**run.manifest.config, "workers": "2 processes"}
    apart = Run(run.path, run.manifest.model_copy(update={"config": config}))
    (warning,) = summarise([apart], resamples=50).warnings
    assert "2 processes" in warning and "ratios of times say little" in warning


def test_without_an_upper_bound_there_are_scores_and_a_warning(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", methods={"grid@144": METHODS["grid@144"]}, benchmarks=["gqa"])
    summary = summarise([run], resamples=50)
    assert not summary.has_retention
    assert summary.method("grid@144").scores["gqa"].retention is None
    assert math.isfinite(summary.method("grid@144").scores["gqa"].score.value)
    assert any("upper_bound was not run" in w for w in summary.warnings)


def test_an_upper_bound_of_nothing_gives_no_retention_and_a_warning(tmp_path: Path) -> None:
    methods = {"upper_bound": FakeMethod(-1.0), "grid@144": METHODS["grid@144"]}
    summary = summarise([write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"])], resamples=50)
    assert not summary.has_retention
    (said,) = [w for w in summary.warnings if "scored nothing" in w]
    assert said.startswith("gqa: the upper bound scored nothing there") and "grid@144" in said


def test_a_score_that_the_samples_do_not_reproduce_is_reported(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", benchmarks=["pope"], documents=120)
    path = run.path / "grid@144" / "pope" / "results.json"
    result = Result.model_validate_json(path.read_text())
    write_atomically(path, result.model_copy(update={"score": result.score + 0.001}).model_dump_json())
    (warning,) = summarise([run], resamples=50).warnings
    assert warning.startswith("grid@144 on pope: lmms-eval reports")


def test_what_is_not_finished_is_named_and_the_rest_is_summarised(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", benchmarks=("gqa", "pope"), skip=[("fastv@144", "pope")])
    summary = summarise([run], resamples=50)
    assert set(summary.method("fastv@144").scores) == {"gqa"}
    assert any("is not finished: fastv@144 on pope" in w for w in summary.warnings)
    assert any("averages of fastv@144 are over 1 of 2 benchmarks" in w for w in summary.warnings)


def test_nothing_finished_is_an_error_that_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", benchmarks=["gqa"], skip=[(m, "gqa") for m in METHODS])
    with pytest.raises(UserError, match="nothing is finished in"):
        summarise([run])


def test_runs_share_an_upper_bound_and_repeated_labels_get_the_runs_name(tmp_path: Path) -> None:
    two = {name: METHODS[name] for name in ("upper_bound", "fastv@144")}
    one = {name: METHODS[name] for name in ("fastv@144", "grid@144")}
    runs = [
        write_run(tmp_path / "a", methods=two, benchmarks=["gqa"]),
        write_run(tmp_path / "b", methods=one, benchmarks=["gqa"]),
    ]
    summary = summarise(runs, resamples=50)
    assert [m.label for m in summary.methods] == ["upper_bound", "fastv@144 (a)", "fastv@144 (b)", "grid@144"]
    assert all(m.retention is not None for m in summary.methods)
    assert summary.method("fastv@144 (a)").retention == summary.method("fastv@144 (b)").retention


def test_a_run_named_twice_counts_once_and_equal_names_are_told_apart(run: Run, tmp_path: Path) -> None:
    assert summarise([run, run], resamples=20).to_json() == summarise([run], resamples=20).to_json()
    pair = [write_run(tmp_path / side / "run", methods={"grid@144": METHODS["grid@144"]}, documents=4) for side in "ab"]
    summary = summarise(pair, resamples=20)
    assert [m.label for m in summary.methods] == ["grid@144 (run)", "grid@144 (run #2)"]
    assert summary.runs == ("run", "run #2")


def test_documents_that_only_one_has_are_counted(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", methods={"upper_bound": METHODS["upper_bound"]}, benchmarks=["gqa"], documents=20),
        write_run(tmp_path / "b", methods={"grid@144": METHODS["grid@144"]}, benchmarks=["gqa"], documents=30),
    ]
    summary = summarise(runs, resamples=50)
    score = summary.method("grid@144").scores["gqa"]
    assert (score.samples, score.common, score.missing) == (30, 20, 10)
    assert any("10 documents are missing" in w for w in summary.warnings)


def test_protocols_differ_by_key_and_by_data(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", benchmarks=["gqa"], documents=4)
    b = write_run(tmp_path / "b", benchmarks=["gqa"], documents=4, protocol={"prompt": "vicuna_v1"})
    assert protocol_differences([a, a]) == {}
    assert protocol_differences([a, b]) == {"prompt": ["hf", "vicuna_v1"]}
    info = b.manifest.benchmarks["gqa"].model_copy(update={"hash": "f" * 16})
    other = Run(b.path, b.manifest.model_copy(update={"benchmarks": {"gqa": info}}))
    assert set(protocol_differences([a, other])) == {"prompt", "benchmarks.gqa"}


def test_the_same_run_gives_the_same_summary(run: Run) -> None:
    assert summarise([run], resamples=100).to_json() == summarise([run], resamples=100).to_json()


def test_files_hold_the_summary(run: Run, tmp_path: Path) -> None:
    summary = summarise([run], resamples=100)
    written = {path.name: path for path in write_summary(summary, tmp_path / "out")}
    data = json.loads(written["summary.json"].read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    assert data["methods"][1]["scores"]["gqa"]["retention"].keys() == {"value", "low", "high"}
    frame = pd.read_parquet(written["comparison.parquet"])
    assert len(frame) == 4 * (3 + 1)
    pd.testing.assert_frame_equal(frame, pd.read_csv(written["comparison.csv"]), check_dtype=False)
    table = written["comparison.md"].read_text()
    assert "| fastv@144 | 144.8 |" in table
    assert len({line.count("|") for line in table.splitlines() if line.startswith("|")}) == 1


def test_summary_json_has_no_nan(run: Run, tmp_path: Path) -> None:
    lonely = write_run(tmp_path / "run", methods={"m": FakeMethod(0.5, errors=1.0)}, benchmarks=["gqa"], documents=1)
    json.dumps(summarise([lonely], resamples=20).to_json(), allow_nan=False)
