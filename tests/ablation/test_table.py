"""An ablation's table against the summary of the same run, and how it is written down."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import METHODS, FakeMethod, write_run

from atp_eval.ablation import Ablation, Row, Table
from atp_eval.ablation.table import make_table
from atp_eval.analysis import summarise
from atp_eval.records import Run

MANY = {
    **METHODS,
    "atp:adapter=a": FakeMethod(0.9, [(1, (60, 90))]),
    "atp:adapter=b": FakeMethod(0.84, [(1, (60, 90))]),
}
ROWS = {"both": ("atp:adapter=a", "atp:adapter=b"), "fastv": ("fastv@144",)}
ABLATION = Ablation(
    title="Scores",
    training=Path("t.yaml"),
    rows=(Row(name="both", training={}, paper={"self": True, "cross": True}), Row(name="fastv", method="fastv@144")),
    reference="both",
    seeds=(0, 1),
    paper="importance_score",
    table="Tab. 5",
    note="Small.",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("runs") / "one", methods=MANY, documents=60)


@pytest.fixture(scope="module")
def table(run: Run) -> Table:
    return make_table(ABLATION, ROWS, run, ["gqa", "mme", "pope"])


def test_figures_are_those_of_the_summary(run: Run, table: Table) -> None:
    summary = summarise([run])
    both, fastv = table.lines
    assert fastv.retention == pytest.approx(summary.method("fastv@144").retention)
    assert fastv.tokens == pytest.approx(summary.method("fastv@144").average_tokens)
    assert fastv.scores == {n: pytest.approx(s.score.value) for n, s in summary.method("fastv@144").scores.items()}
    seeds = [summary.method(label) for label in ROWS["both"]]
    assert both.seeds == pytest.approx([m.retention.value for m in seeds if m.retention])
    assert both.retention.value == pytest.approx(np.mean(both.seeds))
    assert both.tokens == pytest.approx(np.mean([m.average_tokens for m in seeds]))
    assert table.full.tokens == 576
    assert table.questions == 180


def test_a_difference_is_paired_and_held_against_the_reference(run: Run) -> None:
    one = {"both": ("atp:adapter=a",), "fastv": ("fastv@144",)}
    both, fastv = make_table(ABLATION, one, run, ["gqa", "mme", "pope"]).lines
    (contrast,) = (
        c.difference for c in summarise([run]).contrasts if (c.first, c.second) == ("fastv@144", "atp:adapter=a")
    )
    assert both.difference is None
    assert fastv.difference == pytest.approx(contrast)


def test_only_the_benchmarks_that_were_asked_for_count(run: Run) -> None:
    found = make_table(ABLATION, ROWS, run, ["pope"])
    assert [b.name for b in found.benchmarks] == ["pope"]
    assert found.lines[1].retention.value == pytest.approx(
        summarise([run]).method("fastv@144").scores["pope"].retention.value  # type: ignore[union-attr]
    )


def test_the_paper_stands_apart_and_is_labelled_as_another_model(table: Table) -> None:
    ours, theirs = table.to_markdown().split("Tab. 5 as printed, LLaVA-1.5-7B: another model")
    assert "| both | 66.0 | 59.5 | 76.4 | 57.3 |" in theirs
    assert "59.5" not in ours
    assert "180 questions to tiny" in ours
    assert "means of seeds 0, 1." in ours
    assert "Small." in ours


def test_json_holds_every_figure(table: Table) -> None:
    data = json.loads(json.dumps(table.to_json()))
    assert [row["name"] for row in data["rows"]] == ["upper_bound", "both", "fastv"]
    assert data["rows"][2]["difference"]["low"] == pytest.approx(table.lines[1].difference.low)  # type: ignore[union-attr]
    assert data["rows"][1]["printed"]["values"]["gqa"] == 59.5


def test_names_are_text_for_the_terminal(table: Table) -> None:
    from rich.console import Console

    line = replace(table.lines[0], name="[red]x[/]")
    console = Console(width=200, record=True)
    console.print(replace(table, lines=(line,)).to_rich())
    assert "[red]x[/]" in console.export_text()


def test_an_upper_bound_that_scores_nothing_leaves_dashes(tmp_path: Path) -> None:
    nothing = {label: replace(method, skill=-9.0) for label, method in MANY.items()}
    found = make_table(ABLATION, ROWS, write_run(tmp_path / "run", methods=nothing), ["gqa"])
    assert "| fastv | 144.8 | 0.0 | – |" in found.to_markdown()
