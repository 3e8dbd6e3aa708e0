"""The claims ledger: all figures are there, contradictions come out of arithmetic, and no tiny figure ever gets in."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from synthetic import FakeMethod, write_run

from atp_eval import paper
from atp_eval.analysis import claims, recomputed, summarise
from atp_eval.analysis.claims import Claim, ledger
from atp_eval.analysis.recomputed import recompute
from atp_eval.paper import Figure, claimed_tables, printed_tables

REAL = {"model": "llava-hf/llava-1.5-7b-hf", "suite": "real", "image": "pad", "prompt": "vicuna_v1"}
METHODS = {"upper_bound": FakeMethod(0.9), "fastv@192": FakeMethod(0.8, [(2, 160)]), "grid@144": FakeMethod(0.7)}


def numbers(table: str, data: Any) -> Counter[float]:
    """Every number that the file gives as a result, with how often."""
    if isinstance(data, dict):
        asked = {"known_inconsistencies", "note", "layers", "n_target", "lambda_atp", "lambda_target"}
        return sum((numbers(table, v) for k, v in data.items() if k not in asked), Counter())
    if isinstance(data, list):
        return sum((numbers(table, v) for v in data), Counter())
    return Counter([float(data)]) if isinstance(data, (int, float)) and not isinstance(data, bool) else Counter()


def of(found: tuple[Claim, ...], key: str, row: str, column: str) -> Claim:
    (claim,) = [c for c in found if (c.key, c.row, c.column) == (key, row, column)]
    return claim


def test_every_figure_of_the_file_is_a_claim_once() -> None:
    found: dict[str, Counter[float]] = {}
    for claim in ledger():
        found.setdefault(claim.key.split(".")[0], Counter())[float(claim.printed.value)] += 1
    results = {k: v for k, v in printed_tables().items() if k not in ("source", paper.SETTINGS)}
    assert found == {key: numbers(key, section) for key, section in results.items()}


# ------------------------------------------------------------------ contradictions


def test_the_seven_contradictions_of_table_1_come_out_of_arithmetic() -> None:
    known = {
        (entry["row"], entry["benchmark"]): (entry["printed"], entry["recomputed"])
        for entry in printed_tables()["main_results"]["known_inconsistencies"]
    }
    found = {
        (c.row, c.column.removesuffix(", kept")): (c.printed.value, round(c.recomputed.value, 2))
        for c in ledger()
        if c.key == "main_results" and c.status == "contradicted" and c.recomputed
    }
    assert len(known) == 7 and found == known


def test_they_are_found_without_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = copy.deepcopy(printed_tables())
    del bare["main_results"]["known_inconsistencies"]
    monkeypatch.setattr(paper, "printed_tables", lambda: bare)
    tables = paper.claimed_tables.__wrapped__()
    wrong = [
        (row.label, column)
        for row in tables[0].rows
        for column, value in recompute(tables[0], row).items()
        if not value.allows(row.figures[column])
    ]
    assert len(wrong) == 7
    for module in (paper, claims, recomputed):
        assert "known_inconsistencies" not in Path(str(module.__file__)).read_text(encoding="utf-8")


def test_a_wrong_figure_elsewhere_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recomputed figure that agrees is shifted by one unit of its last digit, or of its tolerance, and more."""
    table = claimed_tables()[0]
    for row in table.rows:
        for column, value in recompute(table, row).items():
            figure = row.figures[column]
            width = value.high - value.low
            off = figure._replace(value=figure.value + width + 2.2 * figure.half)
            assert not (value.allows(figure) and value.allows(off)), (row.label, column)


def test_the_contradictions_outside_of_table_1() -> None:
    found = [(c.table, c.row, c.column) for c in ledger() if c.status == "contradicted" and c.key != "main_results"]
    assert found == [
        ("Tab. 2", "fixed 3/4", "kept before layer 1"),
        ("Tab. 2", "fixed 2/3", "kept before layer 4"),
        ("Tab. 2", "fixed 1/2", "kept before layer 4"),
        *[("Tab. 6", row, "tflops") for row in ("upper_bound", "fastv@144")],
        *[("Tab. 6", row, column) for row in ("atp@144", "atp@88") for column in ("accuracy_pct", "tflops")],
        ("Suppl. Tab. 4", "atp@88, trainable LM", "average_rate_pct"),
        ("Suppl. Tab. 4", "atp@144, trainable LM", "average_rate_pct"),
        ("Suppl. Tab. 6", "λ_ATP 0.1, λ_target 0.2", "average_rate_pct"),
        ("Suppl. Tab. 7", "atp@256", "average"),
    ]


def test_rounding_that_can_explain_a_figure_is_no_contradiction() -> None:
    """97.995 is printed as 97.9, and 101.507 as 101.6; scores that round to the printed ones would give both."""
    for key, printed, value in (("additional_benchmarks", 97.9, 97.995), ("prumerge_training_setting", 101.6, 101.507)):
        claim = of(ledger(), key, "atp@144", "average")
        assert claim.printed.value == printed and claim.recomputed is not None
        assert round(claim.recomputed.value, 3) == value and claim.status == "recomputed"


