"""What a method's tokens go with: hand-computed cases, samples that adapt and samples that do not."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from atp_eval.analysis import Adaptivity, measure_adaptivity
from atp_eval.analysis.adaptivity import object_bins
from atp_eval.analysis.question_sums import difference_sums, intervals, mean_sums, share_sums
from atp_eval.analysis.rank import spearman
from atp_eval.analysis.summary import plain
from atp_eval.trace import KeepTrace, Stage

GRID, LAYERS = (6, 6), 4


def trace(*tokens: int) -> str:
    """Of a sample that keeps so many tokens before layers 1, 2, …"""
    stages = tuple(Stage(layer, np.arange(36) < count) for layer, count in enumerate(tokens, 1))
    return json.dumps(KeepTrace(GRID, LAYERS, stages).to_json())


def questions(tokens: Any, **columns: Any) -> pd.DataFrame:
    """A row for each token count (entering layers 1 to 3); three questions a picture unless columns say otherwise."""
    count = len(tokens)
    base = {
        "benchmark": "gqa",
        "image_id": [f"picture {i // 3}" for i in range(count)],
        "level": None,
        "objects": np.nan,
        "asked_cells": np.nan,
        "reference": np.nan,
    }
    return pd.DataFrame({"doc_id": range(count), "trace": [trace(int(t)) for t in tokens], **base, **columns})


def measured(rows: pd.DataFrame, **options: Any) -> Adaptivity:
    found = measure_adaptivity("atp@9", rows, **{"resamples": 400, **options})
    assert found is not None
    return found


def test_averages_are_over_layer_inputs_and_points_over_what_enters() -> None:
    rows = questions([1, 1, 1, 1]).assign(trace=[trace(20, 8), trace(20, 4), trace(10, 4), trace(30, 8)])
    found = measured(rows)
    assert (found.questions, found.pictures) == (4, 2)
    samples = [(36 + 20 + 8 + 8) / 4, (36 + 20 + 4 + 4) / 4, (36 + 10 + 4 + 4) / 4, (36 + 30 + 8 + 8) / 4]
    assert found.tokens.mean.value == pytest.approx(np.mean(samples))
    assert found.tokens.deviation == pytest.approx(np.std(samples))
    assert list(found.points) == [1, 2]
    assert (found.points[1].mean.value, found.points[2].mean.value) == (20.0, 6.0)
    assert found.points[1].low == pytest.approx(np.quantile([20, 20, 10, 30], 0.05))
    assert found.points[1].high == pytest.approx(np.quantile([20, 20, 10, 30], 0.95))


def test_one_count_for_all_or_no_trace_at_all_is_not_measured() -> None:
    assert measure_adaptivity("fastv@9", questions([9] * 6)) is None
    assert measure_adaptivity("atp@9", questions([9, 8]).assign(trace=None)) is None


def test_rows_without_a_trace_are_left_out() -> None:
    rows = questions([9, 8, 7, 6], objects=[1, 2, 3, 4])
    rows.loc[0, "trace"] = None
    found = measured(rows)
    assert found.questions == 3
    assert found.objects is not None and found.objects.value == pytest.approx(-1.0)


def test_what_is_unknown_is_left_out() -> None:
    found = measured(questions([9, 8, 7, 6, 5, 4]))
    assert found.fine_minus_coarse is found.wrong_minus_right is found.objects is found.asked_cells is None
    assert found.levels == {} and found.by_objects == ()
    json.dumps(plain(found), allow_nan=False)


def test_tokens_that_follow_the_picture_lie_between_pictures() -> None:
    rng = np.random.default_rng(0)
    by_picture = np.repeat(rng.integers(5, 30, 40), 3)
    whole = measured(questions(by_picture)).between_pictures
    assert whole is not None and whole.value == pytest.approx(1.0)
    rest = measured(questions(rng.integers(5, 30, 120))).between_pictures
    assert rest is not None and rest.value < 0.25 and rest.low == pytest.approx(0.0, abs=0.02)
    half = measured(questions(by_picture // 2 + rng.integers(0, 13, 120))).between_pictures
    assert half is not None and half.low < 0.5 < half.high and half.low > 0.2 and half.high < 0.8


def test_the_share_is_the_one_of_the_analysis_of_variance() -> None:
    """By hand: means 2 and 5; MSB 6.75 * 2 = 13.5 (2 + 1 degrees), MSW 1, so (13.5 - 1) / 3 against 1."""
    values, cluster = np.array([1.0, 2, 3, 4, 5, 6]), np.array([0, 0, 0, 1, 1, 1])
    between = (13.5 - 1) / 3
    assert share_sums(values, cluster, 2).value == pytest.approx(between / (between + 1))


def test_pictures_with_one_question_count_less() -> None:
    """By hand: means 2 and 5 of 1 and 3 questions; MSB 6.75, MSW 1, and n0 = 4 - 10 / 4 = 1.5 questions a picture."""
    values, cluster = np.array([2.0, 4, 5, 6]), np.array([0, 1, 1, 1])
    between = (6.75 - 1) / 1.5
    assert share_sums(values, cluster, 2).value == pytest.approx(between / (between + 1))


def test_unequal_pictures_give_the_share_back() -> None:
    """Simulated with one to six questions a picture and a share of 0.4."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 7, 3000)
    cluster = np.repeat(np.arange(3000), sizes)
    values = rng.normal(0, np.sqrt(0.4), 3000)[cluster] + rng.normal(0, np.sqrt(0.6), len(cluster))
    assert share_sums(values + 100, cluster, 3000).value == pytest.approx(0.4, abs=0.02)


