"""The one style of figures: marks, panels, files, and what becomes of a figure on a page."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path as Outline
from PIL import Image

from atp_eval.plotting import (
    INK,
    MARKERS,
    ROLES,
    SERIES,
    Chart,
    Margins,
    Panel,
    Panels,
    colour,
    drawn,
    marker,
    plot_area,
    printable,
    write_chart,
)
from atp_eval.reporting.inline import inline
from atp_eval.reporting.svg import SHAPES, swatch

HOSTILE = "$\\frac{$ </script><b onclick=x> \x00\u202e _" + "w" * 200


def lines(figure: Figure) -> None:
    axes = plot_area(figure)
    axes.plot([0, 1, 2], [3.14159, 1, 2], marker=marker(3), color=colour(3), label="a")
    axes.fill_between([0, 1, 2], 0, [1, 2, 1], color=colour(2), alpha=0.2)
    axes.set_xlabel("steps")


CHART = Chart("curve", "A curve from 3.1 to 2.", pd.DataFrame({"x": [0, 1, 2], "y": [3.14159, 1, 2]}), lines)


def test_marks_differ_in_shape_and_in_colour() -> None:
    seen = [(marker(i), colour(i)) for i in range(25)]
    assert len(set(seen)) == 25
    assert seen[0] == ("o", INK)
    assert {c for _, c in seen} == {INK, *SERIES}


def contrast(first: str, second: str) -> float:
    """WCAG 2's ratio."""

    def light(tint: str) -> float:
        parts = [int(tint[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722])) + 0.05

    a, b = sorted((light(first), light(second)))
    return b / a


def test_series_stand_out_from_the_paper() -> None:
    assert all(contrast(tint, "#fdfcf9") > 3 for tint in SERIES)


def test_roles_have_the_colours_of_the_page() -> None:
    css = (Path(__file__).parents[1] / "reports" / "base.css").read_text(encoding="utf-8")
    root = dict(re.findall(r"(--[\w]+): (#[0-9a-f]{6});", css.split("}")[0]))
    assert {role: root[role] for role in ROLES.values()} == {role: tint for tint, role in ROLES.items()}


def outline(shape: str) -> Outline:
    """A mark of text as a path: M, L, H, h, v and z; its circle as the one that it is."""
    if "a" in shape:
        return Outline.circle((0, 0), 4.5)
    x = y = 0.0
    corners = []
    for letter, numbers in re.findall(r"([MLHhvz])([^MLHhvz]*)", shape):
        values = [float(v) for v in re.findall(r"-?[\d.]+", numbers)]
        if letter in "ML":
            x, y = values
        elif letter in "Hh":
            x = values[0] + (x if letter == "h" else 0)
        elif letter == "v":
            y += values[0]
        corners.append((x, y))
    return Outline(np.array(corners))


@pytest.mark.parametrize("name", MARKERS)
def test_marks_in_text_have_the_shape_of_those_in_figures(name: str) -> None:
    style = MarkerStyle(name)
    in_figures = style.get_path().transformed(style.get_transform())
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 41), np.linspace(-1, 1, 41)), axis=-1).reshape(-1, 2)

    def covered(path: Outline, flip: int = 1) -> np.ndarray:
        return path.contains_points(grid * [1, flip] * np.abs(path.to_polygons()[0]).max())

    wanted = covered(in_figures, -1)  # on a page y points down
    alike = {other: (wanted & (o := covered(outline(SHAPES[other])))).sum() / (wanted | o).sum() for other in MARKERS}
    assert alike[name] > 0.6 and alike[name] == max(alike.values())


def test_swatches_have_the_colour_of_figures_and_the_reference_is_hollow() -> None:
    assert 'class="mark reference"' in swatch(0)
    for series in range(1, 20):
        assert f'class="mark {ROLES[colour(series)][2:]}"' in swatch(series)


# ------------------------------------------------------------------ files


def test_a_chart_is_written_with_its_data(tmp_path: Path) -> None:
    paths = write_chart(CHART, tmp_path / "new")
    assert [p.name for p in paths] == ["curve.pdf", "curve.png", "curve.csv"]
    assert paths[0].read_bytes().startswith(b"%PDF")
    assert Image.open(paths[1]).size == pytest.approx((960, 660), abs=1)
    pd.testing.assert_frame_equal(pd.read_csv(paths[2]), CHART.data)
    assert len(list((tmp_path / "new").iterdir())) == 3


