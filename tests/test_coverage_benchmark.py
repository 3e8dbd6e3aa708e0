"""Simulated coverage: a slice of it again, with a bound that intervals without pictures or pairs do not keep; the
simulation's own truths; and the table in the docs."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
DATASETS = 250  # one standard error near 95 % is 1.4 points


@pytest.fixture(scope="module")
def coverage() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("coverage")


def test_intervals_hold_the_truth_as_often_as_they_say(coverage: ModuleType) -> None:
    found = coverage.measure(coverage.Shape("slice", 60, (8, 8), icc=0.5), DATASETS, seed=1, resamples=1000)
    assert 91 <= found.coverage <= 98
    assert found.unbounded == 0


def test_so_do_those_of_sums_over_pairs_and_groups_and_of_f1(coverage: ModuleType) -> None:
    for shape in (
        coverage.Shape("pairs", 120, (2, 2), kind="mme"),
        coverage.Shape("groups", 120, (4, 4), kind="mmbench"),
        coverage.Shape("answers", 60, (6, 6), **coverage.F1),
    ):
        assert 90 <= coverage.measure(shape, 125, seed=2, resamples=500).coverage <= 99.2, shape


def test_questions_drawn_one_by_one_would_miss_it(coverage: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound of the test above bites: without pictures the same datasets are covered far less often."""

    def alone(shape: object, datasets: int, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
        return {label: rows.assign(image_id=None) for label, rows in frames(shape, datasets, rng).items()}

    frames = coverage.frames
    monkeypatch.setattr(coverage, "frames", alone)
    found = coverage.measure(coverage.Shape("slice", 60, (8, 8), icc=0.5), DATASETS, seed=1, resamples=1000)
    assert found.coverage < 88


def test_true_nulls_are_seldom_rejected(coverage: ModuleType) -> None:
    shape = coverage.Shape("null", 60, (8, 8), icc=0.5, **coverage.NULL)
    found = coverage.measure(shape, DATASETS, seed=3, resamples=500)
    assert found.truth == pytest.approx(100)
    assert 0.4 <= found.wrong["shown"] <= 8.5
    assert found.wrong["bootstrap"] <= 8.5
    assert found.wrong["questions"] > 15  # what sharing pictures does to a test that does not know of it


@pytest.mark.parametrize("kind", ["mean", "mme", "mmbench", "f1"])
def test_the_truth_is_what_a_large_dataset_shows(coverage: ModuleType, kind: str) -> None:
    settings = coverage.F1 if kind == "f1" else {"kind": kind}
    shape = coverage.Shape("large", 60_000, (4, 4), icc=0.3, **settings)
    rows = coverage.frames(shape, 1, np.random.default_rng(0))
    shares = {}
    for label, frame in rows.items():
        right, first = frame["score"], frame["image_id"]
        if kind == "mean":
            shares[label] = right.mean()
        elif kind == "f1":
            yes = (frame["response"] == "yes").sum() + (frame["target"] == "yes").sum()
            shares[label] = 2 * ((frame["target"] == "yes") & (right == 1)).sum() / yes
        elif kind == "mmbench":
            shares[label] = right.groupby(first).min().mean()
        else:  # pairs: of four questions the first two
            pair = right[frame["doc_id"] % 4 < 2].groupby(first)
            shares[label] = right.mean() + pair.min().mean()
    upper, pruned = shares["upper 0"], shares["pruned 0"]
    assert shape.truth == pytest.approx(100 * pruned / upper, abs=0.4)


def test_the_docs_show_what_was_simulated(coverage: ModuleType) -> None:
    found = json.loads((ROOT / "docs" / "coverage.json").read_text())
    text = (ROOT / "docs" / "statistics.md").read_text()
    _, shown, _ = text.split(coverage.MARK)
    assert shown.strip() == coverage.markdown(found["shapes"]).strip()
    trusted = [t for t in found["shapes"] if t["shape"]["pictures"] >= 50 and t["differing"] >= 5]
    assert len(trusted) > 20
    # Never far too narrow; where half a dozen pictures differ, wider than it would have to be.
    assert all(t["coverage"] >= 94 - t["error"] for t in trusted)
    assert np.mean([t["coverage"] for t in trusted]) == pytest.approx(95, abs=1)


def test_an_unknown_shape_is_refused_with_those_there_are(
    coverage: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        coverage.main(["--shapes", "nothing like it"])
    assert stopped.value.code == 2
    assert "MME, 200 pairs" in capsys.readouterr().err


def test_figures_are_written_and_printed(
    coverage: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "found.json"
    docs = tmp_path / "docs.md"
    docs.write_text(f"Before.\n{coverage.MARK}\nold\n{coverage.MARK}\nAfter.\n")
    few = ["--shapes", "F1, 20", "--datasets", "3", "--resamples", "50"]
    coverage.main([*few, "--json", str(path), "--docs", str(docs)])
    (shape,) = json.loads(path.read_text(), parse_constant=pytest.fail)["shapes"]
    assert shape["shape"]["kind"] == "f1" and shape["datasets"] == 3
    table = capsys.readouterr().out
    assert "| POPE's F1, 20 pictures x 6 | 91.8 |" in table
    assert docs.read_text() == f"Before.\n{coverage.MARK}\n\n{table}\n{coverage.MARK}\nAfter.\n"
