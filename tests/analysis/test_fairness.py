"""Equal budgets? Averages in every convention, what they cost, and which rows are to be told apart."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import GEOMETRY, METHODS, FakeMethod, write_run

from atp_eval.analysis import Cost, compare_budgets, summarise, write_summary
from atp_eval.analysis.fairness import like_budgets, model_sizes, prefill_flops, prompts
from atp_eval.analysis.tokens import Entering, TokenAverages, entering
from atp_eval.analysis.traces import read_traces
from atp_eval.cost import KNOWN, Place
from atp_eval.cost.flops import engine_prefill, kv_bytes, prefill
from atp_eval.records import Run
from atp_eval.trace import KeepTrace, Stage


def cost(label: str, tokens: float, *, is_reference: bool = False) -> Cost:
    averages = TokenAverages(tokens, tokens, tokens, 576.0)
    return Cost(label, is_reference, averages, tokens, tokens, None, None, None)


def warnings(**tokens: float) -> tuple[str, ...]:
    rows = [cost(label.replace("_", "@"), value) for label, value in tokens.items()]
    return compare_budgets([cost("upper_bound", 576.0, is_reference=True), *rows]).warnings


def test_rows_within_a_percent_are_equal() -> None:
    found = compare_budgets(
        [cost("a@144", 144.0), cost("upper_bound", 576.0, is_reference=True), cost("b@144", 145.44)]
    )
    assert found.groups == (("a@144", "b@144"),) and found.warnings == ()


def test_rows_that_ask_for_one_budget_and_differ_are_named_with_how_much() -> None:
    assert warnings(a_144=144.0, b_144=151.2, c_144=145.0) == (
        "Rows at @144 do not have equal budgets: against a@144 with 144.0 visual tokens at layer inputs, b@144 has "
        "151.2 (5.0 % more).",
    )


def test_several_budgets_in_one_table_are_told_apart() -> None:
    found = warnings(a_144=144.0, a_64=64.2, b_144=143.8, b_64=64.0)
    assert found == (
        "Visual tokens at layer inputs go from 64.0 to 144.0 in one table, 125 % more. Compare within a budget: 64.0 "
        "(a@64, b@64); 143.8 (a@144, b@144).",
    )


def test_a_row_without_a_budget_in_its_name_is_compared_too() -> None:
    rows = [cost("pool:rows=12,cols=12", 144.0), cost("fastv@144 (a)", 143.75), cost("schedule:layers=1", 210.0)]
    (found,) = compare_budgets(rows).warnings
    assert "go from 143.8 to 210.0" in found and "46.1 % more" in found
    assert compare_budgets(rows[:2]).warnings == ()


def test_both_kinds_of_difference_are_said() -> None:
    first, second = warnings(a_144=144.0, b_144=160.0, c_64=64.0)
    assert first.startswith("Rows at @144") and "11.1 % more" in first
    assert second.endswith("64.0 (c@64); 144.0 (a@144); 160.0 (b@144).")


def test_long_lists_are_cut() -> None:
    (found,) = warnings(**{f"m{i}_144": 144.0 for i in range(9)}, x_64=64.0)
    assert "144.0 (m0@144, m1@144, m2@144, m3@144 and 5 others)" in found


def test_nothing_to_compare_is_no_warning() -> None:
    assert warnings() == warnings(a_144=144.0) == ()
    assert compare_budgets([]).groups == ()


def test_rows_are_not_equal_by_way_of_others() -> None:
    assert like_budgets({"c": 101.6, "a": 100.0, "b": 100.8}) == (("a", "b"), ("c",))


@given(st.dictionaries(st.text("abcdefgh", min_size=1), st.floats(1, 600), max_size=12))
def test_groups_hold_everyone_once_and_nobody_too_far(averages: dict[str, float]) -> None:
    groups = like_budgets(averages)
    assert sorted(label for group in groups for label in group) == sorted(averages)
    for group in groups:
        values = [averages[label] for label in group]
        assert max(values) <= min(values) * 1.01 * (1 + 1e-8)
    least = [min(averages[label] for label in group) for group in groups]
    assert least == sorted(least)
    for a, b in itertools.pairwise(groups):
        assert min(averages[label] for label in b) > min(averages[label] for label in a) * 1.01


# ------------------------------------------------------------------ from traces


def text(*stages: tuple[int, int], layers: int = 8, merged: int = 0) -> str:
    cells = np.arange(576)
    found = tuple(Stage(layer, cells < count, merged) for layer, count in stages)
    return json.dumps(KeepTrace((24, 24), layers, found).to_json())


def read(*texts: str | None) -> Entering | None:
    return entering(read_traces(texts))


def test_flops_are_those_of_the_closed_forms_prompt_by_prompt() -> None:
    """Two prompts, of 600 and 610 tokens with the image, pruned at layer 2 to 100 and at 0 to 50 and 4 merged."""
    traces = read(text((2, 100)), None, text((0, 50), merged=4))
    found = prompts(traces, pd.Series([600, 30, 610]), GEOMETRY)
    assert found.tokens.tolist() == [(2 * 576 + 6 * 100) / 8, 54.0]
    first, second = [600] * 2 + [124] * 6, [54 + 34] * 8
    assert found.flops == pytest.approx((prefill(GEOMETRY, first).total + prefill(GEOMETRY, second).total) / 2)
    whole = [prefill(GEOMETRY, [n] * 8).total for n in (600, 610)]
    assert found.full_flops == pytest.approx(np.mean(whole))


def test_a_run_that_says_how_it_read_has_no_flops_of_dead_rows() -> None:
    """The same two prompts under an engine that leaves out dead rows, with an early method and another."""
    traces = read(text((2, 100)), None, text((0, 50), merged=4))
    for early in (True, False):
        found = prompts(traces, pd.Series([600, 30, 610]), GEOMETRY, early)
        first = engine_prefill(GEOMETRY, [600] * 2 + [124] * 6, 600, early)
        second = engine_prefill(GEOMETRY, [54 + 34] * 8, 610, early)
        assert found.flops == pytest.approx((first.total + second.total) / 2)
        assert found.full_flops == pytest.approx(np.mean([prefill(GEOMETRY, [n] * 8).total for n in (600, 610)]))


@given(st.lists(st.integers(1, 3000), min_size=32, max_size=32), st.booleans())
def test_flops_of_any_lengths_are_the_closed_forms(lengths: list[int], early: bool) -> None:
    sizes, counts = KNOWN["llava-hf/llava-1.5-7b-hf"], sorted(lengths, reverse=True)
    columns, full = np.array([counts, [counts[0]] * 32]).T, np.array([counts[0]] * 2)
    whole = prefill(sizes, [counts[0]] * 32).total
    every = prefill_flops(sizes, columns, full, None)
    assert every == pytest.approx((prefill(sizes, counts).total + whole) / 2, rel=1e-12)
    found = prefill_flops(sizes, columns, full, early)
    assert found == pytest.approx((engine_prefill(sizes, counts, counts[0], early).total + whole) / 2, rel=1e-12)


@pytest.mark.parametrize(("counts", "sizes"), [([0, 0], GEOMETRY), ([600, 600], None), ([600, 20], GEOMETRY)])
def test_unknown_sizes_or_prompts_give_no_flops(counts: list[int], sizes: object) -> None:
    found = prompts(read(*[text((2, 100))] * 2), pd.Series(counts), sizes)  # type: ignore[arg-type]
    assert found.flops is None and found.full_flops is None and len(found.tokens) == 2


def test_samples_without_an_image_are_left_out_and_those_of_another_model_have_no_flops() -> None:
    found = prompts(read(None, None), pd.Series([9, 9]), GEOMETRY)
    assert not len(found.tokens) and found.flops is None
    other = prompts(read(text((2, 100), layers=4)), pd.Series([600]), GEOMETRY)
    assert other.tokens.tolist() == [(2 * 576 + 2 * 100) / 4] and other.flops is None


def test_sizes_are_read_from_the_manifest(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", benchmarks=["gqa"], documents=4)
    assert model_sizes(run.manifest) == GEOMETRY

    def with_sizes(geometry: object) -> object:
        return model_sizes(run.manifest.model_copy(update={"model": {"geometry": geometry}}))

    place = Place("cpu", "float32", "sdpa")
    assert with_sizes(json.loads(json.dumps(asdict(GEOMETRY) | {"place": place}))) == GEOMETRY
    assert with_sizes({k: v for k, v in asdict(GEOMETRY).items() if k != "hidden"}) is None
    assert with_sizes(None) is with_sizes({"layers": 8, "grid": [24, 24]}) is with_sizes("large") is None


def test_a_summary_has_every_method_in_every_convention(tmp_path: Path) -> None:
    methods = METHODS | {"atp@144": FakeMethod(0.8, [(1, (60, 100)), (4, 50)])}
    summary = summarise([write_run(tmp_path / "run", methods=methods, benchmarks=("gqa", "pope"))], resamples=50)
    rows = {row.label: row for row in summary.fairness.rows}
    assert list(rows) == list(methods)
    fastv, grid, atp = (rows[label] for label in ("fastv@144", "grid@144", "atp@144"))
    assert fastv.tokens[:3] == pytest.approx(((2 * 576 + 6) / 8, (576 + 7) / 8, 1.0))
    assert (grid.tokens[:3], grid.varies) == ((144.0, 144.0, 144.0), False)
    assert grid.kv_bytes == kv_bytes(GEOMETRY, [144] * 8)
    assert grid.flops == pytest.approx(prefill(GEOMETRY, [144 + 24] * 8).total)
    assert grid.flops_share == pytest.approx(grid.flops / prefill(GEOMETRY, [600] * 8).total)  # type: ignore[operator]
    assert rows["upper_bound"].is_reference and rows["upper_bound"].flops_share == pytest.approx(1.0)
    assert atp.varies and (576 + 3 * 60 + 4 * 50) / 8 <= atp.low < atp.tokens.input < atp.high
    assert atp.high <= (576 + 3 * 100 + 4 * 50) / 8
    assert summary.fairness.groups == (("atp@144",), ("fastv@144", "random@144", "grid@144"))
    (said,) = summary.fairness.warnings
    assert said in summary.warnings and said.startswith("Rows at @144 do not have equal budgets: against atp@144 with")


def test_a_summary_counts_what_the_runs_engine_ran(tmp_path: Path) -> None:
    """The manifest says whether a method is early; one that does not is of an engine that ran every row."""
    run = write_run(tmp_path / "run", benchmarks=["gqa"], documents=6)
    every = summarise([run], resamples=20).fairness.row("fastv@144")
    lengths = [576 + 24] * 2 + [1 + 24] * 6
    assert every is not None and every.flops == pytest.approx(prefill(GEOMETRY, lengths).total)
    for early in (True, False):
        methods = {label: {**info, "early": early} for label, info in run.manifest.methods.items()}
        told = Run(run.path, run.manifest.model_copy(update={"methods": methods}))
        found = summarise([told], resamples=20).fairness.row("fastv@144")
        assert found is not None
        assert found.flops == pytest.approx(engine_prefill(GEOMETRY, lengths, 600, early).total)


def test_a_model_of_unknown_sizes_has_tokens_and_no_costs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", benchmarks=["gqa"], documents=6)
    old = Run(run.path, run.manifest.model_copy(update={"model": {"id": "tiny"}}))
    row = summarise([old], resamples=20).fairness.row("grid@144")
    assert row is not None and row.tokens.input == 144.0
    assert row.kv_bytes is row.flops is row.full_flops is row.flops_share is None


def test_the_files_hold_what_it_costs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", benchmarks=["gqa"], documents=8)
    summary = summarise([run], resamples=20)
    table = pd.read_csv(next(p for p in write_summary(summary, tmp_path / "out") if p.name == "fairness.csv"))
    assert table["method"].tolist() == list(METHODS)
    row = table.set_index("method").loc["grid@144"]
    assert (row["tokens"], row["tokens_output"], row["tokens_final"], row["budget_group"]) == (144.0, 144.0, 144.0, 1)
    assert row["kv_bytes"] == kv_bytes(GEOMETRY, [144] * 8)
    assert table["budget_group"].isna().tolist() == [True, False, False, False]
    assert row["prefill_flops"] == pytest.approx(prefill(GEOMETRY, [168] * 8).total)
    data = json.loads(json.dumps(summary.to_json(), allow_nan=False))
    assert data["fairness"]["groups"] == [["fastv@144", "random@144", "grid@144"]]
