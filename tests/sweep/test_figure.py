"""A sweep's figure: what is drawn where, and that its files hold every name."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from atp_eval.analysis.significance import Interval
from atp_eval.cost import Geometry
from atp_eval.plotting import drawn, write_chart
from atp_eval.sweep import Family, Line, Sweep, Table
from atp_eval.sweep.figure import chart, curves, spread
from atp_eval.sweep.settings import trials

FAMILIES = (
    Family(name="DivPrune", spec="divprune", panel="before the LLM"),
    Family(name="uniform grid", spec="grid:layer=0", panel="before the LLM"),
    Family(name="random", spec="random:layer=0", seeds=(0, 1), panel="before the LLM", role="random"),
    Family(name="oracle", spec="oracle:layer=0", panel="before the LLM", role="oracle"),
    Family(name="FastV <&> $x", spec="fastv", panel="inside the LLM"),
    Family(name="uniform grid", spec="grid", panel="inside the LLM"),
)


def draw(table: Table, where: Path) -> None:
    """The figure's files."""
    write_chart(chart(table, where.name), where.parent, ("png", "svg"))


def table_of(families: tuple[Family, ...] = FAMILIES, **changes: object) -> Table:
    """Retentions 90, 89, ... by family, the same at 144 and 36; tokens a little above the budget."""
    sweep = Sweep(title="Small", families=families, budgets=(144, 36))
    lines = []
    for trial in trials(sweep, Geometry(8, (24, 24))):
        value = 90.0 - families.index(trial.family)
        found = Line(
            trial, tokens=trial.budget + 1.0, retention=Interval(value, value - 2, value + 3),
            spread=Interval(value, value - 5, value + 5),
        )  # fmt: skip
        lines.append(Line(trial, trial.refused) if trial.refused else found)
    table = Table(sweep, "tiny", (), 2100, ("gqa",), (), 576.0, {}, tuple(lines))
    return replace(table, **changes)  # type: ignore[arg-type]


def test_files_are_written_and_hold_every_name(tmp_path: Path) -> None:
    draw(table_of(), tmp_path / "small")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.csv", "small.png", "small.svg"]
    text = (tmp_path / "small.svg").read_text()
    said = {re.sub(r"\s+", " ", found) for found in re.findall(r"<text[^>]*>(.*?)</text>", text, re.DOTALL)}
    names = {"DivPrune", "uniform grid", "random", "oracle", "FastV &lt;&amp;&gt; $x", "upper bound"}
    assert names <= said
    assert {"before the LLM", "inside the LLM", "144", "36"} <= said
    assert any("2,100 questions to tiny" in one for one in said)
    with Image.open(tmp_path / "small.png") as image:
        assert image.size[0] == 1800
        assert len(set(image.convert("L").tobytes())) > 20


def test_the_same_table_gives_the_same_file(tmp_path: Path) -> None:
    draw(table_of(), tmp_path / "one")
    draw(table_of(), tmp_path / "two")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_points_lie_at_the_tokens_achieved_and_missing_ones_nowhere() -> None:
    before, inside = curves(table_of()).values()
    assert [curve.family.name for curve in before] == ["DivPrune", "uniform grid", "random", "oracle"]
    assert before[0].tokens == [145.0, 37.0]
    assert inside[0].tokens == [145.0]  # fastv@36 is out of reach
    assert inside[0].values(lambda line: line.retention.value) == [86.0]
    nowhere = tuple(replace(line, retention=Interval(math.nan)) for line in table_of().lines)
    assert curves(table_of(lines=nowhere)) == {}


def test_a_name_looks_alike_in_all_panels_and_unlike_its_neighbours() -> None:
    before, inside = curves(table_of()).values()
    looks = [(curve.colour, curve.marker) for curve in before]
    assert looks[1] == (inside[1].colour, inside[1].marker)
    assert looks[0] != looks[1] != (inside[0].colour, inside[0].marker)


def test_bars_and_bands_are_the_intervals() -> None:
    with drawn(chart(table_of(), "small")) as figure:
        before = figure.axes[0]
        found = [[path.vertices[:, 1] for path in one.get_paths()] for one in before.collections]
        ends = [{round(float(y)) for path in paths for y in path} for paths in found]
        assert ends[:2] == [{88, 93}, {87, 92}]  # DivPrune and the grid: 90 and 89, less 2 and plus 3
        assert {83, 93} <= ends[2] <= {83, 88, 93}  # random: 88, less and plus 5
        assert [tick.get_text() for tick in before.get_xticklabels()] == ["144", "36"]
        assert before.get_xlim()[0] > before.get_xlim()[1]  # tokens fall to the right


@pytest.mark.parametrize("families", [FAMILIES[:1], FAMILIES[4:5], FAMILIES[2:3]])
def test_one_family_makes_a_figure(tmp_path: Path, families: tuple[Family, ...]) -> None:
    draw(table_of(families), tmp_path / "one")
    assert families[0].name.split(" <")[0] in (tmp_path / "one.svg").read_text()


def test_many_families_make_a_figure(tmp_path: Path) -> None:
    many = tuple(Family(name=f"family {i}", spec="grid:layer=0") for i in range(25))
    draw(table_of(many), tmp_path / "many")
    text = (tmp_path / "many.svg").read_text()
    assert all(f">family {i}<" in text for i in range(25))


def test_nothing_to_draw_is_drawn(tmp_path: Path) -> None:
    lines = tuple(Line(line.trial, "not finished") for line in table_of().lines)
    draw(table_of(lines=lines), tmp_path / "none")
    assert "upper bound" in (tmp_path / "none.svg").read_text()


def test_names_are_moved_apart_no_farther_than_needed() -> None:
    assert spread([10.0, 50.0, 90.0], 5.0, 0.0) == [10.0, 50.0, 90.0]
    assert spread([50.0, 50.0], 4.0, 0.0) == [48.0, 52.0]
    assert spread([49.0, 50.0, 51.0, 57.0], 4.0, 0.0) == pytest.approx([45.75, 49.75, 53.75, 57.75])
    assert spread([0.0, 0.0], 4.0, 0.0) == [0.0, 4.0]


@given(st.lists(st.floats(0, 100), max_size=12), st.floats(0.5, 20))
def test_names_never_overlap_nor_leave_the_plot_below(values: list[float], gap: float) -> None:
    found = spread(sorted(values), gap, 0.0)
    assert len(found) == len(values)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(found))
    assert all(place >= 0 for place in found)
