"""How tokens are spread: hand-computed cases, and what a summary and its files hold of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import METHODS, FakeMethod, write_run

from atp_eval.analysis import summarise, write_summary
from atp_eval.analysis.histograms import BINS, Asked, TokenUse, histogram, pruning, token_use, tokens_frame
from atp_eval.analysis.tokens import Entering, entering
from atp_eval.analysis.traces import read_traces
from atp_eval.trace import KeepTrace, Stage

LAYERS = 4


def read(*counts: tuple[int, int]) -> Entering:
    """Of questions about 6 x 6 cells: tokens that enter layer 1, and layer 3."""
    stages = [tuple(Stage(layer, np.arange(36) < n) for layer, n in zip((1, 3), c, strict=True)) for c in counts]
    found = entering(read_traces([json.dumps(KeepTrace((6, 6), LAYERS, s).to_json()) for s in stages]))
    assert found is not None
    return found


def used(found: dict[str, tuple[Entering, list[str | None]]]) -> TokenUse:
    use = token_use("m", False, {name: Asked(t, pd.Series(c, dtype=object)) for name, (t, c) in found.items()})
    assert use is not None
    return use


@given(st.lists(st.integers(0, 600) | st.floats(0, 600), min_size=1, max_size=60))
def test_every_question_is_in_one_bin(values: list[float]) -> None:
    found = histogram(np.array(values, dtype=float))
    assert sum(found.shares) == pytest.approx(1.0) and min(found.shares) >= 0
    assert len(found.edges) == len(found.shares) + 1 <= BINS + 2
    assert found.edges[0] <= min(values) and max(values) <= found.edges[-1]
    assert (found.deciles[0], found.deciles[-1]) == (min(values), max(values))
    assert list(found.deciles) == sorted(found.deciles) and set(found.deciles) <= set(map(float, values))
    assert found.varies == (len(set(values)) > 1)


def test_bins_of_counts_hold_as_many_counts_each() -> None:
    few = histogram(np.array([3.0, 3.0, 5.0, 4.0]))
    assert few.edges == (2.5, 3.5, 4.5, 5.5) and few.shares == (0.5, 0.25, 0.25)
    many = histogram(np.arange(100.0))
    assert set(np.diff(many.edges)) == {5.0} and many.shares[0] == 0.05
    assert histogram(np.array([144.0])).edges == (143.5, 144.5)
    assert histogram(np.array([1.25, 1.25])).edges == (0.75, 1.75)


def test_deciles_are_values_that_some_question_has() -> None:
    assert histogram(np.arange(1.0, 21.0)).deciles == (1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20)


def test_nine_questions_in_ten_lie_in_the_middle() -> None:
    assert histogram(np.arange(21.0)).middle == (1.0, 19.0)


def test_a_methods_tokens_by_question_prune_point_benchmark_and_category() -> None:
    gqa, pope = read((20, 8), (10, 8), (30, 2)), read((10, 4))
    use = used({"gqa": (gqa, ["a", "b", "a"]), "pope": (pope, [None])})
    assert use.layers == (1, 3) and use.varies
    assert use.question.mean == pytest.approx(
        np.mean([(36 + 2 * a + b) / 4 for a, b in [(20, 8), (10, 8), (30, 2), (10, 4)]])
    )
    assert [p.mean for p in use.points] == [17.5, 5.5]
    assert (use.points[0].deciles[0], use.points[0].deciles[-1]) == (10, 30)
    said = [(a.benchmark, a.category, a.questions, a.tokens, a.points) for a in use.averages]
    assert said == [
        ("gqa", "", 3, pytest.approx((36 + 40 + 6) / 4), (20.0, 6.0)),
        ("gqa", "a", 2, pytest.approx((36 + 50 + 5) / 4), (25.0, 5.0)),
        ("gqa", "b", 1, pytest.approx((36 + 20 + 8) / 4), (10.0, 8.0)),
        ("pope", "", 1, pytest.approx(15.0), (10.0, 4.0)),
    ]


def test_categories_are_those_of_questions_with_a_picture() -> None:
    whole = json.dumps(KeepTrace((6, 6), LAYERS, (Stage(1, np.arange(36) < 9),)).to_json())
    tokens = entering(read_traces([None, whole, whole]))
    assert tokens is not None
    use = used({"gqa": (tokens, ["x", "y", "z"])})
    assert [a.category for a in use.averages] == ["", "y", "z"]


def test_prune_points_are_layers_at_which_something_goes() -> None:
    assert list(pruning(read((36, 8), (36, 36)))) == [3]
    assert list(pruning(read((36, 36)))) == []
    assert not used({"gqa": (read((9, 9), (9, 9)), [None, None])}).varies


def test_models_of_different_depth_are_not_put_together() -> None:
    deep = entering(read_traces([json.dumps(KeepTrace((6, 6), 5).to_json())]))
    assert deep is not None
    asked = {"a": Asked(deep, pd.Series([None])), "b": Asked(read((1, 1)), pd.Series([None]))}
    assert token_use("m", False, asked) is None and token_use("m", False, {}) is None


def test_the_table_has_deciles_of_all_and_means_of_parts() -> None:
    frame = tokens_frame([used({"gqa": (read((20, 8), (10, 8)), ["a", "b"])})])
    assert frame["tokens"].tolist() == [18.5, 15, 8, 18.5, 15, 8, 21, 20, 8, 16, 10, 8]
    whole = frame[frame["benchmark"] == "all"]
    assert whole["first_layer"].astype(object).where(whole["first_layer"].notna(), None).tolist() == [None, 1, 3]
    assert whole.iloc[1][["q00", "q50", "q100"]].tolist() == [10, 10, 20]
    assert tokens_frame([]).empty


def test_summaries_and_files_hold_it(tmp_path: Path) -> None:
    methods = METHODS | {"wide@144": FakeMethod(0.8, [(1, (100, 300)), (4, (20, 90))], merged=5)}
    run = write_run(tmp_path / "run", methods=methods, benchmarks=["gqa", "mme"], documents=20)
    summary = summarise([run], resamples=20)
    use = {u.label: u for u in summary.token_use}
    assert list(use) == list(methods) and use["upper_bound"].is_reference
    for m in summary.methods:
        assert m.tokens is not None
        assert use[m.label].question.mean == pytest.approx(m.tokens.averages.input)  # benchmarks are as large
        assert use[m.label].varies == (m.label == "wide@144")
        assert [a.benchmark for a in use[m.label].averages if not a.category] == ["gqa", "mme"]
    assert use["wide@144"].layers == (1, 4) and use["grid@144"].layers == (0,)
    assert len({a.category for a in use["grid@144"].averages if a.benchmark == "mme"}) > 2
    names = {path.name for path in write_summary(summary, tmp_path / "tables")}
    assert {"tokens.csv", "keep_rate.csv"} <= names
    rates = pd.read_csv(tmp_path / "tables" / "keep_rate.csv")
    assert set(rates["method"]) == set(methods) - {"upper_bound"}
    wide = rates[(rates["method"] == "wide@144") & (rates["first_layer"] == 4)]
    stats = summary.method("wide@144").tokens
    assert len(wide) == 576 and stats is not None
    assert wide["keep_rate"].sum() == pytest.approx(stats.mean[4] - 5)
    stored = json.loads((tmp_path / "tables" / "summary.json").read_text())
    assert stored["token_use"][0]["label"] == "upper_bound" and "maps" not in stored["agreement"]