def test_files_are_the_same_every_time(tmp_path: Path) -> None:
    first, second = (write_chart(CHART, tmp_path / name) for name in ("a", "b"))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_labels_are_text_whatever_they_hold(tmp_path: Path) -> None:
    panel = Panel(HOSTILE, HOSTILE, CHART.data, lambda axes: axes.set_xlabel(printable(HOSTILE)), note=HOSTILE)
    panels = Panels("hostile", HOSTILE, (panel,) * 4, (2, 2))
    write_chart(panels.whole, tmp_path)
    page = inline(panels.whole)
    root = ElementTree.fromstring(page.encode("utf-8", "replace"))
    assert not {e.tag for e in root.iter()} - {"svg", "title", "g", "path", "text", "use", "defs", "clipPath", "rect"}
    assert "$\\frac{$" in page and "<b" not in page and "\x00" not in page and "\u202e" not in page


def test_texts_that_cannot_be_drawn_are_replaced() -> None:
    assert printable("a$b\n\x00\ud800c") == "a$b\ufffd\ufffd\ufffdc"
    assert printable("x" * 99, 10) == "x" * 9 + "…"


# ------------------------------------------------------------------ panels


def panels(count: int, columns: int = 3) -> Panels:
    def panel(i: int) -> Panel:
        return Panel(f"m{i}", "up", pd.DataFrame({"y": [i]}), lambda axes: axes.plot([0, 1], [0, i]))

    return Panels("some", "Lines.", tuple(map(panel, range(count))), (2.0, 1.5), Margins(0.5, 0.1, 0.4, 0.1), columns)


def test_a_panel_alone_has_its_exact_place() -> None:
    second = panels(3).charts[1]
    assert (second.name, second.alt, second.size) == ("some-2", "m1: up", (2.0, 1.5))
    with drawn(second) as figure:
        (axes,) = figure.axes
        assert axes.get_position().bounds == pytest.approx((0.25, 0.4 / 1.5, 0.7, 1 / 1.5))
        assert axes.lines[0].get_ydata()[-1] == 1


@pytest.mark.parametrize(("count", "columns", "shape"), [(1, 3, (1, 1)), (3, 3, (1, 3)), (5, 2, (3, 2))])
def test_all_panels_stand_in_a_grid_and_do_not_overlap(count: int, columns: int, shape: tuple[int, int]) -> None:
    whole = panels(count, columns).whole
    assert whole.size[0] == pytest.approx(2.0 * shape[1])
    assert whole.data["panel"].tolist() == [f"m{i}" for i in range(count)]
    with drawn(whole) as figure:
        boxes = [axes.get_position() for axes in figure.axes]
        assert [axes.get_title(loc="left") for axes in figure.axes] == [f"m{i}" for i in range(count)]
        assert len({(round(b.width, 6), round(b.height, 6)) for b in boxes}) == 1
        assert all(b.x0 >= 0 and b.x1 <= 1 and b.y0 >= 0 and b.y1 <= 1 for b in boxes)
        for a, b in itertools.combinations(boxes, 2):
            assert a.x1 < b.x0 or b.x1 < a.x0 or a.y1 < b.y0 or b.y1 < a.y0
        tops = [b.y1 for b in boxes]
        assert tops == sorted(tops, reverse=True)


# ------------------------------------------------------------------ on a page


def test_a_chart_on_a_page_is_small_dressed_by_the_page_and_described() -> None:
    page = inline(CHART)
    root = ElementTree.fromstring(page)
    (title,) = root.findall("title")
    assert title.text == CHART.alt and title.get("id") == root.get("aria-labelledby") and root.get("role") == "img"
    assert "style" not in {key for e in root.iter() for key in e.attrib} | {e.tag for e in root.iter()}
    assert f"var({ROLES[colour(3)]})" in page and f"var({ROLES[colour(2)]})" in page and colour(3) not in page
    assert [e.text for e in root.iter("text")][-1] != "" and "steps" in [e.text for e in root.iter("text")]
    assert not re.search(r"\d\.\d{3}", page.split("</title>")[1])
    assert len(page) < 10_000
    assert (root.get("width"), root.get("height")) == ("461", "317")


def test_names_of_elements_are_the_charts_own_and_lead_somewhere() -> None:
    other = Chart("other", "B.", CHART.data, lines)
    found = []
    for chart in (CHART, other):
        root = ElementTree.fromstring(inline(chart))
        ids = [e.get("id") for e in root.iter() if e.get("id")]
        assert len(ids) == len(set(ids)) and all(str(i).startswith(f"{chart.name}-") for i in ids)
        used = {e.get("href", "")[1:] for e in root.iter("use")}
        used |= set(re.findall(r"url\(#([^)]+)\)", ElementTree.tostring(root, encoding="unicode")))
        assert used and used <= set(ids) and set(ids) - used == {f"{chart.name}-title"}
        found.append(set(ids))
    assert not found[0] & found[1]
