"""Every metric resampled the slow way: rows of the drawn pictures put together and scored anew, draw by draw."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from atp_eval.analysis.aggregation import answer_sums
from atp_eval.analysis.retention import image_clusters, retain, stable_seed
from atp_eval.analysis.significance import cluster_draws
from atp_eval.benchmarks import BENCHMARKS, aggregate

DRAWS = 60
CATEGORIES = ("existence", "count", "code_reasoning")  # two of perception, one that MME's headline leaves out


def rows(kind: str, seed: int) -> pd.DataFrame:
    """Answers to 24 pictures of 2 to 4 questions."""
    rng, layout = np.random.default_rng(seed), np.random.default_rng(99)
    sizes = np.full(24, 2) if kind == "mme" else layout.integers(2, 5, 24)
    picture = np.repeat(np.arange(24), sizes)
    count = len(picture)
    frame = pd.DataFrame(
        {
            "doc_id": np.arange(count),
            "image_id": [f"picture {p // (2 if kind == 'mmb' else 1)}" for p in picture],  # MMBench: two groups in one
            "category": [CATEGORIES[p % 3] for p in picture] if kind == "mme" else None,
            "group": [f"group {p}" for p in picture] if kind in ("mme", "mmb") else None,
            "target": layout.choice(["yes", "no", "Yes"], count),
            "response": rng.choice(
                ["yes", "no", " YES", "Yes.", "perhaps", ""], count, p=[0.4, 0.35, 0.1, 0.05, 0.05, 0.05]
            ),
        }
    )
    right = frame["target"].str.lower() == frame["response"].str.lower().str.strip()
    return frame.assign(score=right * 1.0 if kind == "pope" else (rng.random(count) < 0.8) * 1.0)


def redrawn(frame: pd.DataFrame, drawn: list[int]) -> pd.DataFrame:
    """The rows of the drawn pictures; a picture that is drawn twice is two pictures."""
    parts = []
    for copy, cluster in enumerate(drawn):
        part = frame[frame["cluster"] == cluster]
        parts.append(part.assign(group=[None if g is None else f"{g} copy {copy}" for g in part["group"]]))
    return pd.concat(parts)


def scored(kind: str, frame: pd.DataFrame) -> float:
    benchmark = BENCHMARKS[kind]
    return aggregate(benchmark, frame["score"].tolist(), frame["category"].tolist(), frame["group"].tolist())


def pope(frame: pd.DataFrame) -> dict[str, float]:
    """As lmms-eval's pope task aggregates them (precision, recall, F1), in its own words."""
    tp = fp = fn = yes = 0
    for target, response in zip(frame["target"], frame["response"], strict=True):
        gt, pred = target.lower().strip(), response.lower().strip()
        tp += gt == "yes" and pred == "yes"
        fp += gt == "no" and pred == "yes"
        fn += gt == "yes" and pred == "no"
        yes += pred == "yes"
    precision = tp / (tp + fp) if (tp + fp) > 0 else 0
    recall = tp / (tp + fn) if (tp + fn) > 0 else 0
    f1 = 2 * (precision * recall) / (precision + recall) if (precision + recall) > 0 else 0
    return {"F1": f1, "precision": precision, "recall": recall, "yes": yes / len(frame)}


def draws_of(frame: pd.DataFrame, name: str) -> tuple[pd.DataFrame, list[list[int]]]:
    clusters = image_clusters([frame])
    weights = np.concatenate(list(cluster_draws(int(clusters.max()) + 1, DRAWS, stable_seed(name, 0))))
    return clusters, [np.repeat(np.arange(len(row)), row.astype(int)).tolist() for row in weights]  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["mme", "mmb", "gqa", "pope"])
def test_retention_is_that_of_the_rows_drawn_again(kind: str) -> None:
    benchmark = BENCHMARKS[kind]
    frames = {"upper_bound": rows(kind, 1), "m": rows(kind, 2)}
    found = retain(
        frames, dict.fromkeys(frames, "upper_bound"), benchmark=kind, aggregation=benchmark.aggregation,
        scale=benchmark.scale, form=benchmark.form, resamples=DRAWS,
    )["m"]  # fmt: skip
    assert found.kept is not None
    clusters, drawn = draws_of(frames["m"], kind)
    placed = {label: f.assign(cluster=clusters[f["doc_id"]].to_numpy()) for label, f in frames.items()}
    expected = []
    for draw in drawn:
        again = {label: scored(kind, redrawn(f, draw)) for label, f in placed.items()}
        expected.append(100 * again["m"] / again["upper_bound"])
    np.testing.assert_allclose(found.kept.draws, expected)
    assert found.kept.value == pytest.approx(100 * scored(kind, placed["m"]) / scored(kind, placed["upper_bound"]))
    without = [
        100
        * scored(kind, placed["m"].query("cluster != @c"))
        / scored(kind, placed["upper_bound"].query("cluster != @c"))
        for c in range(int(clusters.max()) + 1)
    ]
    np.testing.assert_allclose(found.kept.influence[kind], np.mean(without) - without, atol=1e-9)


def test_f1_is_that_of_the_rows_drawn_again() -> None:
    frame = rows("pope", 3)
    clusters, drawn = draws_of(frame, "pope")
    frame = frame.assign(cluster=clusters[frame["doc_id"]].to_numpy())
    found = answer_sums(frame, int(clusters.max()) + 1)
    assert {name: sums.value for name, sums in found.items()} == pytest.approx(pope(frame))
    for draw in drawn:
        weights = np.bincount(draw, minlength=int(clusters.max()) + 1)
        again = {name: float(sums.metric(weights @ sums.sums)) for name, sums in found.items()}
        assert again == pytest.approx(pope(redrawn(frame, draw)))


def test_answers_without_any_yes_have_an_f1_of_nothing_as_in_lmms_eval() -> None:
    frame = rows("pope", 4).assign(response="neither", cluster=0)
    assert {name: sums.value for name, sums in answer_sums(frame, 1).items()} == pope(frame)
