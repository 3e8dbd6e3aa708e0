"""The sections on claims and on efficiency: whole, well-formed, and never the tiny model's figures beside a claim."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reporting.outline import HOSTILE, Outline
from synthetic import METHODS, FakeMethod, write_run

from atp_eval.analysis import Summary, summarise
from atp_eval.analysis.claims import ledger
from atp_eval.paths import data_folder
from atp_eval.records import Run
from atp_eval.reporting.claims import claims_parts
from atp_eval.reporting.efficiency import efficiency_parts
from atp_eval.reporting.page import environment

REAL = {"model": "llava-hf/llava-1.5-7b-hf", "suite": "real", "image": "pad", "prompt": "vicuna_v1"}
SEVEN = ("gqa", "mmb", "mme", "pope", "seed", "sqa", "vqav2")
NEW = {
    "upper_bound": FakeMethod(0.9, seconds=0.04, prefill=0.75, peak_bytes=15_900_000_000),
    "fastv@192": FakeMethod(0.8, [(2, 160)], seconds=0.02, prefill=0.5, peak_bytes=14_900_000_000),
}


def section(name: str, **context: Any) -> Outline:
    """A section as the page includes it."""
    source = (
        '{% set n = namespace(table=0, figure=0) %}{% from "macros.html.j2" import name, with_bounds with context %}'
        f'{{% include "{name}.html.j2" %}}'
    )
    found = environment(data_folder("reports")).from_string(source)
    return Outline(found.render(series=lambda label: 0, figures_folder=None, **context))


def text(outline: Outline) -> str:
    return " ".join(" ".join(outline.text).replace("\u00a0", " ").split())


def measured(path: Path, **options: Any) -> tuple[Run, Summary]:
    run = write_run(path, **{"methods": NEW, "benchmarks": SEVEN, **options})
    return run, summarise([run], resamples=50)


# ------------------------------------------------------------------ claims


def test_every_figure_stands_in_the_section_and_contradictions_come_first() -> None:
    parts = claims_parts()
    shown = [claim for table in parts.tables for row in table.rows for cell in row.cells for claim in cell]
    assert len(shown) == len(ledger()) == 344
    assert sum(table.counts.get("contradicted", 0) for table in parts.tables) == len(parts.contradictions)
    found = section("claims", claims=parts)
    said = text(found)
    assert "print 344 figures" in said and "7 of these in Table 1" in said
    assert said.index("Tab. 1 fastv@192, gqa, % of upper bound 83.8 % 85.00 [84.85, 85.15]") < said.index(
        "Tab. 1: Main"
    )
    assert found.tags().count("details") == len(parts.tables) == 15
    assert "upper_bound 9.6" not in said  # rows of Table 6 by arithmetic are its columns
    for figures in ("302.0, 75.5 and 46.1 MB", "302.4, 75.6 and 46.2", "21.9 %", "24.7 %", "2.99 × 3.21"):
        assert figures in said, figures


def test_measurements_stand_beside_their_claims(tmp_path: Path) -> None:
    run, summary = measured(tmp_path / "run", protocol=REAL)
    parts = claims_parts([run], summary)
    assert parts.measured == sum(c.measured is not None for c in ledger([run], summary)) > 20
    score = summary.method("fastv@192").scores["gqa"].score
    said = text(section("claims", claims=parts))
    assert f"52.7 ours {score.value:.1f} [{score.low:.1f}, {score.high:.1f}]" in said
    assert "64.8 ours*" in said and "These runs measure" in said
    assert "--methods upper_bound,fastv@192" not in said and "--methods upper_bound,fastv@128" in said


def test_no_figure_of_the_tiny_model_gets_into_the_section(tmp_path: Path) -> None:
    run, summary = measured(tmp_path / "run", methods=METHODS | NEW)
    with_run, without = claims_parts([run], summary), claims_parts()
    assert with_run == without
    said = text(section("claims", claims=with_run))
    assert "ours" not in said and "These runs measure none of them" in said


def test_commands_are_set_apart_from_words() -> None:
    found = section("claims", claims=claims_parts())
    assert "`" not in text(found) and "code" in found.tags()


# ------------------------------------------------------------------ efficiency


def test_times_speeds_and_memory(tmp_path: Path) -> None:
    _, summary = measured(tmp_path / "run")
    parts = efficiency_parts(summary)
    assert parts is not None and parts.unit == "ms" and parts.stages and parts.memory
    upper, fastv = parts.rows
    assert fastv.llm.value == pytest.approx(upper.llm.value / 2)
    assert fastv.prefill is not None and fastv.llm.value == pytest.approx(2 * fastv.prefill.value)
    said = text(section("efficiency", efficiency=parts))
    assert "fastv@192 takes 0.50 of the unpruned model's time" in said
    assert "14.9 GB" in said and "1.00 GB" in said and "0.33 [0.33, 0.33]" in said
    assert "batches of 4 on cpu" in said


def test_old_runs_show_what_they_know(tmp_path: Path) -> None:
    _, summary = measured(tmp_path / "run", methods=METHODS)
    parts = efficiency_parts(summary)
    assert parts is not None and not parts.stages and not parts.memory
    found = section("efficiency", efficiency=parts)
    said = text(found)
    assert "Prefill" not in said and "new tokens" not in said and "says nothing of a method" in said
    rows = found.tags().count("tr")
    assert rows == 2 + len(METHODS)
    assert found.tags().count("td") == len(METHODS) * 4


def test_slow_models_are_timed_in_seconds_and_mixed_runs_keep_their_columns(tmp_path: Path) -> None:
    old, new = METHODS["upper_bound"], NEW["fastv@192"]
    _, summary = measured(tmp_path / "run", methods={"upper_bound": replace(old, seconds=2.0), "fastv@192": new})
    parts = efficiency_parts(summary)
    assert parts is not None and parts.unit == "s" and parts.rows[0].prefill is None and parts.rows[1].prefill
    assert parts.rows[1].prefill_ratio is None and parts.rows[1].saved is None
    section("efficiency", efficiency=parts)


def test_nothing_timed_is_no_section(tmp_path: Path) -> None:
    _, summary = measured(tmp_path / "run", documents=4)
    assert efficiency_parts(summary) is None


def test_hostile_labels_and_devices_stay_text(tmp_path: Path) -> None:
    _, summary = measured(tmp_path / "run")
    for hostile in HOSTILE:
        evil = tuple(replace(e, label=hostile, device=hostile) for e in summary.efficiency)
        found = section("efficiency", efficiency=efficiency_parts(replace(summary, efficiency=evil)))
        assert not {"script", "img", "style"} & set(found.tags())
        assert all(not key.startswith("on") for _, attributes in found.elements for key in attributes)
