"""What a bench says, by hand: medians, ratios within rounds, roofs, and fits of growth."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from atp_eval.analysis.bench import BenchSummary, summarise_bench
from atp_eval.analysis.growth import SHARE, bend, curves, fit, operations
from atp_eval.bench.records import Cell, Stages
from bench.made import growing_times, growth_cells, methods_cells, write_folder


@pytest.fixture
def plain(tmp_path: Path) -> BenchSummary:
    return summarise_bench(write_folder(tmp_path, methods_cells((1, 8)), refused={3: "too large"}))


def test_a_row_by_hand(plain: BenchSummary) -> None:
    upper, fastv, _ = plain.rows
    # rounds 0 to 6 take 1.00 to 1.06 of 0.1, 0.4 and 2 * 0.05 s; order statistics of seven: the ends
    assert upper.seconds["prefill"] == pytest.approx((0.4 * 1.03, 0.4, 0.4 * 1.06))
    assert upper.seconds["total"].value == pytest.approx(0.6 * 1.03)
    assert fastv.ratio_prefill == pytest.approx((0.5, 0.5, 0.5))
    assert fastv.ratio_first == pytest.approx((0.6, 0.6, 0.6))
    assert fastv.ratio_total == pytest.approx((0.4 / 0.6,) * 3)
    assert upper.is_reference and upper.ratio_total is None
    assert (fastv.tokens, upper.tokens) == (144, 576)
    assert upper.kv_bytes == 576 * 8 * 2 * 4 * 32 * 2  # tokens, layers, keys and values, heads, width, bf16
    assert upper.flops == pytest.approx(1e9 + 4e9 + 2e8)


def test_ratios_are_taken_within_rounds(tmp_path: Path) -> None:
    def drifting(cell: Cell, number: int) -> Stages:
        share = 1.0 if cell.method == "upper_bound" else 0.5
        return Stages(0.1, share * 2.0**number, 0.1)  # the machine gets slower; the ratio does not

    rows = summarise_bench(write_folder(tmp_path, methods_cells((1,)), times=drifting)).rows
    assert rows[1].ratio_prefill == pytest.approx((0.5, 0.5, 0.5))


def test_the_roof_is_the_limit_that_takes_longer(plain: BenchSummary) -> None:
    upper = plain.rows[0]
    prefill, decode = upper.rooflines["prefill"], upper.rooflines["decode"]
    # 4 GFLOP at 10 GFLOP/s are 0.4 s; 0.1 GB of weights at 1 GB/s 0.1 s, and a little for keys and values
    assert prefill.limit == "compute" and prefill.share.value == pytest.approx(0.4 / (0.4 * 1.03))
    # two steps: 0.2 GFLOP are 0.02 s, but each reads the weights and 640 tokens' fp32 keys and values
    cache = 640 * 8 * 2 * 128 * 4
    assert decode.limit == "memory"
    assert decode.share.value == pytest.approx(2 * (1e8 + cache) / 1e9 / (0.1 * 1.03))


def test_what_did_not_run_is_said_and_everything_is_json(plain: BenchSummary) -> None:
    assert [(str(n.cell), n.why) for n in plain.not_run] == [
        ("fastv@144, batch 8, sdpa, 576 tokens, 3 new", "too large")
    ]
    data = json.loads(json.dumps(plain.to_json(), allow_nan=False))
    assert len(data["rows"]) == 3 and data["rows"][0]["total_ratio"] is None


def test_without_an_upper_bound_there_are_no_ratios(tmp_path: Path) -> None:
    (row,) = summarise_bench(write_folder(tmp_path, methods_cells((1,), methods=["fastv@144"]))).rows
    assert row.ratio_total is None and not row.is_reference


# ------------------------------------------------------------------ growth


def test_a_fit_finds_the_terms_it_was_made_of() -> None:
    xs = [144, 289, 576, 1156, 2304, 4624, 9216]
    found = fit(xs, [1 + 0.01 * x + 1e-6 * x * x for x in xs])
    assert found is not None and found.bends
    assert found.constant.value == pytest.approx(1) and found.linear.value == pytest.approx(0.01)
    assert found.quadratic.value == pytest.approx(1e-6)
    x = found.bend.value
    assert 1e-6 * x * x == pytest.approx(SHARE * (1 + 0.01 * x + 1e-6 * x * x))
    top = 9216.0
    assert found.share == pytest.approx(1e-6 * top * top / (1 + 0.01 * top + 1e-6 * top * top))


def test_noise_around_a_line_is_no_bend_and_a_true_bend_is_within_its_interval() -> None:
    xs = [144, 289, 576, 1156, 2304, 4624, 9216]
    rng = np.random.default_rng(3)
    straight = [(1 + 0.01 * x) * (1 + 0.03 * rng.standard_normal()) for x in xs]
    bent = [(1 + 0.01 * x + 1e-6 * x * x) * (1 + 0.03 * rng.standard_normal()) for x in xs]
    line, curve = fit(xs, straight), fit(xs, bent)
    assert line is not None and not line.bends and line.bend.high == math.inf
    assert curve is not None and curve.bends and curve.bend.low < 1203.4 < curve.bend.high


def test_errors_count_in_per_cent() -> None:
    xs = [1, 2, 4, 8, 500, 1000, 2000]
    off = [1, 1, 1, 1, 1.05, 0.95, 1.05]  # of 1 + x: tens at the far end, where the constant is not to be found
    found = fit(xs, [(1 + x) * factor for x, factor in zip(xs, off, strict=True)])
    assert found is not None and found.constant.value == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("terms", "x"), [((0, 1, 0), math.inf), ((0, 1, -1), math.inf), ((0, 0, 1), 0), ((9, 0, 1), 1), ((-1, 1, 1), 0)]
)
def test_where_the_square_term_makes_a_tenth(terms: tuple[float, ...], x: float) -> None:
    assert bend(np.array([terms], dtype=float))[0] == pytest.approx(x)


def test_too_few_points_have_no_fit() -> None:
    assert fit([1, 2, 3, 4], [1, 2, 3, 4]) is None and fit([1, 2, 3, 4, 5], [0, 1, 2, 3, 4]) is None


def test_each_axis_is_varied_at_the_base_of_the_others(tmp_path: Path) -> None:
    summary = summarise_bench(write_folder(tmp_path, growth_cells(), kind="growth", times=growing_times))
    found = {(c.axis.key, c.quantity.key, c.method): c for c in curves(summary)}
    tokens = found["tokens", "prefill", "upper_bound"]
    assert tokens.xs == (144, 289, 576, 1156, 2304, 4624, 9216) and tokens.fit is not None
    assert tokens.fit.quadratic.value == pytest.approx(2e-8, rel=0.05)
    assert found["batch", "prefill", "fastv@144"].xs == (1, 2, 4, 8, 16)
    answer = found["new", "decode", "upper_bound"]
    assert answer.xs == (3, 8, 16, 32, 64) and answer.fit is not None
    assert answer.fit.linear.value == pytest.approx(1e-3, rel=0.05) and not answer.fit.bends
    step = found["tokens", "step", "upper_bound"]
    assert [y.value for y in step.ys] == pytest.approx([1e-3] * 7, rel=0.01)
    assert operations(summary, "upper_bound") is not None
