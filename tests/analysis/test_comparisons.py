"""Which test a benchmark gets, and Holm's adjustment within a family."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from atp_eval.analysis import comparisons
from atp_eval.analysis.comparisons import holm, of_scores
from atp_eval.analysis.retention import Retained, retain
from atp_eval.documents import Form


def pair(form: Form) -> tuple[Retained, Retained]:
    rng = np.random.default_rng(0)
    upper = rng.random(200) < 0.8
    frames = {
        label: pd.DataFrame(
            {"doc_id": range(200), "image_id": [f"{i // 2}" for i in range(200)], "category": None, "group": None}
        ).assign(score=right * 1.0, target="yes", response=np.where(right, "yes", "no"))
        for label, right in {"upper_bound": upper, "m": upper & (rng.random(200) < 0.8)}.items()
    }
    found = retain(
        frames,
        dict.fromkeys(frames, "upper_bound"),
        benchmark="b",
        aggregation="mean",
        scale=1.0,
        form=form,
        resamples=99,
    )
    return found["m"], found["upper_bound"]


def test_holm_by_hand() -> None:
    found = holm({name: comparisons.Tested("bootstrap", p) for name, p in {"a": 0.01, "b": 0.04, "c": 0.03}.items()})
    assert {name: test.p_holm for name, test in found.items()} == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert [test.comparisons for test in found.values()] == [3, 3, 3]
    assert [test.significant for test in found.values()] == [True, False, False]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1e-9, 0.01, 0.01, 0.2, 0.5, 1.0]) | st.floats(0, 1), min_size=1, max_size=12))
def test_holm_as_statsmodels_has_it(values: list[float]) -> None:
    found = holm({i: comparisons.Tested("bootstrap", p) for i, p in enumerate(values)})
    assert [test.p_holm for test in found.values()] == pytest.approx(multipletests(values, method="holm")[1])


def test_what_has_no_p_is_in_no_family() -> None:
    found = holm({"a": comparisons.Tested("bootstrap", 0.04), "b": comparisons.Tested("bootstrap", float("nan"))})
    assert (found["a"].p_holm, found["a"].comparisons) == (0.04, 1)
    assert (found["b"].p_holm, found["b"].comparisons, found["b"].significant) == (None, None, False)
    assert holm({}) == {}
    assert not comparisons.Tested("bootstrap", 0.001).significant  # of no family


def test_choices_get_mcnemars_test_and_open_answers_the_bootstraps() -> None:
    method, upper = pair("choice")
    assert method.kept is not None
    found = of_scores(method, upper, method.kept, 100.0)
    assert (found.kind, found.gained) == ("McNemar", 0)
    assert found.lost is not None and found.lost > 20 and found.p < 1e-6
    method, upper = pair("open")
    assert method.kept is not None
    found = of_scores(method, upper, method.kept, 100.0)
    assert (found.kind, found.gained, found.lost, found.p) == ("bootstrap", None, None, 1 / 100)
