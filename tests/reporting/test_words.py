"""The verdict's sentences and the terminal's table."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from synthetic import Texts, write_run

from atp_eval import listing
from atp_eval.analysis import Contrast, Interval, MethodSummary, Score, Summary
from atp_eval.analysis.efficiency import Timing
from atp_eval.analysis.summary import BenchmarkRow
from atp_eval.analysis.tokens import TokenAverages, TokenStats
from atp_eval.reporting.console import comparison_table
from atp_eval.reporting.headline import headline
from atp_eval.reporting.show import render_sample, sample_rows
from atp_eval.reporting.svg import clean

GQA = BenchmarkRow("gqa", "GQA", "gqa_mini", "exact_match", "%", 100.0, 300)
NBSP = "\u00a0"


def method(label: str, kept: Interval | None, tokens: float, ratio: Interval | None = None) -> MethodSummary:
    layers, range_of = np.full(4, tokens), np.full(4, 144)
    stats = TokenStats(9, TokenAverages(tokens, tokens, tokens, 576.0), layers, range_of, range_of)
    zero, timing = Interval(0.0, 0.0, 0.1), Timing(0.02, 0.01, ratio, 9)
    score = Score(Interval(61.0, 58.0, 64.0), 61.0, kept, 300, 0, 300, zero, zero, 2.0, stats, timing)
    reference = label == "upper_bound"
    return MethodSummary(label, label, "run", reference, {"gqa": score}, kept, stats, timing, 300, zero, zero, 2.0)


def summary(*methods: MethodSummary, contrasts: tuple[Contrast, ...] = (), warnings: tuple[str, ...] = ()) -> Summary:
    return Summary(("run",), (GQA,), methods, contrasts, warnings, 2000, 576.0)


UPPER = method("upper_bound", Interval(100.0, 100.0, 100.0), 576)
FASTV = method("fastv@144", Interval(96.04, 94.0, 98.0), 144, Interval(0.5, 0.4, 0.625))
GRID = method("grid@144", Interval(91.0, 89.0, 93.0), 144, Interval(0.98, 0.9, 1.1))
RANDOM = method("random@144", Interval(80.0, 77.0, 83.0), 144)


def test_the_verdict_names_the_best_its_lead_and_its_time() -> None:
    lead = Contrast("grid@144", "fastv@144", Interval(-5.0, -7.0, -3.0))
    found = [s.replace(NBSP, " ") for s in headline(summary(UPPER, GRID, RANDOM, FASTV, contrasts=(lead,)))]
    assert found == [
        "With 144 of 576 visual tokens on average, fastv@144 keeps 96.0 % [94.0, 98.0] of the unpruned model's score "
        "over one benchmark, the most of 3 methods.",
        "That is 5.0 points [3.0, 7.0] more than grid@144; random@144 keeps least, 80.0 % [77.0, 83.0].",
        "Under fastv@144, the language model answers 2.00 times as fast [1.60, 2.50].",
    ]


def test_a_lead_within_chance_is_called_so() -> None:
    lead = Contrast("fastv@144", "grid@144", Interval(1.0, -1.0, 3.0))
    found = headline(summary(UPPER, FASTV, GRID, contrasts=(lead,)))[1].replace(NBSP, " ")
    assert found == "Its lead over grid@144, 1.0 points [-1.0, 3.0], is within chance."


def test_a_time_within_chance_is_called_so() -> None:
    found = headline(summary(UPPER, GRID))
    assert len(found) == 2
    assert "within chance" in found[1]


def test_what_cannot_be_said_is_not_said() -> None:
    alone = headline(summary(UPPER))
    assert alone == ["Only the unpruned model was run: add pruning methods to compare with it."]
    (without,) = headline(summary(method("grid@144", None, 144)))
    assert "was not run" in without
    (nothing,) = headline(summary(method("upper_bound", None, 576), method("grid@144", None, 144)))
    assert "scored nothing" in nothing


def rendered(found: Summary) -> str:
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(comparison_table(found))
    return console.export_text()


def cells(text: str, label: str) -> list[str]:
    (row,) = [line for line in text.splitlines() if label in line]
    return row.split()


def test_the_table_has_a_row_a_method_and_says_what_to_know() -> None:
    text = rendered(summary(UPPER, FASTV, warnings=("[bold]careful[/bold]",)))
    assert cells(text, "fastv@144") == ["fastv@144", "144", "61.0", "96.0", "94.0–98.0", "0.50"]
    assert "Note: [bold]careful[/bold]" in text


def test_seven_benchmarks_fit_into_80_columns() -> None:
    names = ("gqa", "mmb", "mme", "pope", "seed", "sqa", "vqav2")
    rows = tuple(replace(GQA, name=n, unit="of 2000" if n == "mme" else "%") for n in names)
    scores = {n: replace(FASTV.scores["gqa"], score=Interval(1510.7 if n == "mme" else 61.0)) for n in names}
    wide = replace(FASTV, scores=scores, retention=Interval(100.0, 98.1, 101.9))
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(comparison_table(replace(summary(wide), benchmarks=rows)))
    found = cells(console.export_text(), "fastv@144")
    assert found == ["fastv@144", "144", "61.0", "61.0", "1511", *["61.0"] * 4, "100.0", "98.1–101.9", "0.50"]


@pytest.mark.parametrize("text", ["\x1b[2J", "[bold]loud[/bold]", "[/nothing]", "\u202egnp.exe"])
def test_hostile_text_does_nothing_in_the_terminal(text: str, tmp_path: Path) -> None:
    write_run(tmp_path, benchmarks=["gqa"], texts=Texts(lambda b, i: text, right=text, wrong=text))
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(render_sample(sample_rows(tmp_path, None, 0)))
    assert clean(text) in console.export_text()


def test_names_in_lists_are_no_markup() -> None:
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(listing.table("runs", [{"run": "runs/[bold]"}, {"run": "runs/[/x]"}]))
    text = console.export_text()
    assert "runs/[bold]" in text and "runs/[/x]" in text


def test_the_table_shows_dashes_for_what_is_missing() -> None:
    text = rendered(summary(method("grid@144", None, math.nan)))
    assert cells(text, "grid@144") == ["grid@144", "–", "61.0", "–", "–"]
