"""Which samples are shown, and the runs of cells that are drawn over them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from synthetic import METHODS, FakeMethod, plain_picture, write_run

from atp_eval.analysis.overlays import cell_runs, interesting_samples
from atp_eval.records import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("run") / "one"
    return write_run(path, benchmarks=("gqa", "pope", "mme"), pictures=plain_picture, keep_images=12, documents=40)


def test_every_benchmark_is_shown_and_no_picture_twice(run: Run) -> None:
    found = interesting_samples([run], 7)
    assert len(found) == 7
    assert {s.benchmark for s in found} == {"gqa", "pope", "mme"}
    images = [s.image for s in found]
    assert None not in images and len(set(images)) == 7


def test_samples_are_chosen_where_methods_disagree(run: Run) -> None:
    found = interesting_samples([run], 3)
    assert all(len({a.score for a in s.answers}) > 1 for s in found)
    assert [a.label for a in found[0].answers] == list(METHODS)
    trace = found[0].answers[1].trace
    assert trace is not None and trace.final == 1


def test_the_choice_is_the_same_each_time(run: Run) -> None:
    assert [s.doc_id for s in interesting_samples([run])] == [s.doc_id for s in interesting_samples([run])]


def test_runs_without_pictures_or_with_few_samples_still_show_what_there_is(tmp_path: Path) -> None:
    lonely = write_run(tmp_path / "run", methods={"m": FakeMethod(0.5)}, benchmarks=["gqa"], documents=3)
    found = interesting_samples([lonely], 8)
    assert len(found) == 2  # three questions about two pictures
    assert all(s.image is None for s in found)


@given(st.integers(1, 6).flatmap(lambda c: st.tuples(st.just(c), arrays(bool, st.integers(1, 6).map(lambda r: r * c)))))
def test_runs_cover_exactly_the_cells(case: tuple[int, np.ndarray]) -> None:
    columns, cells = case
    drawn = np.zeros((len(cells) // columns, columns), dtype=int)
    for row, column, length in cell_runs(cells, columns):
        assert length > 0
        drawn[row, column : column + length] += 1
        assert column + length == columns or not cells.reshape(-1, columns)[row, column + length]
    np.testing.assert_array_equal(drawn, cells.reshape(-1, columns))
