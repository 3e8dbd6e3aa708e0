"""A bench on its own page, on a run's page and on a terminal."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text
from synthetic import write_run

from atp_eval.analysis.bench import summarise_bench
from atp_eval.analysis.growth import fit
from atp_eval.errors import UserError
from atp_eval.reporting import build_report
from atp_eval.reporting.bench import bench_parts, bench_sections, find_benches, numbers
from atp_eval.reporting.bench_console import not_run_lines, to_rich
from atp_eval.reporting.bench_page import write_bench
from atp_eval.reporting.growth import bend_words
from bench.made import growing_times, growth_cells, methods_cells, write_folder


def text_of(page: str) -> str:
    """Without elements, one space at most."""
    return " ".join(re.sub(r"<[^>]+>", " ", page.replace("<wbr>", "")).split())


@pytest.fixture
def made(tmp_path: Path) -> Path:
    cells = methods_cells((1, 8), ("sdpa", "eager", "flash_attention_2"))
    refused = {i: "flash_attention_2 needs a CUDA device" for i in range(8, 12)}
    return write_folder(tmp_path / "bench", cells, refused=refused)


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "growth", growth_cells(), kind="growth", times=growing_times)


def test_the_page_shows_table_6_backends_what_did_not_run_and_the_papers_claims(made: Path) -> None:
    text = text_of(write_bench(summarise_bench(made), made, figures=False).read_text())
    assert "Random weights" in text and "8 of 32 layers" in text and "on a machine" in text
    assert "fastv@144 144.0 0.6 −75.0 % 103.0" in text.replace("\xa0", " ").replace("&nbsp;", " ")
    assert "4 not run" in text and "not run: flash_attention_2 needs a CUDA device" in text
    assert "432.7" in text and "Claims of the paper" in text
    assert "as in supplementary Table 3" in text


def test_a_backends_saving_is_against_the_unpruned_model_with_the_plainest_one(made: Path) -> None:
    rows = bench_parts(summarise_bench(made)).backends
    assert [(r.label, r.attention) for r in rows] == [
        ("upper_bound", "eager"), ("upper_bound", "sdpa"), ("fastv@144", "eager"), ("fastv@144", "sdpa"),
    ]  # fmt: skip
    assert rows[0].saved is None and rows[1].saved == pytest.approx(0)
    assert rows[2].saved == pytest.approx(1 - 0.3 / 0.5)


def test_a_saving_is_against_a_backend_that_the_unpruned_model_ran_with_at_that_batch(tmp_path: Path) -> None:
    cells = methods_cells((8, 1), ("sdpa", "eager", "flash_attention_2"))
    for lost in ((4, 5), (4,)):  # eager at batch 8: both methods, or the unpruned one
        folder = write_folder(tmp_path / str(lost), cells, refused=dict.fromkeys(lost, "it ran out of memory"))
        found = {(r.label, r.attention): r.saved for r in bench_parts(summarise_bench(folder)).backends}
        assert found["upper_bound", "sdpa"] is None and found["fastv@144", "sdpa"] == pytest.approx(1 - 0.3 / 0.5)
    refused = dict.fromkeys((4, 5, 8, 9), "it ran out of memory")
    assert bench_parts(summarise_bench(write_folder(tmp_path / "one", cells, refused=refused))).backends == ()


def test_the_method_with_the_first_token_soonest_is_named(made: Path) -> None:
    assert bench_parts(summarise_bench(made)).words[0] == (
        "At batch 1 with sdpa, fastv@144 has the first token after 0.60 of the unpruned model's time and the whole "
        "answer after 0.67."
    )


def test_files_hold_what_the_page_shows(made: Path) -> None:
    write_bench(summarise_bench(made), made)
    data = json.loads((made / "results.json").read_text())
    assert len(data["rows"]) == 8 and len(data["not_run"]) == 4
    with (made / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["method"] == "fastv@144" and float(rows[1]["prefill_ratio"]) == pytest.approx(0.5)
    assert {p.suffix for p in (made / "figures").iterdir()} == {".pdf", ".png", ".csv"}


def test_growth_says_where_it_stops_being_linear(grown: Path) -> None:
    summary = summarise_bench(grown)
    page = write_bench(summary, grown, figures=False).read_text()
    text = text_of(page)
    # (1e-3 + 1e-4 x + 2e-8 x^2) / 10 = 2e-8 x^2 at x = 573
    said = re.search(r"prefill of upper_bound stops being linear at about (\d+) image tokens", text)
    assert said and int(said[1]) == pytest.approx(573, rel=0.05)
    assert "The vision tower shows no departure from a line up to 9,216 image tokens" in text
    assert page.count("<figure>") == 3
    fits = json.loads((grown / "results.json").read_text())["fits"]
    assert {f["axis"] for f in fits} == {"tokens", "batch", "new"}


def test_words_about_a_bend_that_lies_elsewhere() -> None:
    xs = [1, 2, 4, 8, 16]
    below, beyond = fit(xs, [x * x for x in xs]), fit(xs, [1 + x + 1e-4 * x * x for x in xs])
    assert below is not None and "below 1 things" in bend_words(below, xs, "things")
    assert (
        beyond is not None
        and bend_words(beyond, xs, "things") == "is linear up to 16 things, the most that was measured"
    )


def test_growth_below_a_line_is_none_along_it() -> None:
    xs = [1, 2, 4, 8, 16]
    slower = fit(xs, [1 + x - 0.02 * x * x + 0.001 * (x % 3) for x in xs])
    assert slower is not None and slower.flattens
    said = "grows more slowly than a line up to 16 things: the square term is below 0"
    assert bend_words(slower, xs, "things") == said


def test_a_run_shows_the_benches_in_it_and_those_that_are_named(tmp_path: Path, made: Path, grown: Path) -> None:
    run = write_run(tmp_path / "run", documents=4)
    write_folder(run.path / "bench", methods_cells((1,)), device="the run's machine")
    assert find_benches([run.path], [grown]) == [grown, run.path / "bench"]
    page = build_report([run], tmp_path / "page.html", figures=False, benches=[grown]).read_text()
    text = text_of(page)
    assert 'id="bench"' in page and '<a href="#bench">Bench</a>' in page
    assert "the run's machine" in text.replace("&#39;", "'") and "Growth of cost" in text and "Random weights" in text
    assert len(set(re.findall(r'\bid="([^"]+)"', page))) == len(re.findall(r'\bid="([^"]+)"', page))


def test_a_run_without_a_bench_has_no_such_section(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", documents=4)
    assert 'id="bench"' not in build_report([run], tmp_path / "page.html", figures=False).read_text()
    with pytest.raises(UserError, match="is not a bench"):
        build_report([run], tmp_path / "page.html", figures=False, benches=[tmp_path])


def test_methods_look_as_on_the_rest_of_the_page() -> None:
    known = {"upper_bound": 0, "fastv@144": 2, "random@144": 3}
    assert numbers(["upper_bound", "atp@144", "fastv@144", "atp@88"], known) == {
        "upper_bound": 0, "atp@144": 4, "fastv@144": 2, "atp@88": 5,
    }  # fmt: skip
    assert numbers(["upper_bound", "a", "b"], None) == {"upper_bound": 0, "a": 1, "b": 2}


def test_a_terminal_of_80_columns_shows_every_column(made: Path, grown: Path) -> None:
    for folder, shown in ((made, ("upper_bound", "fastv@144", "TFLOP", "peak", "not run")), (grown, ("linear",))):
        console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(to_rich(summarise_bench(folder)))
        text = console.export_text()
        assert all(word in text for word in shown) and "…" not in text


def test_sections_number_their_elements(made: Path, grown: Path) -> None:
    assert [part.id for part in bench_sections([made, grown])] == ["bench-1", "bench-2"]


def test_what_did_not_run_is_a_line_a_reason() -> None:
    cells = [("a, batch 1", "no [flash]"), ("b", "no memory"), ("a, batch 8", "no [flash]"), ("c", "no [flash]")]
    assert [Text.from_markup(line).plain for line in not_run_lines(cells)] == [
        "not run a, batch 1 and 2 more: no [flash]",
        "not run b: no memory",
    ]