def test_differences_are_within_benchmarks_and_weigh_by_what_they_say() -> None:
    """gqa: 14 - 10 = 4 of 1 and 1; pope: 23 - 21 = 2 of 1 and 3. Weights 1/2 and 3/4. Over all it would be -0.75."""
    tokens = np.array([10.0, 14, 21, 21, 21, 23])
    fine = np.array([False, True, False, False, False, True])
    stratum = np.array([0, 0, 1, 1, 1, 1])
    found = difference_sums(tokens, fine, np.ones(6, dtype=bool), stratum, np.arange(6), 6)
    assert found.value == pytest.approx((4 * 0.5 + 2 * 0.75) / 1.25)


def test_a_benchmark_with_one_level_says_nothing_about_levels() -> None:
    rows = questions([9, 9, 20, 20, 8, 7], level=["coarse", "coarse", "fine", "fine", "middle", None])
    found = measured(rows.assign(benchmark=["gqa", "gqa", "pope", "pope", "gqa", "gqa"]))
    assert found.fine_minus_coarse is None
    assert {name: interval.value for name, interval in found.levels.items()} == {
        "coarse": (36 + 27) / 4,
        "middle": (36 + 24) / 4,
        "fine": (36 + 60) / 4,
    }


def adaptive(seed: int, slope: int) -> pd.DataFrame:
    """90 pictures with 3 to 8 objects, `slope` tokens an object, and as many for fine and for hard questions."""
    rng = np.random.default_rng(seed)
    objects = np.repeat(rng.integers(3, 9, 90), 3)
    level, reference = rng.choice(["coarse", "middle", "fine"], 270), rng.integers(0, 2, 270)
    tokens = 8 + slope * (objects - 3) + slope * (level == "fine") + slope * (reference == 0) + rng.integers(0, 5, 270)
    cells = rng.integers(0, 40, 270)
    return questions(tokens, objects=objects, level=level, reference=reference, asked_cells=cells)


