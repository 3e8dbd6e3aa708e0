"""The sections about kept cells and equal budgets, on the page."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from reporting.outline import HOSTILE, Outline, build
from reporting.overlaps import NBSP
from synthetic import METHODS, FakeMethod, write_run

from atp_eval.analysis import (
    measure,
    summarise,
)
from atp_eval.records import Run
from atp_eval.reporting.agreement import agreement_parts
from atp_eval.reporting.contents import numbered
from atp_eval.reporting.fairness import quantity
from atp_eval.reporting.svg import UNSAFE, clean


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    methods = METHODS | {
        "pool@144": FakeMethod(0.7, [(0, 144)], merged=144),
        "m@144": FakeMethod(0.7, [(0, 144)], merged=7),
    }
    return write_run(tmp_path_factory.mktemp("run") / "one", methods=methods, benchmarks=["gqa"])


def section(page: str, name: str) -> str:
    found = re.search(rf'<section aria-labelledby="{name}">.*?</section>', page, re.S)
    return found[0] if found else ""


def test_the_sections_say_what_was_measured(run: Run, tmp_path: Path) -> None:
    page = build(run, tmp_path)
    kept, budgets = (" ".join(" ".join(Outline(section(page, s)).text).split()) for s in ("agreement", "fairness"))
    assert "Without a cell of their own, so not shown: pool@144" in kept
    assert "which count nowhere here: m@144" in kept
    assert "24 × 24 grid" in kept and "FEATHER" in kept and "Every layer in numbers" in kept
    fairness = summarise([run], resamples=20).fairness
    grid = fairness.row("grid@144")
    assert grid is not None
    for value in (quantity(grid.kv_bytes, "B"), quantity(grid.flops, ""), "144.0", "576.0", "all alike"):
        assert value.replace(NBSP, " ") in budgets.replace(NBSP, " ")
    assert "may be compared" in budgets and "Unequal" not in budgets


def test_rows_that_differ_are_warned_of_in_both_places(tmp_path: Path) -> None:
    methods = METHODS | {"far@144": FakeMethod(0.8, [(0, 160)])}
    page = build(write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=8), tmp_path)
    warning = "Rows at @144 do not have equal budgets"
    assert warning in section(page, "fairness") and "Unequal." in section(page, "fairness")
    notes = re.search(r"<aside.*?</aside>", page, re.S)
    assert notes and warning in notes[0]
    assert "far@144 has 160.0 (11.1 % more)" in notes[0]


def test_one_method_without_known_cells_has_a_short_section(tmp_path: Path) -> None:
    methods = {name: METHODS[name] for name in ("upper_bound", "fastv@144")}
    run = write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=6)
    for path in run.path.rglob("samples.parquet"):
        pd.read_parquet(path).drop(columns="asked_map").to_parquet(path, index=False)
    found = section(build(run, tmp_path), "agreement")
    assert found.count("<figure>") == 1 and "overlap" not in found.split('<p class="fine">')[0].lower()


def test_a_method_that_loses_its_last_cells_is_shown_up_to_there(tmp_path: Path) -> None:
    methods = METHODS | {"fading@144": FakeMethod(0.8, [(0, 144), (4, 5)], merged=5)}
    run = write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=8)
    page = build(run, tmp_path)
    found = section(page, "agreement")
    assert "nan" not in " ".join(Outline(found).text) and "nan" not in re.sub("aria-[a-z]*=", "", found)
    assert found.count(" fading@144: unknown") == found.count('title="fading@144 and ') == 3
    assert "fading@144: kept of the cells asked about. from layer 0: " in found and "fading@144: –" in found
    assert "Of 3 pairs, " in found  # of the other methods; a fourth would make 6


def test_the_unpruned_model_alone_has_no_section(tmp_path: Path) -> None:
    methods = {"upper_bound": METHODS["upper_bound"]}
    page = build(write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=6), tmp_path)
    assert section(page, "agreement") == "" and "#agreement" not in page
    assert section(page, "fairness")


def test_other_budgets_fold_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "MOST_TOGETHER", 2)
    methods = METHODS | {f"m{i}@64": FakeMethod(0.5, [(0, 64)]) for i in range(2)}
    found = section(
        build(write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=6), tmp_path), "agreement"
    )
    assert "<h3>About 144 tokens</h3>" in found and "<summary>About 64 tokens: 2 methods</summary>" in found
    assert found.count("overlaps-by-layer") == 2  # the table's caption and what points to it; of one group only
    ids = re.findall(r' id="([^"]+)"', found)
    assert len(ids) == len(set(ids))


@pytest.fixture(scope="module")
def harmless(run: Run, tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    page = build(run, tmp_path_factory.mktemp("page"))
    return {
        (t, name)
        for s in ("agreement", "fairness")
        for t, found in Outline(section(page, s)).elements
        for name in found
    }


@pytest.mark.parametrize("label", [h for h in HOSTILE if len(h) < 100])
def test_hostile_names_of_methods_do_nothing(label: str, harmless: set[tuple[str, str]], tmp_path: Path) -> None:
    label = label.replace("\x00", "")  # no manifest holds one
    names = {"upper_bound": "upper_bound", label: "fastv@144", f"{label}@144": "grid@144", "z@64": "random@144"}
    methods = {name: METHODS[old] for name, old in names.items()}
    methods["m@144"] = FakeMethod(0.5, [(0, 160)], merged=3)
    page = build(write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=6), tmp_path)
    for name in ("agreement", "fairness"):
        found = Outline(section(page, name))
        assert clean(label) in "".join(found.text)
        assert {(t, attribute) for t, a in found.elements for attribute in a} <= harmless
        assert not {"script", "img", "style", "iframe"} & set(found.tags())
        assert not UNSAFE.search(section(page, name).replace("\n", " "))


def test_series_are_those_of_the_page(run: Run) -> None:
    summary = summarise([run], resamples=20)
    (only,) = agreement_parts(summary.agreement, summary.fairness, numbered(summary))
    assert only.panels is not None
    assert [panel.label for panel in only.panels.panels] == ["fastv@144", "random@144", "grid@144", "m@144"]
