"""The sentences and the figure about what kept counts go with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from atp_eval.analysis import Adaptivity, Hindsight, Interval
from atp_eval.analysis.adaptivity import Bin, Spread
from atp_eval.analysis.hindsight import Choice
from atp_eval.plotting import drawn
from atp_eval.reporting.adaptive import adaptive_words, objects_panels, signed

NBSP = "\u00a0"
ATP = Adaptivity(
    label="atp@144",
    questions=2100,
    pictures=120,
    tokens=Spread(Interval(143.1, 142.0, 144.0), 5.2, 133.6, 151.2),
    points={1: Spread(Interval(216.0, 210.0, 222.0), 20.0, 180.0, 250.0)},
    between_pictures=Interval(0.31, 0.16, 0.42),
    levels={},
    fine_minus_coarse=Interval(2.04, 0.5, 3.5),
    wrong_minus_right=Interval(-1.5, -2.5, -0.5),
    objects=Interval(-0.01, -0.17, 0.14),
    asked_cells=None,
    by_objects=tuple(Bin(n, n, float(n), 90, Interval(140.0 + n, 138.0 + n, 141.0 + n)) for n in (3, 4, 6)),
)
RATE = Interval(0.7, 0.65, 0.75)
HALF, WHOLE = (RATE, Interval(72.0)), (Interval(0.8, 0.75, 0.85), Interval(144.0))
LEAST = Choice(Interval(0.85, 0.8, 0.9), Interval(88.4, 85.0, 92.0), 0.5, Interval(0.15, 0.1, 0.2))
LUCK = replace(LEAST, right=Interval(0.94, 0.92, 0.96))


def said(*measured: Adaptivity, hindsight: tuple[Hindsight, ...] = ()) -> str:
    """The paragraphs in one."""
    return " ".join(adaptive_words(measured, hindsight)).replace(NBSP, " ")


def test_what_rises_what_falls_and_what_does_neither() -> None:
    assert said(ATP) == (
        "atp@144 keeps 143.1 visual tokens on average, 133.6 to 151.2 for nine questions in ten; 31 % [16, 42] of the "
        "variance lies between pictures, the rest between questions about the same picture. "
        "It spends more on fine questions than on coarse ones (+2.0 [0.5, 3.5] tokens). "
        "It spends less, not more, on questions that the unpruned model answers wrong than on those it answers right "
        "(−1.5 [−2.5, −0.5] tokens). "
        "There is no sign that it spends more where there are more objects (rank correlation −0.01 [−0.17, 0.14]): the "
        "interval includes 0."
    )


def test_several_without_a_sign_are_one_sentence() -> None:
    flat = replace(ATP, fine_minus_coarse=Interval(0.0, -1.0, 1.0), wrong_minus_right=Interval(1.0, 0.0, 2.0))
    _, sentence = said(flat).split("same picture. ")
    assert sentence.startswith(
        "There is no sign that it spends more on fine questions than on coarse ones (+0.0 [−1.0,"
    )
    assert " tokens), on questions that the unpruned model" in sentence and " or where there are" in sentence
    assert sentence.endswith("these intervals include 0.")


def test_what_is_unknown_or_without_an_interval_is_not_judged() -> None:
    bare = replace(ATP, fine_minus_coarse=None, wrong_minus_right=None, objects=Interval(1.0), between_pictures=None)
    assert said(bare) == "atp@144 keeps 143.1 visual tokens on average, 133.6 to 151.2 for nine questions in ten."
    assert said() == ""


def test_hindsight_names_its_luck() -> None:
    found = Hindsight("atp:control=fixed", 2100, {0.5: HALF, 1.0: WHOLE}, LEAST, LEAST, LUCK)
    assert said(hindsight=(found,)) == (
        "Had each question been given the least of 2 fixed counts at which it is answered right, 85.0 % [80.0, 90.0] "
        "would be right with 88 tokens on average; with one count for all, 72 tokens, 70.0 % [65.0, 75.0] are. No "
        "choice among these counts can bring more, and part of it is luck: right answers dealt at random would give "
        "94.0 %."
    )


def test_signs_are_minus_signs() -> None:
    assert signed(Interval(-0.5)) == "−0.5"
    assert signed(Interval(0.25, -1.0, 1.5), 2).replace(NBSP, " ") == "+0.25 [−1.00, 1.50]"


def test_panels_have_equal_axes_and_points_less_the_mean() -> None:
    steep = replace(ATP, label="atp@88", by_objects=tuple(moved_bin(b, 3 * b.objects) for b in ATP.by_objects))
    panels = objects_panels([ATP, steep], {"atp@144": 1, "atp@88": 2}.__getitem__)
    assert panels is not None and [p.label for p in panels.panels] == ["atp@144", "atp@88"]
    limits, marks = [], []
    for chart in panels.charts:
        with drawn(chart) as figure:
            (axes,) = figure.axes
            limits.append((axes.get_xlim(), axes.get_ylim()))
            points = [line for line in axes.lines if line.get_marker() not in ("None", None)]
            marks.append([line.get_xydata()[0].tolist() for line in points])
    assert limits[0] == limits[1]
    np.testing.assert_allclose(marks[0], [[3, -0.1], [4, 0.9], [6, 2.9]])
    np.testing.assert_allclose(marks[1], [[3, 8.9], [4, 12.9], [6, 20.9]])
    low, high = limits[0][1]
    assert low < -2.1 and high > 21.9  # intervals too
    assert panels.charts[0].alt.endswith("3: -0.1; 4: +0.9; 6: +2.9.")
    assert panels.whole.data["panel"].tolist() == ["atp@144"] * 3 + ["atp@88"] * 3


def moved_bin(b: Bin, by: float) -> Bin:
    return replace(b, tokens=Interval(*(v + by for v in b.tokens)))


def test_no_objects_no_panel() -> None:
    assert objects_panels([replace(ATP, by_objects=())], lambda label: 1) is None
    assert objects_panels([replace(ATP, by_objects=ATP.by_objects[:1])], lambda label: 1) is None
    assert objects_panels([], lambda label: 1) is None
