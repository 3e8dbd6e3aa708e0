"""The figures of the comparison page: what is drawn where, who is on the front, labels that stand apart."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from synthetic import METHODS, FakeMethod, write_run

from atp_eval.analysis import Interval, Summary, summarise
from atp_eval.plotting import Chart, colour, drawn
from atp_eval.records import Run
from atp_eval.reporting.contents import numbered
from atp_eval.reporting.figures import layers_chart
from atp_eval.reporting.inline import inline
from atp_eval.reporting.labels import LINE, Room, apart, short, size_in_points, spread_out, swarm
from atp_eval.reporting.pareto import Point, Tradeoff, front, front_words, is_more, places, tradeoff_parts, tradeoffs
from atp_eval.reporting.pareto import chart as tradeoff_chart


@given(st.lists(st.floats(0, 300), min_size=1, max_size=15))
def test_labels_stand_apart_in_order_and_inside(wanted: list[float]) -> None:
    found = spread_out(wanted, 17.0, 0.0, 300.0)
    placed = [found[i] for i in sorted(range(len(wanted)), key=lambda i: wanted[i])]
    assert all(b - a >= 17.0 - 1e-6 for a, b in itertools.pairwise(placed))
    assert min(found) >= -1e-6 and max(found) <= 300.0 + 1e-6


def test_labels_with_room_stay_where_they_are() -> None:
    assert spread_out([200.0, 50.0, 100.0], 17.0, 0.0, 300.0) == [200.0, 50.0, 100.0]
    assert spread_out([100.0, 100.0], 10.0, 0.0, 300.0) == [95.0, 105.0]
    assert spread_out([299.0, 298.0], 10.0, 0.0, 300.0) == [300.0, 290.0]


spans = st.lists(st.tuples(st.floats(0, 60), st.floats(0, 50), st.floats(0, 20)), min_size=1, max_size=12)


@given(spans)
def test_marks_move_no_further_than_they_may_and_only_if_they_hide_another(
    found: list[tuple[float, float, float]],
) -> None:
    xs, where = [x for x, _, _ in found], [(low, low + length) for _, low, length in found]
    drawn_at = swarm(xs, [Room(where, 6.0)], 6.0)
    assert all(abs(x - shown) <= 6.0 + 1e-6 for x, shown in zip(xs, drawn_at, strict=True))
    for i in range(len(xs)):
        if all(abs(xs[i] - xs[j]) >= 18.0 or apart(where[i], where[j]) for j in range(len(xs)) if j != i):
            assert drawn_at[i] == xs[i]


def test_marks_come_before_intervals_where_not_all_has_room() -> None:
    one, long = Room([(0.0, 1.0)] * 3, 6.0), Room([(0.0, 9.0)] * 3, 2.0)
    assert swarm([50.0] * 3, [one, long], 6.0) == [50.0, 56.0, 44.0]
    ladder = Room([(float(i), i + 0.5) for i in range(9)], 6.0)  # marks above each other, with intervals that overlap
    crowd = swarm([50.0] * 9, [ladder, Room([(0.0, 9.0)] * 9, 2.0)], 6.0)
    assert crowd == [50.0, 52.0, 48.0, 54.0, 46.0, 56.0, 44.0, 50.0, 50.0]


def test_equal_budgets_are_drawn_near_their_cost_and_dearer_ones_to_their_right(summary: Summary) -> None:
    points = [point(f"m{i}", 651.0, 80.0 + i, half=3.0) for i in range(11)]
    points += [point("dear", 794.0, 72.0, half=3.0), point("upper", 3454.0, 100.0, is_reference=True)]
    flops = Tradeoff("flops", "FLOPs", "FLOPs", tuple(points), front(points))
    with drawn(tradeoff_chart(flops, lambda label: 1)) as figure:
        axes = only_axes(figure)
        where, (left, right) = places(axes, points), axes.get_xlim()
        a_point = (right - left) / size_in_points(axes)[0]
    assert all(abs(where[p.label] - p.cost.value) <= 6.0 * a_point + 1e-6 for p in points)
    assert where["dear"] == 794.0


def test_long_labels_end_in_an_ellipsis_and_carry_nothing_unsafe() -> None:
    assert short("fastv@144") == "fastv@144"
    assert short("x" * 40, 10) == "x" * 9 + "…"
    assert short("a\x00b\nc\u202e", 99) == "a⟨U+0000⟩b c⟨U+202E⟩"


# ------------------------------------------------------------------ the front


def point(label: str, cost: float, retention: float, half: float = 1.0, **how: bool) -> Point:
    interval, reference = Interval(retention, retention - half, retention + half), how.get("is_reference", False)
    return Point(label, reference, Interval(cost), interval, how.get("competes", not reference))


def test_the_front_holds_whom_nobody_beats() -> None:
    points = [point("upper", 576, 100, is_reference=True), point("a", 60, 80), point("b", 144, 90), point("c", 144, 85)]
    assert front(points) == ("a", "b")
    assert front([*points, point("d", 59, 91)]) == ("d",)
    assert front([*points, point("oracle", 59, 99, competes=False)]) == ("a", "b")
    assert front([point("a", 60, 80), point("twin", 60, 80)]) == ("a", "twin")


def test_a_method_that_costs_more_than_the_unpruned_model_is_off_the_front(summary: Summary) -> None:
    upper, fast = point("upper", 100, 100, is_reference=True), point("fast", 60, 80)
    assert front([upper, fast, point("slow", 120, 95), point("slow, better", 120, 101)]) == ("fast", "slow, better")
    none = [upper, point("slow", 120, 95), point("as slow", 100.5, 100)]
    assert front(none) == ("as slow",)  # costs within a percent are equal, and so is what it keeps
    beaten = Tradeoff("time", "time", "time", tuple(none[:2]), front(none[:2]))
    assert beaten.front == () and "no pruning method is on the front" in front_words(summary, beaten)
    with drawn(tradeoff_chart(beaten, lambda label: 1)) as figure:
        assert [text.get_text() for text in only_axes(figure).texts] == ["upper", "slow"]


def test_who_is_clearly_below_the_unpruned_model_is_not_near_the_front(summary: Summary) -> None:
    assert is_more(summary, "upper_bound", "random@144")
    upper = point("upper_bound", 100, 100, is_reference=True)
    points = (upper, point("grid@144", 60, 70), point("random@144", 120, 96))
    words = front_words(summary, Tradeoff("time", "time", "time", points, front(points)))
    assert words == "Against time, grid@144 is on the front."


def test_costs_within_a_percent_are_equal() -> None:
    assert front([point("a", 143.0, 80), point("b", 144.0, 90)]) == ("b",)
    assert front([point("a", 142.0, 80), point("b", 144.0, 90)]) == ("a", "b")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    methods = METHODS | {
        "wide": FakeMethod(0.8, [(1, (100, 300)), (4, (20, 90))], merged=5),
        "far": FakeMethod(0.9, [(1, 500)]),
    }
    return write_run(tmp_path_factory.mktemp("run") / "one", methods=methods, documents=40)


@pytest.fixture(scope="module")
def summary(run: Run) -> Summary:
    return summarise([run], resamples=200)


def test_every_cost_that_is_known_has_a_front(summary: Summary) -> None:
    found = {t.key: t for t in tradeoffs(summary)}
    assert list(found) == ["tokens", "flops", "time"]
    assert found["flops"].title.startswith("GFLOPs")
    costs = {p.label: p.cost.value for p in found["flops"].points}
    row = summary.fairness.row("far")
    assert row is not None and row.flops is not None
    assert costs["far"] == pytest.approx(row.flops / 1e9)
    time = {p.label: p.cost for p in found["time"].points}
    assert time["grid@144"].bounded and 30 < time["grid@144"].value < 80


def test_words_name_the_front_and_whom_chance_may_keep_off_it(summary: Summary) -> None:
    def retention(label: str) -> Interval:
        found = summary.method(label).retention
        assert found is not None
        return found

    points = tuple(
        Point(label, label == "upper_bound", Interval(cost), retention(label), label != "upper_bound")
        for label, cost in {"upper_bound": 576, "far": 144, "random@144": 144, "fastv@144": 144}.items()
    )
    text = front_words(summary, Tradeoff("tokens", "tokens", "tokens", points, front(points)))
    assert text.startswith("Against tokens, far is on the front")
    contrast = summary.contrast("random@144", "far") or summary.contrast("far", "random@144")
    assert contrast is not None and abs(contrast.difference.value) > 5
    assert "random@144" not in text  # it is clearly worse
    twice = tuple(replace_cost(p, 60.0) if p.label == "random@144" else p for p in points)
    text = front_words(summary, Tradeoff("tokens", "tokens", "tokens", twice, front(twice)))
    assert "random@144 and far are on the front, each keeping more than the one before beyond chance" in text


def replace_cost(p: Point, cost: float) -> Point:
    return p._replace(cost=Interval(cost))


def test_what_a_front_keeps_may_be_chance(summary: Summary) -> None:
    """The same method twice, the dearer one with a little more: no contrast says anything of it."""
    points = (point("a", 60, 80), point("b", 144, 81))
    text = front_words(summary, Tradeoff("tokens", "tokens", "tokens", points, front(points)))
    assert text == "Against tokens, a and b are on the front; what b keeps over the next cheaper may be chance."


# ------------------------------------------------------------------ what is drawn


def only_axes(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def charts(summary: Summary) -> list[Chart]:
    parts = tradeoff_parts(summary, numbered(summary))
    layers = layers_chart(summary, numbered(summary))
    assert parts is not None and layers is not None
    assert len(parts.costs) == len(parts.charts)
    return [*parts.charts, layers]


def test_everything_lies_inside_the_figure_and_every_method_is_named(summary: Summary) -> None:
    for chart in charts(summary):
        with drawn(chart) as figure:
            figure.canvas.draw()
            outline = figure.bbox.padded(2)
            for text in only_axes(figure).texts:
                box = text.get_window_extent()
                assert outline.x0 <= box.x0 and box.x1 <= outline.x1 and outline.y0 <= box.y0 and box.y1 <= outline.y1
            boxes = sorted((t.get_window_extent() for t in only_axes(figure).texts), key=lambda b: b.y0)
            middles = [(b.y0 + b.y1) / 2 for b in boxes]
            assert all(b - a > 0.8 * LINE * figure.dpi / 72 for a, b in itertools.pairwise(middles))
        for m in summary.methods:
            assert m.label in inline(chart) and m.label in set(chart.data["method"])


def test_marks_are_the_points_and_better_ones_lie_higher(summary: Summary) -> None:
    parts = tradeoff_parts(summary, numbered(summary))
    assert parts is not None
    with drawn(parts.charts[2]) as figure:  # of time, where nothing is moved
        shown = [line.get_xydata()[0] for line in only_axes(figure).lines if line.get_marker() not in ("None", None)]
    data = parts.charts[2].data
    left = [p for p in shown if p[0] <= data["time"].max() * 1.04]  # the others stand beside names
    expected = sorted(zip(data["time"], data["retention"], strict=True))
    np.testing.assert_allclose(sorted(map(tuple, left)), expected)


def test_bands_are_drawn_where_samples_differ_only(summary: Summary) -> None:
    chart = layers_chart(summary, numbered(summary))
    assert chart is not None
    with drawn(chart) as figure:
        bands = [
            c
            for c in only_axes(figure).collections
            if type(c).__name__ in ("PolyCollection", "FillBetweenPolyCollection")
        ]
    assert len(bands) == 1


def test_methods_with_one_curve_share_the_line_in_dashes(summary: Summary) -> None:
    chart = layers_chart(summary, numbered(summary))
    assert chart is not None
    page = inline(chart)
    assert len(re.findall(r"stroke-dasharray", page)) == 2  # fastv and random
    offsets = re.findall(r'stroke-dashoffset="(-?[\d.]+)"', page)
    assert len(set(offsets)) == 2


def test_a_staircase_holds_from_layer_to_layer(summary: Summary) -> None:
    chart = layers_chart(summary, numbered(summary))
    assert chart is not None
    with drawn(chart) as figure:
        lines = {line.get_color(): line.get_xydata() for line in only_axes(figure).lines if len(line.get_xydata()) > 2}
    grid = lines[colour(numbered(summary)("far"))]
    assert grid[:4].tolist() == [[0, 576], [1, 576], [1, 500], [2, 500]]
    assert grid[-1].tolist() == [8, 500]


def test_no_retention_no_front(tmp_path_factory: pytest.TempPathFactory) -> None:
    run = write_run(tmp_path_factory.mktemp("run"), methods={"m": FakeMethod(0.5)}, benchmarks=["gqa"], documents=4)
    summary = summarise([run], resamples=20)
    assert tradeoff_parts(summary, numbered(summary)) is None
    assert layers_chart(summary, numbered(summary)) is not None


def test_unknown_sizes_and_times_leave_their_costs_out(summary: Summary) -> None:
    methods = tuple(replace(m, timing=None) for m in summary.methods)
    rows = tuple(replace(row, flops=None) for row in summary.fairness.rows)
    bare = replace(summary, methods=methods, fairness=replace(summary.fairness, rows=rows))
    assert [t.key for t in tradeoffs(bare)] == ["tokens"]


def test_the_size_of_axes_is_told_in_points() -> None:
    figure = plt.figure(figsize=(4, 2))
    assert size_in_points(figure.add_axes((0.25, 0.25, 0.5, 0.5))) == pytest.approx((144, 72))
    plt.close(figure)
