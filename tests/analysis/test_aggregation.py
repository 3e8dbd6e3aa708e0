"""Sums over clusters give the metric that benchmarks.aggregate, and so lmms-eval, gives."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atp_eval.analysis.aggregation import cluster_sums
from atp_eval.benchmarks import BENCHMARKS, MME_COGNITION, MME_PERCEPTION, aggregate

scores = st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=2, max_size=60)


def frame(values: list[float], categories: list[str | None], groups: list[str | None], clusters: int) -> pd.DataFrame:
    cluster = [i * clusters // len(values) for i in range(len(values))]
    return pd.DataFrame({"score": values, "category": categories, "group": groups, "cluster": cluster})


@pytest.mark.parametrize("name", ["gqa", "vqav2", "ocrbench"])
@given(values=scores, clusters=st.integers(1, 7))
def test_mean_metrics(name: str, values: list[float], clusters: int) -> None:
    benchmark = BENCHMARKS[name]
    nothing: list[str | None] = [None] * len(values)
    found = cluster_sums(frame(values, nothing, nothing, clusters), clusters, benchmark.aggregation, benchmark.scale)
    assert found.value == pytest.approx(aggregate(benchmark, values, nothing, nothing))


@given(values=scores, size=st.integers(1, 4))
def test_circular_groups_count_all_or_nothing(values: list[float], size: int) -> None:
    benchmark = BENCHMARKS["mmb"]
    groups: list[str | None] = [str(i // size) for i in range(len(values))]
    rows = frame(values, [None] * len(values), groups, 1)
    found = cluster_sums(rows, 1, "mmbench", benchmark.scale)
    assert found.value == pytest.approx(aggregate(benchmark, values, [None] * len(values), groups))


@given(
    st.lists(st.tuples(st.sampled_from([*MME_PERCEPTION, *MME_COGNITION]), st.booleans(), st.booleans()), min_size=1)
)
def test_mme_sums_accuracy_and_pairs_over_perception(pairs: list[tuple[str, bool, bool]]) -> None:
    values = [float(x) for _, a, b in pairs for x in (a, b)]
    categories: list[str | None] = [c for c, _, _ in pairs for _ in range(2)]
    groups: list[str | None] = [f"{c}/{i}" for i, (c, _, _) in enumerate(pairs) for _ in range(2)]
    rows = frame(values, categories, groups, len(pairs))
    found = cluster_sums(rows, len(pairs), "mme", BENCHMARKS["mme"].scale).value
    expected = aggregate(BENCHMARKS["mme"], values, categories, groups)
    assert found == pytest.approx(expected) or (math.isnan(found) and math.isnan(expected))


def test_the_metric_is_that_of_the_resample_itself() -> None:
    """Totals of clusters drawn twice are the metric of the rows drawn twice, whatever the metric."""
    rng = np.random.default_rng(0)
    count = 40
    rows = frame(
        [float(x) for x in rng.integers(0, 2, count)],
        [("count", "color")[i // 2 % 2] for i in range(count)],
        [str(i // 2) for i in range(count)],
        count // 2,
    )
    whole = cluster_sums(rows, count // 2, "mme", 400.0)
    drawn = rng.integers(0, count // 2, count // 2)
    weights = np.bincount(drawn, minlength=count // 2)
    again = pd.concat([rows[rows["cluster"] == c].assign(group=f"draw {k}") for k, c in enumerate(drawn)])
    expected = cluster_sums(again, count // 2, "mme", 400.0).value
    assert float(whole.metric(weights @ whole.sums)) == pytest.approx(expected)


def test_an_unknown_aggregation_is_refused() -> None:
    with pytest.raises(KeyError):
        cluster_sums(frame([1.0], [None], [None], 1), 1, "median", 1.0)
