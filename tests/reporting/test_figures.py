"""Ticks, labels and coordinates of the figures."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import METHODS, FakeMethod, write_run

from atp_eval.analysis import summarise
from atp_eval.records import Run
from atp_eval.reporting.build import numbered
from atp_eval.reporting.figures import HEIGHT, WIDTH, dodged, layers_figure, retention_figure
from atp_eval.reporting.svg import MARKERS, hue, marker, short, spread_out, tag, ticks

numbers = st.floats(-1e6, 1e6)


@given(numbers, st.floats(1e-3, 1e6), st.integers(2, 10))
def test_ticks_are_even_and_inside(low: float, width: float, about: int) -> None:
    found = ticks(low, low + width, about)
    assert all(low - width * 1e-6 <= t <= low + width * (1 + 1e-6) for t in found)
    assert len(found) <= 2 * about + 2
    steps = {round((b - a) / width, 4) for a, b in itertools.pairwise(found)}
    assert len(steps) <= 1


def test_ticks_are_round() -> None:
    assert ticks(0, 576, 6) == [0, 100, 200, 300, 400, 500]
    assert ticks(80, 100) == [80, 85, 90, 95, 100]
    assert ticks(5, 5) == [5]


@given(st.lists(st.floats(0, 300), min_size=1, max_size=15))
def test_labels_stand_apart_in_order_and_inside(wanted: list[float]) -> None:
    found = spread_out(wanted, 17.0, 0.0, 300.0)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [found[i] for i in order]
    assert all(b - a >= 17.0 - 1e-6 for a, b in itertools.pairwise(placed))
    assert max(found) <= 300.0 + 1e-6


def test_labels_with_room_stay_where_they_are() -> None:
    assert spread_out([200.0, 50.0, 100.0], 17.0, 0.0, 300.0) == [200.0, 50.0, 100.0]


@given(st.lists(st.floats(0, 500), min_size=1, max_size=10))
def test_points_move_only_when_they_would_hide_each_other(xs: list[float]) -> None:
    found = dodged(xs)
    order = sorted(range(len(xs)), key=lambda i: xs[i])
    for i in order:
        if all(abs(xs[i] - xs[j]) >= 9.0 for j in order if j != i):
            assert found[i] == xs[i]


def test_marks_differ_in_shape_and_in_colour() -> None:
    seen = [(MARKERS[(i - 1) % len(MARKERS)], hue(i)) for i in range(1, 25)]
    assert len(set(seen)) == 24
    assert "reference" in marker(0)


def test_attributes_and_children_are_escaped() -> None:
    found = tag("text", "<b>", title='" onload="x', class_="a", stroke_width=2, data_x=None)
    assert found == '<text title="&#34; onload=&#34;x" class="a" stroke-width="2">&lt;b&gt;</text>'


def test_long_labels_end_in_an_ellipsis() -> None:
    assert short("fastv@144") == "fastv@144"
    assert short("x" * 40, 10) == "x" * 9 + "…"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    methods = METHODS | {
        "wide": FakeMethod(0.8, [(1, (100, 300)), (4, (20, 90))], merged=5),
        "far": FakeMethod(0.9, [(1, 500)]),
    }
    return write_run(tmp_path_factory.mktemp("run") / "one", methods=methods, documents=20)


def test_everything_lies_inside_the_figure(run: Run) -> None:
    summary = summarise([run], resamples=50)
    for figure in (retention_figure(summary, numbered(summary)), layers_figure(summary, numbered(summary))):
        assert figure is not None
        for x, y in re.findall(r"translate\(([-\d.]+) ([-\d.]+)\)", figure):
            assert 0 <= float(x) <= WIDTH and 0 <= float(y) <= HEIGHT
        for pair in re.findall(r'points="([^"]+)"', figure):
            for point in pair.split():
                x, y = map(float, point.split(","))
                assert 0 <= x <= WIDTH and 0 <= y <= HEIGHT
        for m in summary.methods:
            assert m.label in figure


def test_bands_are_drawn_where_samples_differ_only(run: Run) -> None:
    summary = summarise([run], resamples=50)
    figure = layers_figure(summary, numbered(summary))
    assert figure is not None
    assert figure.count("<polygon") == 1


def test_methods_with_one_curve_share_the_line_in_dashes(run: Run) -> None:
    figure = layers_figure(summarise([run], resamples=50), numbered(summarise([run], resamples=50)))
    assert figure is not None
    assert len(re.findall(r'stroke-dasharray="10 10"', figure)) == 2  # fastv and random


def test_no_retention_no_figure(tmp_path_factory: pytest.TempPathFactory) -> None:
    run = write_run(tmp_path_factory.mktemp("run"), methods={"m": FakeMethod(0.5)}, benchmarks=["gqa"], documents=4)
    summary = summarise([run], resamples=20)
    assert retention_figure(summary, numbered(summary)) is None
    assert layers_figure(summary, numbered(summary)) is not None
