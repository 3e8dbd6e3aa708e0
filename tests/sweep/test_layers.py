"""Scores against pruning layer and ratio, on answers whose figures can be counted by hand; and their figure."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console
from synthetic import FakeMethod, write_run

from atp_eval.cost import Geometry
from atp_eval.errors import UserError
from atp_eval.plotting import drawn, write_chart
from atp_eval.records import PARQUET, Run, slug
from atp_eval.sweep import layer_words
from atp_eval.sweep.layer_figure import chart
from atp_eval.sweep.layers import LayerTable, Spot, make_layer_table
from atp_eval.sweep.settings import Family, Sweep, load_sweep, trials

FAMILIES = (
    Family(name="last row", spec="fastv", grid={"layer": (1, 2), "keep": (288, 58)}),
    Family(name="random", spec="random", grid={"layer": (0, 1), "keep": (288, 58)}, seeds=(0, 1), role="random"),
)
SWEEP = Sweep(title="Small", figure="layers", families=FAMILIES, tasks=("gqa", "pope"), note="A note.")
TINY = Geometry(8, (24, 24))
# Documents 0, 3, 6, 9 are coarse, 1, 4, 7, 10 in between, 2, 5, 8, 11 fine; two each are about one picture.
COARSE, FINE = [0, 3, 6, 9], [2, 5, 8, 11]


def right(*docs: int) -> list[int]:
    """Twelve answers, of which these are right."""
    return [int(i in docs) for i in range(12)]


def labels(sweep: Sweep = SWEEP) -> list[str]:
    return ["upper_bound", *(label for trial in trials(sweep, TINY) if not trial.refused for label in trial.labels)]


def answered(folder: Path, scores: dict[str, Sequence[int]], **options: object) -> Run:
    """A run in which every method but those told answers everything, on both benchmarks."""
    methods = {label: FakeMethod(1.0, [(1, 144)] if label != "upper_bound" else []) for label in labels()}
    run = write_run(folder, methods=methods, benchmarks=("gqa", "pope"), documents=12, **options)  # type: ignore[arg-type]
    for label in methods:
        for benchmark in ("gqa", "pope"):
            path = folder / slug(label) / benchmark / PARQUET
            if path.exists():
                told = np.array(scores.get(label, [1] * 12), dtype=float)
                pd.read_parquet(path).assign(score=told).to_parquet(path)
    return run


SCORES: dict[str, Sequence[int]] = {
    "upper_bound": right(*COARSE, 2, 5, 8),  # 100 % of coarse ones, 75 % of fine ones
    "fastv:layer=1,keep=58": right(0, 3, 2, 11),  # 50 % and 50 %
    "random:layer=1,keep=58": right(0, 2, 5, 8),  # 25 % and 75 %
    "random:layer=1,keep=58,seed=1": right(*COARSE, 5),  # 100 % and 25 %
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return answered(tmp_path_factory.mktemp("runs") / "one", SCORES)


@pytest.fixture(scope="module")
def table(run: Run) -> LayerTable:
    return make_layer_table(SWEEP, trials(SWEEP, TINY), [run], SWEEP.tasks, resamples=500)


def spot(table: LayerTable, family: Family, layer: int, keep: int) -> Spot:
    found = table.at(family, layer, keep)
    assert found is not None
    return found


def test_a_grid_is_every_combination_and_seeds_are_averaged() -> None:
    found = trials(SWEEP, TINY)
    assert [trial.labels for trial in found[:4]] == [
        (f"fastv:layer={layer},keep={keep}",) for layer in (1, 2) for keep in (288, 58)
    ]
    assert found[4].labels == ("random:layer=0,keep=288", "random:layer=0,keep=288,seed=1")
    assert found[4].family.title == "random, layer 0, keep 288"


def test_scores_are_by_level_over_all_questions(table: LayerTable) -> None:
    assert dict(table.questions) == {"coarse": 8, "fine": 8}  # two benchmarks; what is in between counts nowhere
    assert {level: score.value for level, score in table.scores.items()} == {"coarse": 100.0, "fine": 75.0}
    fastv = spot(table, FAMILIES[0], 1, 58)
    assert {level: found.score.value for level, found in fastv.levels.items()} == {"coarse": 50.0, "fine": 50.0}
    assert fastv.levels["coarse"].retention.value == 50.0
    assert fastv.levels["fine"].retention.value == pytest.approx(100 * 2 / 3)
    random = spot(table, FAMILIES[1], 1, 58)
    assert random.levels["coarse"].score.value == pytest.approx((25 + 100) / 2)
    assert random.levels["fine"].score.value == pytest.approx((75 + 25) / 2)
    assert (table.layers, table.keeps) == ((0, 1, 2), (288, 58))
    assert [table.share(keep) for keep in table.keeps] == ["50 %", "10 %"]


def test_a_difference_is_to_random_tokens_of_the_same_layer_and_count(table: LayerTable) -> None:
    found = spot(table, FAMILIES[0], 1, 58).levels
    coarse, fine = found["coarse"].difference, found["fine"].difference
    assert coarse is not None and coarse.value == pytest.approx(50.0 - 62.5)
    assert fine is not None and fine.value == pytest.approx((50.0 - 50.0) / 0.75)
    assert coarse.low < coarse.value < coarse.high
    assert spot(table, FAMILIES[0], 2, 58).levels["fine"].difference is None  # there are no random tokens at layer 2
    assert spot(table, FAMILIES[1], 1, 58).levels["fine"].difference is None


def test_intervals_are_over_pictures(run: Run, table: LayerTable) -> None:
    found = spot(table, FAMILIES[0], 1, 58).levels["coarse"].score
    assert found.low < 50.0 < found.high
    again = make_layer_table(SWEEP, trials(SWEEP, TINY), [run], SWEEP.tasks, resamples=500)
    assert spot(again, FAMILIES[0], 1, 58) == spot(table, FAMILIES[0], 1, 58)


def test_what_is_not_finished_or_out_of_reach_has_a_reason(tmp_path: Path) -> None:
    sweep = SWEEP.model_copy(update={"families": (*FAMILIES, Family(name="deep", spec="fastv", grid={"layer": (9,)}))})
    run = answered(tmp_path / "run", SCORES, skip=[("fastv:layer=1,keep=58", "pope")])
    found = make_layer_table(sweep, trials(sweep, TINY), [run], sweep.tasks, resamples=50)
    missing = [s.missing for s in found.spots if s.missing]
    assert missing[0] == "not finished: 1 of 2 benchmarks and seeds are answered"
    assert "layer=9" in missing[1] and len(missing) == 2
    assert found.at(FAMILIES[0], 1, 58) is None
    text = layer_words.to_markdown(found)
    assert "last row, layer 1, keep 58: not finished" in text and "deep, layer 9: " in text
    with drawn(chart(found, "x")):
        pass


def test_a_method_without_one_layer_and_count_is_refused(run: Run) -> None:
    sweep = Sweep(title="x", figure="layers", families=(Family(name="steps", spec="schedule:layers=1-3,keep=300-100"),))
    with pytest.raises(UserError, match=r"family 'steps': .* does not prune once to a fixed count"):
        make_layer_table(sweep, trials(sweep, TINY), [run], SWEEP.tasks)


def test_questions_without_levels_are_refused(tmp_path: Path) -> None:
    run = answered(tmp_path / "run", SCORES)
    for path in run.path.rglob(PARQUET):
        pd.read_parquet(path).assign(level=None).to_parquet(path)
    with pytest.raises(UserError, match="no question of gqa, pope is coarse or fine"):
        make_layer_table(SWEEP, trials(SWEEP, TINY), [run], SWEEP.tasks)


def test_markdown_terminal_csv_and_json_hold_the_figures(table: LayerTable, tmp_path: Path) -> None:
    text = layer_words.to_markdown(table)
    assert "### last row, `fastv`" in text and "Coarse questions, score, per cent right:" in text
    assert "| before layer | 50 % (288) stay | 10 % (58) stay |" in text
    assert "fine: 75.0" in text and "A note." in text and "Means of 2 seeds" in text
    console = Console(record=True, width=100, file=(tmp_path / "said").open("w"))
    console.print(layer_words.to_rich(table))
    assert "last row, coarse questions: retention" in console.export_text()
    json.dumps(table.to_json(), allow_nan=False)
    rows = layer_words.to_rows(table)
    assert len(rows) == 8 * 2
    found = [
        row for row in rows if (row["family"], row["layer"], row["keep"], row["level"]) == ("last row", 1, 58, "fine")
    ]
    assert (found[0]["score"], found[0]["share"]) == (50.0, 58 / 576)


def test_the_figure_has_a_line_a_ratio_and_bands_of_intervals(table: LayerTable, tmp_path: Path) -> None:
    with drawn(chart(table, "small")) as figure:
        coarse, fine = figure.axes
        assert [ax.get_title(loc="left") for ax in figure.axes] == [
            "last row: coarse questions",
            "last row: fine questions",
        ]
        lines = {(tuple(line.get_xdata()), tuple(line.get_ydata())) for line in coarse.lines[1:]}
        assert ((1.0, 2.0), (50.0, 100.0)) in lines  # FastV at 58 tokens
        assert ((0.0, 1.0), (100.0, 62.5)) in lines  # random tokens, dashed
        assert len(coarse.collections) == 2  # bands of FastV, none of the control
        band = coarse.collections[1].get_paths()[0].vertices[:, 1]
        expected = spot(table, FAMILIES[0], 1, 58).levels["coarse"].score
        assert band.min() == pytest.approx(expected.low)
        assert fine.lines[0].get_ydata()[0] == 75.0
        dark, light = (mpl.colors.to_rgb(line.get_color()) for line in coarse.lines[1::2])
        assert sum(dark) < sum(light)  # most tokens darkest
    write_chart(chart(table, "small"), tmp_path, ("png", "svg"))
    with Image.open(tmp_path / "small.png") as image:
        assert image.size[0] == 1440
    assert {"unpruned", "50 % stay", "random tokens"} <= set(
        (tmp_path / "small.svg").read_text().replace("<", ">").split(">")
    )
    with (tmp_path / "small.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 16
    assert (
        "last row, coarse, first to last layer: 100.0 to 100.0 with 50 %, 50.0 to 100.0 with 10 %."
        in chart(table, "x").alt
    )


def test_figure_2_of_the_paper_asks_every_layer_and_ratio() -> None:
    sweep = load_sweep("figure2")
    found = trials(sweep, TINY)
    assert not [trial for trial in found if trial.refused]
    places = {
        name: {(t.methods[0].prune_layers[0], t.methods[0].counts()) for t in found if t.family.name == name}
        for name in ("last row", "text rows", "random")
    }
    keeps = [(round(576 * share),) for share in (0.75, 0.5, 0.25, 0.1)]
    every = {(layer, keep) for layer in range(1, 8) for keep in keeps}
    assert places["last row"] == places["text rows"] == every
    assert places["random"] == every | {(0, keep) for keep in keeps}
