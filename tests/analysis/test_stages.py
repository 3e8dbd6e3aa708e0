"""Time by stage, speed and memory: from batches worked out by hand, and from run folders old and new."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import METHODS, FakeMethod, write_run

from atp_eval.analysis import summarise
from atp_eval.analysis.reading import Entry, entries
from atp_eval.analysis.spending import on_front, spending
from atp_eval.analysis.stages import efficiency, mean_interval, measure_efficiency, pair
from atp_eval.records import read_run

NEW = {
    "upper_bound": FakeMethod(0.9, seconds=0.04, prefill=0.75, peak_bytes=9_000_000),
    "fastv@144": FakeMethod(0.8, [(2, 1)], seconds=0.02, prefill=0.5, peak_bytes=6_000_000),
}


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """A method to hang rows on."""
    return entries([write_run(tmp_path_factory.mktemp("run"), documents=8, benchmarks=("gqa",))])[1]


def rows(seconds: list[float], size: int = 2, **columns: Any) -> pd.DataFrame:
    """Whole batches of `size` questions of 3 tokens, half of whose time is prefill."""
    frame = pd.DataFrame(
        {
            "benchmark": "gqa",
            "doc_id": range(len(seconds) * size),
            "batch": np.repeat(range(2, 2 + len(seconds)), size),
            "batch_size": size,
            "seconds": np.repeat(seconds, size),
            "vision_seconds": 0.25,
            "new_tokens": 3.0,
            "peak_bytes": np.nan,
        }
    )
    return frame.assign(prefill_seconds=frame["seconds"] / 2).assign(**columns)


def test_stages_by_hand(entry: Entry) -> None:
    many = efficiency(entry, rows([1.0, 1.0, 2.0, 2.0, 2.0, 4.0, 8.0, 8.0]), None)
    assert many.llm.seconds == (2.0, 1.0, 8.0) and many.questions_per_second == (0.5, 0.125, 1.0)
    found = efficiency(entry, rows([1.0, 2.0, 8.0]), None)
    assert (found.batches, found.batch_size) == (3, 2)
    assert (found.llm.seconds.value, found.llm.ratio) == (2.0, None)
    assert found.prefill is not None and found.prefill.seconds.value == 1.0
    assert found.decode_seconds is not None and found.decode_seconds.value == 1.0
    assert found.questions_per_second.value == 0.5
    assert found.vision == (0.25, 0.25, 0.25)
    # two answers a batch, two tokens each after the first, in 1, 2 and 8 seconds of decoding
    assert found.tokens_per_second is not None and found.tokens_per_second.value == 4 / 2
    assert found.peak_bytes is None and found.peak_saved is None


def test_ratios_are_paired_batch_by_batch(entry: Entry) -> None:
    load = np.random.default_rng(0).uniform(1, 10, 40)
    upper = rows(list(load), prefill_seconds=np.repeat(0.8 * load, 2), peak_bytes=9e6)
    pruned = rows(list(0.5 * load), prefill_seconds=np.repeat(0.2 * load, 2), peak_bytes=7e6)
    found = efficiency(entry, pruned, pair(pruned, upper))
    assert found.llm.ratio == pytest.approx((0.5, 0.5, 0.5))
    assert found.prefill is not None and found.prefill.ratio == pytest.approx((0.25, 0.25, 0.25))
    assert found.peak_bytes == 7e6 and found.peak_saved == (2e6, 2e6, 2e6)


def test_peaks_of_batches_of_another_size_are_not_compared(entry: Entry) -> None:
    """One batch did not fit and was halved: its peak is that of another size."""
    upper = rows([1.0] * 8, peak_bytes=9e6)
    halved = rows([1.0] * 8, peak_bytes=7e6, batch_size=[1, 1] + [2] * 14)
    halved.loc[[0, 1], "peak_bytes"] = 1e6
    found = efficiency(entry, halved, pair(halved, upper))
    assert found.peak_saved is not None and found.peak_saved.value == 2e6 and found.batch_size == 2


def test_speed_counts_whole_batches_that_went_on_after_the_first_token(entry: Entry) -> None:
    assert efficiency(entry, rows([1.0] * 3, new_tokens=1.0), None).tokens_per_second is None
    resumed = rows([1.0, 2.0], size=2).drop(index=[1])  # of the first batch one answer was recorded before
    found = efficiency(entry, resumed, None).tokens_per_second
    assert found is not None and found.value == 4 / 2


def test_a_run_folder_from_end_to_end(tmp_path: Path) -> None:
    found = {e.label: e for e in summarise([write_run(tmp_path / "run", methods=NEW)], resamples=50).efficiency}
    upper, fastv = found["upper_bound"], found["fastv@144"]
    assert upper.llm.ratio is None and upper.is_reference
    assert upper.prefill is not None and upper.prefill.ratio is None and upper.peak_saved is None
    assert fastv.llm.ratio == pytest.approx((0.5, 0.5, 0.5))
    assert fastv.prefill is not None and fastv.prefill.ratio == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert (upper.peak_bytes, fastv.peak_bytes) == (9e6, 6e6)
    assert fastv.peak_saved is not None and fastv.peak_saved.value == 3e6
    assert fastv.batches == 3 * 5  # of 24 documents in batches of 4 the first is cold
    assert fastv.device == "cpu"


def test_runs_of_older_versions_are_read_as_unknown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", methods=METHODS)
    for path in run.path.rglob("samples.parquet"):
        pd.read_parquet(path).drop(columns=["prefill_seconds", "peak_bytes"]).to_parquet(path, index=False)
    for found in summarise([read_run(run.path)], resamples=50).efficiency:
        assert found.prefill is None and found.decode_seconds is None and found.tokens_per_second is None
        assert found.peak_bytes is None and found.llm.seconds.value > 0


def test_times_of_different_runs_are_not_paired(tmp_path: Path) -> None:
    upper = write_run(tmp_path / "a", methods={"upper_bound": NEW["upper_bound"]})
    fastv = write_run(tmp_path / "b", methods={"fastv@144": NEW["fastv@144"]})
    (found,) = [e for e in measure_efficiency(entries([upper, fastv])) if not e.is_reference]
    assert found.llm.ratio is None and found.peak_saved is None and found.llm.seconds.value > 0


def test_nothing_warm_leaves_a_method_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", documents=4)  # one batch, which is cold
    assert summarise([run], resamples=50).efficiency == ()


def test_the_mean_has_students_interval() -> None:
    assert mean_interval(np.array([1.0, 2.0, 3.0])) == pytest.approx(
        (2.0, 0.0, 2.0 + 4.302653 / math.sqrt(3)), abs=1e-6
    )
    assert not mean_interval(np.array([1.0])).bounded


# ------------------------------------------------------------------ what is kept against what is spent


def test_every_cost_of_a_method_stands_in_one_place(tmp_path: Path) -> None:
    summary = summarise([write_run(tmp_path / "run", methods=NEW)], resamples=50)
    upper, fastv = spending(summary)
    assert upper.is_reference and upper.flops_share == 1 and upper.ratio is None
    assert fastv.retention == summary.method("fastv@144").retention
    assert fastv.tokens == (2 * 576 + 6) / 8
    assert fastv.kv_bytes == (2 * 576 + 6) * 2 * 128 * 2
    assert fastv.ratio is not None and fastv.ratio.value == pytest.approx(0.5)
    cost = summary.fairness.row("fastv@144")
    assert cost is not None and (fastv.flops, fastv.flops_share) == (cost.flops, cost.flops_share)


def test_the_front_by_hand() -> None:
    #             cheap,  better, as dear and worse, dearest and no better, equal to the second
    assert on_front([1, 2, 2, 9, 2], [50, 80, 70, 80, 80]) == [True, True, False, False, True]
    assert on_front([], []) == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_front_points_rise_together_and_cover_the_rest(points: list[tuple[int, int]]) -> None:
    costs, scores = zip(*points, strict=True)
    front = sorted({p for p, on in zip(points, on_front(costs, scores), strict=True) if on})
    assert front == sorted(front, key=lambda p: p[1]) and len({c for c, _ in front}) == len(front)
    assert all(any(c <= cost and s >= score for c, s in front) for cost, score in points)
