"""The verdict's sentences and the terminal's table."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from synthetic import Texts, write_run

from atp_eval import listing
from atp_eval.analysis import Contrast, Cost, Interval, MethodSummary, Score, Summary, compare_budgets, comparisons
from atp_eval.analysis.efficiency import Timing
from atp_eval.analysis.standing import AVERAGE, significantly_best
from atp_eval.analysis.summary import TRUTH, BenchmarkRow
from atp_eval.analysis.tokens import TokenAverages, TokenStats
from atp_eval.methods import get_method, method_names
from atp_eval.reporting.console import comparison_table
from atp_eval.reporting.headline import headline
from atp_eval.reporting.show import render_sample, sample_rows
from atp_eval.reporting.svg import breakable, clean
from atp_eval.reporting.words import plain

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
    costs = [Cost(m.label, m.is_reference, m.tokens.averages, 1, 1, None, None, None) for m in methods if m.tokens]
    fairness = compare_budgets([c for c in costs if math.isfinite(c.tokens.input)])
    return Summary(("run",), (GQA,), methods, contrasts, warnings, 2000, 576.0, fairness=fairness)


UPPER = method("upper_bound", Interval(100.0, 100.0, 100.0), 576)
FASTV = method("fastv@144", Interval(96.04, 94.0, 98.0), 144, Interval(0.5, 0.4, 0.625))
GRID = method("grid@144", Interval(91.0, 89.0, 93.0), 144, Interval(0.98, 0.9, 1.1))
RANDOM = method("random@144", Interval(80.0, 77.0, 83.0), 144)


def holm(p: float) -> comparisons.Tested:
    return comparisons.Tested("bootstrap", p / 3, p_holm=p, comparisons=3)


def contrast(first: str, second: str, value: float, p: float) -> Contrast:
    return Contrast(first, second, Interval(value, value - 2, value + 2), holm(p))


def said(found: Summary) -> list[str]:
    return [s.replace(NBSP, " ") for s in headline(found)]


def test_the_verdict_names_the_best_its_lead_and_its_time() -> None:
    leads = (contrast("grid@144", "fastv@144", -5.0, 0.012), contrast("fastv@144", "random@144", 16.0, 0.0))
    assert said(summary(UPPER, GRID, RANDOM, FASTV, contrasts=leads)) == [
        "With 144 of 576 visual tokens on average, fastv@144 keeps 96.0 % [94.0, 98.0] of the unpruned model's score "
        "over one benchmark.",
        "That is more than any of the other 2 methods of its budget keeps (Holm-adjusted p ≤ 0.05): 5.0 points "
        "[3.0, 7.0] more than grid@144, the next.",
        "Under fastv@144, the language model answers 2.00 times as fast [1.60, 2.50].",
    ]


@pytest.mark.parametrize("shared", [False, True])
def test_the_verdict_says_where_questions_shared_the_reading_of_a_picture(shared: bool) -> None:
    found = replace(summary(UPPER, FASTV), efficiency=(SimpleNamespace(shared=shared),))  # type: ignore[arg-type]
    assert ("so not pruning is cheap as well" in said(found)[-1]) == shared


@pytest.mark.parametrize(("p", "words"), [(0.012, "= 0.012"), (0.0, "< 0.001")])
def test_a_lead_over_the_only_other_method_has_its_p(p: float, words: str) -> None:
    found = said(summary(UPPER, FASTV, GRID, contrasts=(contrast("fastv@144", "grid@144", 5.0, p),)))[1]
    assert found == f"That is 5.0 points [3.0, 7.0] more than grid@144 (Holm-adjusted p {words})."


def test_a_lead_within_chance_is_called_so() -> None:
    lead = Contrast("fastv@144", "grid@144", Interval(1.0, -1.0, 3.0), holm(0.3))
    found = said(summary(UPPER, FASTV, GRID, contrasts=(lead,)))[1]
    assert found == "Its lead over grid@144, 1.0 points [−1.0, 3.0], is within chance."
    beside = contrast("fastv@144", "random@144", 16.0, 0.0)
    found = said(summary(UPPER, FASTV, GRID, RANDOM, contrasts=(lead, beside)))[1]
    assert found == (
        "Its lead over grid@144, 1.0 points [−1.0, 3.0], is within chance; it keeps more than random@144 of its budget "
        "(Holm-adjusted p ≤ 0.05)."
    )


def test_a_lead_is_never_claimed_by_its_interval_alone() -> None:
    """Of many comparisons some intervals exclude 0 by luck: the adjusted p decides, and where there is none, nobody."""
    for test, words in (
        (holm(0.06), "may be chance among 3 comparisons (Holm-adjusted p = 0.060)"),
        (None, "is within chance"),
    ):
        lead = Contrast("fastv@144", "grid@144", Interval(5.0, 3.0, 7.0), test)
        found = said(summary(UPPER, FASTV, GRID, contrasts=(lead,)))[1]
        assert found == f"Its lead over grid@144, 5.0 points [3.0, 7.0], {words}."


def test_methods_of_another_budget_are_not_compared() -> None:
    more = method("fastv@288", Interval(99.0, 98.0, 100.0), 288)
    lead = contrast("fastv@288", "grid@144", 8.0, 0.001)
    assert said(summary(UPPER, more, GRID, contrasts=(lead,))) == [
        "With 288 of 576 visual tokens on average, fastv@288 keeps 99.0 % [98.0, 100.0] of the unpruned model's score "
        "over one benchmark.",
        "No other method has the same budget, so none is compared with it.",
    ]


def test_a_control_that_knows_the_truth_is_never_the_best() -> None:
    oracle = method("oracle@144:layer=0", Interval(106.0, 104.0, 108.0), 144)
    ahead = [contrast(oracle.label, m.label, 10.0, 0.001) for m in (FASTV, GRID)]
    found = summary(UPPER, oracle, FASTV, GRID, contrasts=(*ahead, contrast("fastv@144", "grid@144", 5.0, 0.004)))
    assert "fastv@144 keeps 96.0 %" in said(found)[0]
    assert "oracle" not in " ".join(said(found))
    assert significantly_best(found)[AVERAGE] == {"fastv@144"}


def test_controls_that_know_the_truth_are_those_whose_methods_read_it() -> None:
    assert {
        name for name in method_names() if "asked" in get_method(name if name == "upper_bound" else f"{name}@144").needs
    } == set(TRUTH)


def test_a_loss_within_chance_is_called_so() -> None:
    kept = replace(FASTV, test=holm(0.2))
    assert said(summary(UPPER, kept))[0].endswith("over one benchmark; the difference from it may be chance.")


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


def test_long_names_break_between_their_parts() -> None:
    names = ["grid@144:layer=0", "prumerge_plus@144", "cdpruner@144:relevance=llm"]
    methods = [replace(FASTV, label=name, retention=Interval(100.0, 98.1, 101.9)) for name in names]
    console = Console(width=44, file=io.StringIO(), record=True)
    console.print(comparison_table(summary(*methods)))
    lines = console.export_text().splitlines()
    firsts = [line.split()[0] for line in lines[3:] if line.strip()]
    whole = "".join(firsts)
    assert all(name in whole for name in names)
    assert {"grid@144:", "layer=0", "prumerge_", "plus@144", "cdpruner", "@144:"} <= set(firsts)


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


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["x86_64 AVX512, 2 threads", "float32", "sdpa"], "x86_64 AVX512, 2 threads · float32 · sdpa"),
        ([2, 6, 15], "2, 6, 15"),
        ([[24, 24], "a"], "24, 24 · a"),
        ([], "none"),
        (None, "none"),
        (False, "no"),
        (0, "0"),
        ("[]", "[]"),
    ],
)
def test_settings_are_text(value: object, text: str) -> None:
    assert plain(value) == text


def test_names_in_narrow_places_break_at_more_of_their_parts() -> None:
    assert breakable("prumerge_plus@144") == "prumerge_plus@144"
    assert breakable("prumerge_plus@144", narrow=True) == "prumerge_<wbr>plus<wbr>@144"
    assert breakable("geometry.image_size", narrow=True) == "geometry.<wbr>image_<wbr>size"
    assert breakable("a@9:mass=0.9&lt_b", narrow=True) == "a<wbr>@9:<wbr>mass=0.9&amp;lt_<wbr>b"
