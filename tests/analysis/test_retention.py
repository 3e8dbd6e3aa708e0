"""Retention: paired, clustered by image, over the documents that both methods have."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from atp_eval.analysis.retention import Retained, average, image_clusters, percent, retain


def rows(scores: list[float], images: list[str | None] | None = None, docs: list[int] | None = None) -> pd.DataFrame:
    count = len(scores)
    return pd.DataFrame(
        {
            "doc_id": docs or list(range(count)),
            "image_id": images or [f"image {i}" for i in range(count)],
            "category": None,
            "group": None,
            "score": scores,
        }
    )


def retained(frames: dict[str, pd.DataFrame], **options: object) -> dict[str, Retained]:
    references: dict[str, str | None] = {label: "upper_bound" for label in frames}
    settings = {"benchmark": "gqa", "aggregation": "mean", "scale": 1.0, "resamples": 400} | options
    return retain(frames, references, **settings)  # type: ignore[arg-type]


def test_retention_is_the_ratio_of_the_metrics() -> None:
    found = retained({"upper_bound": rows([1, 1, 1, 0]), "fastv@144": rows([1, 1, 0, 0])})
    kept = found["fastv@144"].kept
    assert kept is not None
    assert kept.interval.value == pytest.approx(200 / 3)
    assert found["fastv@144"].score.value == 0.5
    assert found["upper_bound"].kept is not None
    assert found["upper_bound"].kept.interval.value == 100.0
    assert not found["upper_bound"].kept.interval.bounded  # by definition: nothing to be uncertain of


def test_a_method_that_answers_as_the_upper_bound_has_no_interval_which_would_claim_certainty() -> None:
    answers = list(np.random.default_rng(0).integers(0, 2, 60).astype(float))
    found = retained({"upper_bound": rows(answers), "same": rows(answers)})["same"]
    assert found.kept is not None
    assert found.kept.interval.value == 100.0
    assert not found.kept.interval.bounded
    assert found.kept.p_value(100.0) == 1.0
    assert (found.pictures, found.differing) == (60, 0)
    assert found.score.high > found.score.low


def test_pairing_makes_the_interval_narrower_than_independent_draws() -> None:
    rng = np.random.default_rng(1)
    upper = rng.random(300) < 0.7
    pruned = upper & (rng.random(300) < 0.95)
    shuffled = rng.permutation(pruned)
    answers = {"upper_bound": upper, "paired": pruned, "not": shuffled}
    frames = {label: rows(list(right * 1.0)) for label, right in answers.items()}
    found = {label: part.kept for label, part in retained(frames).items()}
    assert found["paired"] is not None and found["not"] is not None
    width = {label: k.interval.high - k.interval.low for label, k in found.items() if k is not None}
    assert width["paired"] < 0.6 * width["not"]
    assert found["paired"].interval.value == pytest.approx(found["not"].interval.value)


def test_clusters_of_equal_answers_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    by_image = np.repeat(rng.random(30) < 0.6, 10) * 1.0
    images: list[str | None] = [f"{i // 10}" for i in range(300)]
    together = retained({"upper_bound": rows([1.0] * 300, images), "m": rows(list(by_image), images)})
    apart = retained({"upper_bound": rows([1.0] * 300), "m": rows(list(by_image))})
    assert together["m"].kept is not None and apart["m"].kept is not None
    wide, narrow = together["m"].kept.interval, apart["m"].kept.interval
    assert (wide.high - wide.low) > 2 * (narrow.high - narrow.low)


def test_only_common_documents_are_compared_and_the_others_counted() -> None:
    frames = {"upper_bound": rows([1, 1, 0, 0], docs=[0, 1, 2, 3]), "m": rows([1, 0, 1], docs=[1, 2, 9])}
    found = retained(frames)["m"]
    assert (found.common, found.missing) == (2, 3)
    assert found.kept is not None
    assert found.kept.interval.value == pytest.approx(100.0)  # documents 1 and 2: one right answer each
    assert found.score.value == pytest.approx(2 / 3)


def test_no_upper_bound_and_an_upper_bound_of_nothing_give_no_retention() -> None:
    alone = retain({"m": rows([1, 0])}, {"m": None}, benchmark="gqa", aggregation="mean", scale=1.0, resamples=50)
    assert alone["m"].kept is None
    nothing = retained({"upper_bound": rows([0, 0]), "m": rows([1, 0])})
    assert nothing["m"].kept is None
    assert nothing["upper_bound"].score.value == 0.0
    assert not nothing["upper_bound"].score.bounded  # all alike is no certainty


def test_average_weighs_benchmarks_alike_and_is_narrower_than_one() -> None:
    rng = np.random.default_rng(3)
    parts = []
    for name in ("gqa", "pope", "sqa", "seed"):
        frames = {"upper_bound": rows([1.0] * 100), "m": rows(list((rng.random(100) < 0.8) * 1.0))}
        parts.append(retained(frames, benchmark=name)["m"])
    found = average(parts)
    assert found is not None
    assert found.interval.value == pytest.approx(np.mean([p.kept.interval.value for p in parts if p.kept]))
    spread = [p.kept.interval.high - p.kept.interval.low for p in parts if p.kept]
    assert found.interval.high - found.interval.low < 0.7 * min(spread)
    assert average([]) is None


def test_intervals_do_not_change_with_the_other_methods_or_from_call_to_call() -> None:
    frames = {"upper_bound": rows([1, 1, 0, 1] * 10), "a": rows([1, 0, 0, 1] * 10)}
    alone = retained(frames)["a"]
    beside = retained(frames | {"b": rows([0, 0, 0, 1] * 10)})["a"]
    assert alone.kept is not None and beside.kept is not None
    assert alone.kept.interval == beside.kept.interval


def test_clusters_follow_pictures_and_documents_without_one_stand_alone() -> None:
    first = rows([0, 0, 0, 0], ["a", None, None, "a"])
    second = rows([0, 0, 0, 0], ["a", "a", None, "a"])
    found = image_clusters([first, second])
    assert found[0] == found[1] == found[3]
    assert found[2] not in {found[0]}
    assert len(set(image_clusters([first]))) == 3


def test_percent_of_nothing_is_undefined() -> None:
    assert np.isnan(percent(1.0, 0.0))
