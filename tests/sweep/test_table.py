"""A sweep's table on answers whose figures can be reckoned by hand."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from synthetic import FakeMethod, write_run

from atp_eval.analysis.significance import Interval
from atp_eval.cost import Geometry
from atp_eval.errors import UserError
from atp_eval.records import PARQUET, Run, slug
from atp_eval.sweep import Family, Line, Sweep, Table, make_table
from atp_eval.sweep.settings import trials
from atp_eval.sweep.words import markdown, to_markdown, to_rich, to_rows

BEFORE = [
    Family(name="grid", spec="grid:layer=0", panel="before"),
    Family(name="random", spec="random:layer=0", panel="before", seeds=(0, 1), role="random"),
]
INSIDE = [
    Family(name="FastV", spec="fastv", panel="inside"),
    Family(name="random", spec="random", panel="inside", role="random"),
]
SWEEP = Sweep(title="Small", families=(*BEFORE, *INSIDE), budgets=(144, 36), note="A note.")
GRID, FIRST, SECOND = "grid@144:layer=0", "random@144:layer=0", "random@144:layer=0,seed=1"
METHODS = {
    "upper_bound": FakeMethod(1.0),
    GRID: FakeMethod(0.5, [(0, 144)]),
    FIRST: FakeMethod(0.5, [(0, 144)]),
    SECOND: FakeMethod(0.5, [(0, 144)]),
    "grid@36:layer=0": FakeMethod(0.5, [(0, 36)]),
    "random@36:layer=0": FakeMethod(0.5, [(0, 36)]),
    "random@36:layer=0,seed=1": FakeMethod(0.5, [(0, 37)]),
    "fastv@144": FakeMethod(0.5, [(1, 90)]),
    "random@144": FakeMethod(0.5, [(1, 82)]),
}
# Right answers to eight questions about four pictures (0 and 1 about the first, and so on).
ODD, EVEN = [1, 0] * 4, [0, 1] * 4
SCORES: dict[str, dict[str, Sequence[int]]] = {
    "upper_bound": {"gqa": [1] * 8, "pope": [1, 1, 1, 1, 0, 0, 0, 0]},
    GRID: {"gqa": [1, 1, 1, 1, 0, 0, 0, 0], "pope": [1, 1, 1, 0, 0, 0, 0, 0]},
    FIRST: {"gqa": [1, 1, 0, 0, 0, 0, 0, 0], "pope": [1, 1, 0, 0, 0, 0, 0, 0]},
    SECOND: {"gqa": [0, 0, 1, 1, 1, 1, 1, 1], "pope": [0, 0, 1, 1, 0, 0, 0, 0]},
    "fastv@144": {"gqa": ODD, "pope": [1, 1, 0, 0, 0, 0, 0, 0]},
    "random@144": {"gqa": ODD, "pope": [1, 1, 0, 0, 0, 0, 0, 0]},
}


def answered(folder: Path, scores: Mapping[str, Mapping[str, Sequence[int]]] = SCORES, **options: object) -> Run:
    """A run whose answers to eight questions about four pictures are right and wrong as told."""
    settings = {"methods": METHODS, "benchmarks": ("gqa", "pope"), "documents": 8, **options}
    run = write_run(folder, **settings)  # type: ignore[arg-type]
    for method, by_benchmark in scores.items():
        for benchmark, right in by_benchmark.items():
            path = folder / slug(method) / benchmark / PARQUET
            if path.exists():
                pd.read_parquet(path).assign(score=np.array(right, dtype=float)).to_parquet(path)
    return run


def table_of(*runs: Run, sweep: Sweep = SWEEP, tasks: Sequence[str] = ("gqa", "pope")) -> Table:
    return make_table(sweep, trials(sweep, Geometry(8, (24, 24))), runs, tasks)


def line(table: Table, family: Family, budget: int = 144) -> Line:
    found = table.at(family, budget)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return answered(tmp_path_factory.mktemp("runs") / "one")


@pytest.fixture(scope="module")
def table(run: Run) -> Table:
    return table_of(run)


def test_retention_is_the_mean_over_benchmarks_and_seeds(table: Table) -> None:
    grid, random = (line(table, family) for family in BEFORE)
    assert grid.retention.value == pytest.approx((4 / 8 + 3 / 4) / 2 * 100)
    assert random.seeds == pytest.approx(((2 / 8 + 2 / 4) / 2 * 100, (6 / 8 + 2 / 4) / 2 * 100))
    assert random.retention.value == pytest.approx(50.0)
    assert grid.scores == pytest.approx({"gqa": 50.0, "pope": 37.5})
    assert random.scores == pytest.approx({"gqa": 50.0, "pope": 25.0})
    assert (table.full, table.scores) == (576, pytest.approx({"gqa": 100.0, "pope": 50.0}))
    assert table.questions == 16


def test_a_difference_is_to_the_random_control_of_the_panel_and_the_budget(table: Table) -> None:
    grid, random = (line(table, family) for family in BEFORE)
    fastv, inside = (line(table, family) for family in INSIDE)
    assert grid.difference is not None and grid.difference.value == pytest.approx(62.5 - 50.0)
    assert (random.difference, inside.difference) == (None, None)
    # Paired: who answers as random tokens do differs from them in no draw of questions, and so has no interval.
    assert fastv.retention.low < fastv.retention.high
    assert fastv.difference is not None and fastv.difference.value == 0.0 and not fastv.difference.bounded


def test_a_panel_without_a_control_is_held_against_the_first_there_is(run: Run) -> None:
    sweep = SWEEP.model_copy(update={"families": (*BEFORE, INSIDE[0])})
    found = line(table_of(run, sweep=sweep), INSIDE[0]).difference
    assert found is not None and found.value == pytest.approx((4 / 8 + 2 / 4) / 2 * 100 - 50.0)


def test_seeds_are_averaged_inside_the_bootstrap(run: Run) -> None:
    random = line(table_of(run, tasks=["gqa"]), BEFORE[1])
    # Where one seed is right the other is wrong: their mean is the same whatever is drawn, each alone is not.
    assert random.retention.value == pytest.approx(50.0) and not random.retention.bounded
    assert random.spread.low < 25.0 < 75.0 < random.spread.high
    (contrast,) = {line(table_of(run, tasks=["gqa"]), BEFORE[0]).difference}
    assert contrast is not None and contrast.low < 0 < contrast.high


def test_tokens_are_those_achieved_and_marked_where_they_miss_the_budget(table: Table) -> None:
    assert line(table, BEFORE[0]).tokens == 144
    assert line(table, INSIDE[1]).tokens == (576 + 7 * 82) / 8  # 143.75
    assert line(table, INSIDE[1]).off is None
    assert line(table, INSIDE[0]).tokens == (576 + 7 * 90) / 8
    assert line(table, INSIDE[0]).off == pytest.approx(150.75 / 144 - 1)
    assert line(table, BEFORE[1], 36).tokens == 36.5  # mean of two seeds
    assert line(table, BEFORE[1], 36).off == pytest.approx(36.5 / 36 - 1)


def test_budgets_out_of_reach_have_no_figures_but_a_reason(table: Table) -> None:
    found = line(table, INSIDE[0], 36)
    assert found.missing is not None and found.missing.startswith("fastv@36 is out of reach")
    assert not found.retention.bounded and found.off is None and found.difference is None


def test_what_is_not_finished_is_in_no_average(tmp_path: Path) -> None:
    found = table_of(answered(tmp_path / "run", skip=[(GRID, "pope"), (SECOND, "gqa"), (SECOND, "pope")]))
    grid, random = (line(found, family) for family in BEFORE)
    assert grid.missing == "not finished: 1 of 2 benchmarks and seeds are answered"
    assert random.missing == "not finished: 2 of 4 benchmarks and seeds are answered"
    assert line(found, INSIDE[0]).missing is None
    assert "not finished" in to_markdown(found)
    without = table_of(answered(tmp_path / "other", skip=[("upper_bound", "pope")]))
    assert [b.name for b in without.benchmarks] == ["gqa"]
    assert line(without, BEFORE[0]).retention.value == pytest.approx(50.0)
    assert "not in the averages: pope." in to_markdown(without)
    with pytest.raises(UserError, match="upper_bound has not finished any benchmark"):
        table_of(answered(tmp_path / "third", skip=[("upper_bound", "pope"), ("upper_bound", "gqa")]))


def test_a_difference_to_a_control_without_figures_is_none(tmp_path: Path) -> None:
    found = line(table_of(answered(tmp_path / "run", skip=[(SECOND, "gqa")])), BEFORE[0])
    assert found.retention.value == pytest.approx(62.5)
    assert found.difference is None


def test_several_run_folders_make_the_same_table(table: Table, tmp_path: Path) -> None:
    shared = {"upper_bound": METHODS["upper_bound"]}
    inside = {name: method for name, method in METHODS.items() if name in ("fastv@144", "random@144")}
    before = {name: method for name, method in METHODS.items() if name not in inside}
    runs = [answered(tmp_path / "a", methods=before), answered(tmp_path / "b", methods=shared | inside)]
    found = table_of(*runs, runs[0])
    assert [x.to_json() for x in found.lines] == [x.to_json() for x in table.lines]
    assert [x.name for x in found.runs] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"protocol": {"prompt": "vicuna_v1"}}, "of different protocols: prompt differ"),
        ({"documents": 4}, "gqa is not the same in"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(
    run: Run, tmp_path: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        table_of(run, answered(tmp_path / "b", {}, **options))


def test_methods_of_one_name_with_other_parameters_are_refused(run: Run, tmp_path: Path) -> None:
    other = answered(tmp_path / "b")
    methods = {**other.manifest.methods, GRID: {"solved": "grid:layer=0,keep=143"}}
    with pytest.raises(UserError, match=f"{GRID} is not the same in"):
        table_of(run, replace(other, manifest=other.manifest.model_copy(update={"methods": methods})))


def test_markdown_holds_figures_marks_and_reasons(table: Table) -> None:
    text = to_markdown(table)
    grid = line(table, BEFORE[0])
    assert grid.difference is not None
    assert f"| grid | 62.5 [{grid.retention.low:.1f}, {grid.retention.high:.1f}] |" in text
    assert f"| grid | +12.5 [{grid.difference.low:+.1f}, {grid.difference.high:+.1f}] |" in text
    assert "| random | 143.8 | out of reach |" in text
    assert "| FastV | 150.8† | out of reach |" in text
    assert "- FastV (inside), random (inside) at 36: @… is out of reach: the 1 of 8 layers before the prune" in text
    assert "The nearest is @73" in text
    assert "grid `grid:layer=0`, random `random:layer=0`." in text
    assert "Means of 2 seeds" in text
    assert "16 questions of gqa, pope to tiny, which reads 576 visual tokens unpruned. Columns" in text
    assert "A note." in text
    differences = text.split("minus that of random tokens")[1].split("Average tokens")[0]
    assert "random |" not in differences


def test_csv_and_json_hold_every_figure(table: Table) -> None:
    rows = to_rows(table)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    data = json.loads(json.dumps(table.to_json()))
    assert len(rows) == len(data["rows"]) == 8
    grid = data["rows"][0]
    assert (grid["family"], grid["panel"], grid["budget"], grid["methods"]) == ("grid", "before", 144, [GRID])
    assert grid["retention"]["value"] == pytest.approx(62.5)
    assert rows[0]["retention"] == grid["retention"]["value"]
    assert rows[0]["minus_random_high"] == grid["minus_random"]["high"]
    assert (rows[0]["gqa"], rows[0]["pope"]) == pytest.approx((50.0, 37.5))
    assert rows[2]["seeds"] == "37.50 62.50"
    assert data["rows"][2]["spread"] == line(table, BEFORE[1]).spread._asdict() != data["rows"][2]["retention"]
    assert rows[5]["retention"] is None and rows[5]["missing"].startswith("fastv@36 is out of reach")
    assert data["upper_bound"]["tokens"] == 576


def test_names_are_text_for_the_terminal_and_for_markdown(table: Table) -> None:
    family = BEFORE[0].model_copy(update={"name": "[red]x[/]|y"})
    sweep = SWEEP.model_copy(update={"families": (family, *SWEEP.families[1:])})
    lines = tuple(
        replace(x, trial=x.trial._replace(family=family)) if x.trial.family == BEFORE[0] else x for x in table.lines
    )
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(to_rich(replace(table, sweep=sweep, lines=lines)))
    assert "[red]x[/]|y" in console.export_text()
    assert "| [red]x[/]&#124;y |" in to_markdown(replace(table, sweep=sweep, lines=lines))
    assert markdown(["", "a"], [["x", "1"]]) == "|  | a |\n| --- | ---: |\n| x | 1 |"


def test_a_retention_that_cannot_be_known_is_a_dash(table: Table) -> None:
    lines = tuple(
        replace(x, retention=Interval(float("nan"))) if x.trial.family == BEFORE[0] else x for x in table.lines
    )
    assert "| grid | – | – |" in to_markdown(replace(table, lines=lines))