def test_samples_that_adapt_show_it() -> None:
    found = measured(adaptive(0, 2))
    assert found.fine_minus_coarse is not None and found.wrong_minus_right is not None and found.objects is not None
    per_token = 3 / 4  # of four layer inputs three come after the prune point
    for difference in (found.fine_minus_coarse, found.wrong_minus_right):
        assert difference.low < 2 * per_token < difference.high
        assert difference.low > 0.5
    assert 0.6 < found.objects.low < found.objects.value < found.objects.high < 0.95
    assert [b.low for b in found.by_objects] == [b.high for b in found.by_objects] == [3, 4, 5, 6, 7, 8]
    means = [b.tokens.value for b in found.by_objects]
    assert means == sorted(means)
    assert all(b.tokens.low < b.tokens.value < b.tokens.high for b in found.by_objects)
    assert found.asked_cells is not None and found.asked_cells.low < 0 < found.asked_cells.high


def test_samples_that_do_not_adapt_do_not_show_it() -> None:
    """95 % intervals of nothing: most of 40 hold 0, in each of three figures."""
    held = np.zeros(3)
    for seed in range(40):
        found = measured(adaptive(seed, 0), resamples=100, seed=seed)
        for i, interval in enumerate((found.fine_minus_coarse, found.wrong_minus_right, found.objects)):
            assert interval is not None
            held[i] += interval.low <= 0 <= interval.high
    assert (held >= 34).all(), held


def test_questions_about_no_thing_are_no_question_about_few_cells() -> None:
    rows = questions([30, 30, 9, 10, 11, 12], asked_cells=[0, 0, 1, 2, 3, 4])
    found = measured(rows).asked_cells
    assert found is not None and found.value == pytest.approx(1.0)


def test_ranks_are_spearmans_in_one_benchmark_with_ties() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 6, 80).astype(float), rng.integers(0, 9, 80).astype(float)
    value, _ = spearman(x, y, np.zeros(80), np.arange(80), 80, 1, 0)
    assert value == pytest.approx(stats.spearmanr(x, y).statistic)


def test_resamples_are_ranked_anew() -> None:
    """Each bootstrap value is Spearman's correlation of the very rows that were drawn."""
    from atp_eval.analysis.significance import cluster_draws

    rng = np.random.default_rng(3)
    x, y, cluster = rng.integers(0, 5, 60).astype(float), rng.random(60).round(1), np.arange(60) // 4
    _, drawn = spearman(x, y, np.zeros(60), cluster, 15, 20, 7)
    (weights,) = cluster_draws(15, 20, 7)
    for row, found in zip(weights, drawn, strict=True):
        again = np.repeat(np.arange(60), row[cluster].astype(int))
        assert found == pytest.approx(stats.spearmanr(x[again], y[again]).statistic)


def test_ranks_are_taken_within_benchmarks() -> None:
    """Between two benchmarks tokens and objects fall together; within each they rise together."""
    x, y = np.array([1.0, 2, 3, 11, 12, 13]), np.array([21.0, 22, 23, 1, 2, 3])
    stratum = np.array([0, 0, 0, 1, 1, 1])
    value, drawn = spearman(x, y, stratum, np.arange(6), 6, 50, 0)
    assert value == pytest.approx(1.0)
    assert np.nanmin(drawn) == pytest.approx(1.0)
    constant, drawn = spearman(x, np.ones(6), stratum, np.arange(6), 6, 5, 0)
    assert np.isnan(constant) and np.isnan(drawn).all()


def test_many_numbers_of_objects_are_put_together() -> None:
    objects = np.arange(100, dtype=float)
    bins = object_bins(objects, most=4)
    assert bins[0][0] == 0 and bins[-1][1] == 99
    assert all(b[0] == a[1] + 1 for a, b in itertools.pairwise(bins))
    assert [high - low + 1 for low, high in bins] == pytest.approx([25] * 4, abs=1)
    assert object_bins(np.array([np.nan, 3.0, 3.0, 5.0])) == [(3, 3), (5, 5)]


def test_a_figure_without_spread_has_no_interval() -> None:
    part = mean_sums(np.array([1.0, 1.0, 5.0]), np.array([0, 0, 1]), 2, np.array([True, True, False]))
    assert not intervals({"a": part}, 100, 0)["a"].bounded
