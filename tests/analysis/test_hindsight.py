"""The choice in hindsight among fixed counts: by hand, against dealing at random, and from run folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import FakeMethod, write_run

from atp_eval.analysis import Hindsight, measure_hindsight, summarise
from atp_eval.analysis.hindsight import ladders
from atp_eval.analysis.reading import entries
from atp_eval.records import Run


def ladder(right: Any, tokens: tuple[float, ...] = (10.0, 20.0, 30.0), **columns: Any) -> dict[float, pd.DataFrame]:
    """right: [questions, scales] of 0 and 1."""
    right = np.asarray(right, dtype=float)
    base = {"benchmark": "gqa", "doc_id": range(len(right)), "kind": "color", "category": None}
    base["image_id"] = [f"picture {i // 2}" for i in range(len(right))]
    return {
        spent / 20: pd.DataFrame({**base, "score": right[:, i], "tokens": spent, **columns})
        for i, spent in enumerate(tokens)
    }


def measured(rows: dict[float, pd.DataFrame], **options: Any) -> Hindsight:
    found = measure_hindsight("atp", rows, **{"resamples": 300, **options})
    assert found is not None
    return found


# right at all scales, from the second on, at the last, at the first only, at none
FIVE = [[1, 1, 1], [0, 1, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]]


def test_the_least_scale_that_was_enough() -> None:
    found = measured(ladder(FIVE))
    assert {s: (rate.value, tokens.value) for s, (rate, tokens) in found.scales.items()} == {
        0.5: (0.4, 10.0),
        1.0: (0.4, 20.0),
        1.5: (0.6, 30.0),
    }
    assert found.least.right.value == pytest.approx(0.8)
    assert found.least.tokens.value == pytest.approx((10 + 20 + 30 + 10 + 10) / 5)
    assert found.least.scale == 1.0
    assert found.least.gain.value == pytest.approx(0.8 - 0.4)


def test_answers_that_last_are_those_of_the_largest_scale() -> None:
    found = measured(ladder(FIVE))
    assert found.lasting.right.value == pytest.approx(0.6)
    assert found.lasting.tokens.value == pytest.approx((10 + 20 + 30 + 10 + 10) / 5)
    assert measured(ladder([[1, 0, 1]] * 3)).lasting.tokens.value == 30.0
    assert measured(ladder([[1, 0, 1]] * 3)).least.tokens.value == 10.0


def test_luck_is_the_mean_over_deals() -> None:
    """Against dealing the right answers of each scale anew, often, within benchmark and kind."""
    rng = np.random.default_rng(0)
    right = rng.random((24, 3)) < [0.3, 0.5, 0.7]
    kinds = ["color"] * 10 + ["count"] * 14
    found = measured(ladder(right, kind=kinds)).luck
    rates, spent = [], []
    for _ in range(4000):
        dealt = right.copy()
        for part in (slice(0, 10), slice(10, 24)):
            for scale in range(3):
                dealt[part, scale] = rng.permutation(dealt[part, scale])
        rates.append(dealt.any(1).mean())
        spent.append(np.array([10, 20, 30])[dealt.argmax(1)].mean())
    assert found.right.value == pytest.approx(np.mean(rates), abs=0.004)
    assert found.tokens.value == pytest.approx(np.mean(spent), abs=0.1)


def test_independent_answers_gain_what_luck_gains_and_equal_ones_nothing() -> None:
    rng = np.random.default_rng(1)
    free = measured(ladder(rng.random((900, 3)) < 0.5))
    assert free.least.right.value == pytest.approx(1 - 0.5**3, abs=0.04)
    assert free.least.gain.value == pytest.approx(free.luck.gain.value, abs=0.04)
    assert free.luck.gain.low > 0.25
    same = measured(ladder(np.repeat(rng.random((900, 1)) < 0.5, 3, axis=1)))
    assert same.least.gain.value == 0.0 and same.luck.gain.low > 0.25


def test_intervals_hold_their_values() -> None:
    rng = np.random.default_rng(2)
    found = measured(ladder(rng.random((200, 3)) < [0.4, 0.6, 0.7]))
    for choice in (found.least, found.lasting, found.luck):
        for interval in (choice.right, choice.tokens):
            assert interval.low < interval.value < interval.high
    rate, tokens = found.scales[1.0]
    assert rate.low < rate.value < rate.high
    assert not tokens.bounded  # a fixed count is the same for every sample


def test_only_questions_that_all_scales_answered() -> None:
    rows = ladder(FIVE)
    rows[0.5] = rows[0.5].iloc[1:]
    assert measured(rows).questions == 4
    rows[1.0] = rows[1.0].iloc[:1]
    assert measure_hindsight("atp", rows) is None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Fixed counts at three scales, of them two of one ranking."""
    methods = {
        "upper_bound": FakeMethod(0.6),
        "atp@144": FakeMethod(0.8, [(1, (200, 240))]),
        "half": FakeMethod(0.5, [(1, 110)]),
        "whole": FakeMethod(0.7, [(1, 220)]),
        "other": FakeMethod(0.7, [(1, 90)]),
    }
    solved = {
        "half": "atp:adapter=a,layers=1-3,control=fixed,scale=0.5",
        "whole": "atp:adapter=a,layers=1-3,control=fixed",
        "other": "atp:adapter=b,layers=1-3,control=fixed,scale=0.5",
    }
    found = write_run(tmp_path_factory.mktemp("run") / "one", methods=methods, benchmarks=("gqa", "pope"))
    named = {label: {"solved": solved.get(label, label)} for label in methods}
    return Run(found.path, found.manifest.model_copy(update={"methods": named}))


def test_rankings_are_found_by_their_specs(run: Run) -> None:
    (found,) = ladders(entries([run])).items()
    assert found[0] == "atp:adapter=a,layers=1-3,control=fixed"
    assert {scale: entry.label for scale, entry in found[1].items()} == {0.5: "half", 1.0: "whole"}


def test_a_summary_holds_both_measures(run: Run) -> None:
    summary = summarise([run], resamples=50)
    assert [a.label for a in summary.adaptivity] == ["atp@144"]
    assert summary.adaptivity[0].wrong_minus_right is not None
    (found,) = summary.hindsight
    assert found.questions == 48
    assert found.scales[0.5][1].value == (576 + 7 * 110) / 8
    data = json.loads(json.dumps(summary.to_json(), allow_nan=False))
    assert data["hindsight"][0]["least"]["gain"].keys() == {"value", "low", "high"}
    assert data["adaptivity"][0]["tokens"]["mean"]["value"] == pytest.approx(summary.method("atp@144").average_tokens)


def test_a_run_of_before_objects_were_recorded_is_measured_without_them(run: Run, tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", methods={"atp@144": FakeMethod(0.8, [(1, (200, 240))])}, benchmarks=["gqa"])
    path = old.path / "atp@144" / "gqa" / "samples.parquet"
    pd.read_parquet(path).drop(columns=["objects", "asked_cells"]).to_parquet(path, index=False)
    (found,) = summarise([old], resamples=20).adaptivity
    assert found.objects is None and found.by_objects == () and found.wrong_minus_right is None
    assert found.levels
