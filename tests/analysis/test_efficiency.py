"""Time: medians over warm batches, ratios paired batch by batch."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from atp_eval.analysis.efficiency import batch_ratios, batch_times, speedup, timing
from atp_eval.analysis.significance import Interval


def rows(seconds: list[float], size: int = 2, first: int = 1, **columns: object) -> pd.DataFrame:
    """Batches of `size` questions, one value of seconds each; the first batch is cold."""
    count = len(seconds) * size
    frame = pd.DataFrame(
        {
            "doc_id": range(count),
            "batch": np.repeat(range(first, first + len(seconds)), size),
            "seconds": np.repeat(seconds, size),
            "vision_seconds": 0.25,
            "warm": np.repeat([i > 0 for i in range(len(seconds))], size),
            "error": None,
        }
    )
    return frame.assign(**columns)


def test_cold_batches_and_failed_samples_are_left_out() -> None:
    frame = rows([9.0, 1.0, 1.0, 3.0])
    frame.loc[6, ["error", "seconds"]] = ["out of memory", 0.0]
    found = timing(batch_times(frame), None)
    assert found is not None
    assert (found.llm, found.ratio, found.batches) == (1.0, None, 3)
    assert found.vision == pytest.approx(0.25)


def test_vision_time_is_a_mean_since_most_pictures_are_known_already() -> None:
    frame = rows([1.0, 1.0, 1.0, 1.0, 1.0])
    frame["vision_seconds"] = np.repeat([9.0, 0.0, 0.0, 0.0, 0.4], 2)
    found = timing(batch_times(frame), None)
    assert found is not None and found.vision == pytest.approx(0.1)


def test_the_ratio_is_paired_so_that_slow_batches_cancel() -> None:
    load = np.random.default_rng(0).uniform(1, 10, 40)  # the machine was busy now and then, for both alike
    upper, pruned = batch_times(rows(list(load))), batch_times(rows(list(0.5 * load)))
    found = timing(pruned, batch_ratios(pruned, upper))
    assert found is not None and found.ratio is not None
    assert found.ratio == pytest.approx((0.5, 0.5, 0.5))


def test_batches_that_only_one_method_answered_do_not_count() -> None:
    upper, pruned = batch_times(rows([1.0, 1.0, 1.0])), batch_times(rows([1.0, 2.0]))
    assert batch_ratios(pruned, upper).tolist() == [2.0]


def test_numbers_that_start_again_after_a_resume_stay_apart() -> None:
    upper = pd.concat([rows([1.0, 2.0]), rows([1.0, 4.0]).assign(doc_id=range(4, 8))])
    found = batch_ratios(batch_times(upper.assign(seconds=upper["seconds"] * 3)), batch_times(upper))
    assert found.tolist() == [3.0, 3.0]


def test_nothing_warm_gives_no_timing() -> None:
    assert timing(batch_times(rows([1.0])), None) is None


def test_speedup_turns_a_ratio_round() -> None:
    assert speedup(Interval(0.5, 0.4, 0.8)) == pytest.approx(Interval(2.0, 1.25, 2.5))
    assert not speedup(None).bounded
