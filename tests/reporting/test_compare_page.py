"""`atp-eval compare` end to end: terminal, page, CSV, exit codes; hostile text stays text."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import watched
from playwright.sync_api import Browser
from synthetic import FakeMethod, Texts, write_run

from atp_eval import cli
from atp_eval.analysis.compare import compare
from atp_eval.analysis.significance import Interval
from atp_eval.records import read_run
from atp_eval.reporting.compare import change_words, compare_frame, compare_page, cut, verdict_lines

HOSTILE = "</script><script>window.broken=1</script><img src=x onerror='window.broken=1'>\u202e\x00" + "w" * 5000
BEFORE = {"upper_bound": FakeMethod(0.9), "grid@144:layer=0": FakeMethod(0.6, [(0, 144)])}
AFTER = {"upper_bound": FakeMethod(0.9), "grid@144:layer=0": FakeMethod(0.2, [(0, 100)])}


def run(path: Path, methods: dict[str, FakeMethod], **options: Any) -> Path:
    """A run of 60 questions on two benchmarks."""
    return write_run(path, methods=methods, benchmarks=("gqa", "mme"), documents=60, **options).path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("runs")
    return run(home / "before", BEFORE), run(home / "after", AFTER)


def command(*args: object) -> int:
    """The exit code of `atp-eval compare` in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["atp-eval", "compare", *map(str, args)])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 0
    return 0


def test_the_command_prints_a_table_and_writes_a_page_with_csv(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*runs, "-o", tmp_path / "page.html") == 0
    said = capsys.readouterr().out
    assert "grid@144:layer=0" in said and "B less A" in said and "not taken side by side" in " ".join(said.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compare.csv", "page.html"]
    table = pd.read_csv(tmp_path / "compare.csv")
    assert list(table["benchmark"]) == ["gqa", "mme"] * 2 + ["average"] * 2
    grid = table[(table["method"] == "grid@144:layer=0") & (table["benchmark"] == "gqa")].iloc[0]
    assert grid["b"] - grid["a"] == pytest.approx(grid["difference"]) and grid["difference"] < 0
    assert (grid["tokens_a"], grid["tokens_b"], grid["other_tokens_kept"]) == (144, 100, 1.0)


def test_json_has_all_figures_and_the_page_goes_to_the_second_run(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*runs, "--json", "--method", "grid@144:layer=0") == 0
    found = json.loads(capsys.readouterr().out)
    assert [average["method"] for average in found["averages"]] == ["grid@144:layer=0"]
    assert found["page"] == str((runs[1] / "compare.html").resolve())
    assert found["changes"][0]["test"]["p_holm"] < 0.05
    assert {flip["method"] for flip in found["flips"]} == {"grid@144:layer=0"}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("nowhere", "{1}"), "nowhere is not a run folder"),
        (("{0}", "{0}"), "is named twice"),
        (("{0}", "{1}", "--methods", "grid"), "unknown method of both runs 'grid'"),
        (("{0}", "{1}", "-o", "/proc/page.html"), "cannot write /proc/page.html"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    runs: tuple[Path, Path], args: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*(arg.format(*runs) for arg in args)) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_other_protocols_are_refused_and_forced_loudly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = run(tmp_path / "a", BEFORE), run(tmp_path / "b", BEFORE, protocol={"dtype": "<b>half</b>"})
    assert command(a, b) == 2
    assert "different protocols (dtype: float32 and <b>half</b>)" in capsys.readouterr().err
    assert not (b / "compare.html").exists()
    assert command(a, b, "--force") == 0
    assert "THESE RUNS FOLLOW DIFFERENT PROTOCOLS" in capsys.readouterr().out
    page = (b / "compare.html").read_text()
    assert (
        "These runs follow different protocols" in page and "&lt;b&gt;half&lt;/b&gt;" in page and "<b>half" not in page
    )


def test_the_verdict_says_what_changed(runs: tuple[Path, Path], tmp_path: Path) -> None:
    changed = verdict_lines(compare(*map(read_run, runs)))
    assert changed[0].startswith("Of 4 scores (2 methods, 2 benchmarks) ") and "0 higher in after" in changed[0]
    assert changed[2] == "1 method kept other tokens for some questions."
    equal = verdict_lines(compare(read_run(runs[0]), read_run(run(tmp_path / "copy", BEFORE))))
    assert equal == [
        "None of 4 scores (2 methods, 2 benchmarks) differs between before and copy beyond chance "
        "(Holm-adjusted p ≤ 0.05).",
        "All 240 answers are the same, word for word.",
        "All methods kept the same tokens for all questions.",
    ]


def test_numbers_have_their_sign_and_long_text_an_end() -> None:
    assert [change_words(Interval(x)) for x in (1.25, -0.44, 0.04, -0.04, float("nan"))] == [
        "+1.2",
        "−0.4",
        "0.0",
        "0.0",
        "–",
    ]
    assert change_words(Interval(-1234.4), 0) == "−1,234"
    assert cut("x" * 700) == "x" * 600 + "… (100 more characters)"


def test_hostile_text_does_nothing_and_the_page_is_accessible(browser: Browser, tmp_path: Path) -> None:
    texts = Texts(question=lambda benchmark, i: HOSTILE, right=f"yes {HOSTILE}", wrong=HOSTILE)
    a = run(tmp_path / "a", BEFORE, texts=texts)
    b = run(tmp_path / "b", AFTER, texts=texts, protocol={"prompt": HOSTILE[:90].replace("\x00", "")})
    found = compare(read_run(a), read_run(b), force=True)
    assert found.flips
    found = replace(found, flips=tuple(flip._replace(a=f"\ud800{flip.a}") for flip in found.flips))  # as no file holds
    page = compare_page(found)
    assert page.count("<script>window") == 0 and len(page) < 1_000_000
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    for options in ({"color_scheme": "light"}, {"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 740}}):
        with watched(browser, tmp_path / "page.html", **options) as opened:
            assert opened.page.evaluate("window.broken") is None
            assert opened.noise == [] == opened.violations() and opened.requests == [(tmp_path / "page.html").as_uri()]
            assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert Axe().run(opened.page).response["violations"] == []
            opened.page.get_by_role("button", name="Answers changed").first.click()
            assert opened.page.locator("th[aria-sort]").count() == 1


def test_the_frame_has_a_row_for_everything(runs: tuple[Path, Path]) -> None:
    found = compare(*map(read_run, runs))
    assert len(compare_frame(found)) == len(found.changes) + len(found.averages)