def test_arithmetic_by_hand() -> None:
    found = ledger()

    def value(key: str, row: str, column: str) -> float:
        computed = of(found, key, row, column).recomputed
        assert computed is not None
        return round(computed.value, 3)

    assert value("main_results", "fastv@192", "gqa, kept") == 85.0  # 52.7 / 62.0
    assert value("pruning_strategy", "atp@144", "tokens") == 143.875  # (4 * 576 + 10 * 126 + 10 * 88 + 8 * 20) / 32
    assert value("pruning_strategy", "fixed 2/3", "kept before layer 14") == 54  # a third of 162
    assert value("efficiency", "upper_bound", "kv_mb") == 301.99
    assert value("efficiency", "upper_bound", "tflops") == 2.986
    assert value("flash_attention", "atp@144, flash attention", "reduction_pct") == 45.066  # 1 - 237.7 / 432.7
    assert value("human_evaluation", "atp@144", "human_average") == 49.667
    assert value("human_evaluation", "atp@144", "h2") == 46.5  # 93 of 200
    # 88.5/91.6, 786/794, 81.2/83.3, 73.4/74.8, 81/83.8, 48.3/51.2, 79.4/81.7
    assert value("advanced_models.internvl2_8b", "atp@256", "average") == 97.056


def test_ranges_hold_what_rounding_allows() -> None:
    share = of(ledger(), "main_results", "atp@144", "gqa, kept").recomputed
    assert share is not None
    assert (share.low, share.high) == pytest.approx((100 * 59.45 / 62.05, 100 * 59.55 / 61.95))
    assert share.allows(Figure(95.8, "%")) and not share.allows(Figure(95.7, "%"))


# ------------------------------------------------------------------ measurements


def measured(tmp_path: Path, **protocol: Any) -> list[Claim]:
    """Claims with a measurement, of a run of three benchmarks whose protocol is the paper's but for these."""
    run = write_run(tmp_path / "run", methods=METHODS, benchmarks=("gqa", "mme", "pope"), protocol=REAL | protocol)
    return [c for c in ledger([run], summarise([run], resamples=50)) if c.measured]


def test_the_same_thing_on_the_same_model_is_measured(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", methods=METHODS, benchmarks=("gqa", "mme", "pope"), protocol=REAL)
    summary = summarise([run], resamples=50)
    found = ledger([run], summary)
    claim = of(found, "main_results", "fastv@192", "gqa")
    assert claim.status == "measured" and claim.measured == summary.method("fastv@192").scores["gqa"].score
    # a contradiction stays one, with the measurement beside
    kept = of(found, "main_results", "fastv@192", "gqa, kept")
    assert kept.status == "contradicted" and kept.measured == summary.method("fastv@192").scores["gqa"].retention
    assert of(found, "main_results", "fastv@192", "pope").status == "measured otherwise"
    assert "F1" in of(found, "main_results", "fastv@192", "pope").note
    assert of(found, "main_results", "fastv@192", "average").measured is None  # three of seven benchmarks
    assert of(found, "main_results", "fastv@192", "sqa").status == "not measured"
    assert of(found, "main_results", "fastv@128", "gqa").status == "not measured"
    assert {(c.key, c.row) for c in found if c.measured and c.column != "tokens"} == {
        ("main_results", "upper_bound"), ("main_results", "fastv@192"), ("pruning_strategy", "upper_bound"),
        ("prumerge_training_setting", "upper_bound"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [
        {"model": "tiny", "suite": "mini"},
        {"model": "tiny"},
        {"suite": "mini"},
        {"model": "llava-hf/llava-1.5-13b-hf"},
        {"model": "/models/llava-hf/llava-1.5-7b-hf"},
        {"image": "crop"},
        {"prompt": "hf"},
    ],
)
def test_nothing_is_measured_on_another_model_suite_or_protocol(tmp_path: Path, other: dict[str, str]) -> None:
    assert measured(tmp_path) and not measured(tmp_path / "other", **other)


def test_a_run_of_some_documents_measures_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", methods=METHODS, protocol=REAL)
    short = type(run)(run.path, run.manifest.model_copy(update={"config": run.manifest.config | {"limit": 8}}))
    assert not [c for c in ledger([short], summarise([short], resamples=50)) if c.measured]


def test_of_runs_that_are_compared_by_force_only_the_right_one_is_read(tmp_path: Path) -> None:
    """The tiny model's upper bound must not become the reference of the 7B model's scores either."""
    tiny = write_run(tmp_path / "tiny", methods=METHODS | {"atp@144": FakeMethod(0.8, [(2, 120)])}, benchmarks=("gqa",))
    real = write_run(tmp_path / "real", methods={"fastv@192": METHODS["fastv@192"]}, benchmarks=("gqa",), protocol=REAL)
    found = ledger([tiny, real], summarise([tiny, real], resamples=50))
    assert {(c.row, c.column) for c in found if c.measured} == {("fastv@192", "gqa"), ("fastv@192", "tokens")}


def test_every_claim_that_is_not_measured_says_what_would(tmp_path: Path) -> None:
    for claim in ledger():
        assert claim.measured is None and claim.needs
    command = of(ledger(), "main_results", "fastv@192", "gqa").needs
    assert command == (
        "`atp-eval run --model llava-hf/llava-1.5-7b-hf --prompt vicuna_v1 "
        "--tasks gqa,mmb,mme,pope,seed,sqa,vqav2 --methods upper_bound,fastv@192`"
    )
