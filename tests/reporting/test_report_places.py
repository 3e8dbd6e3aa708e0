"""Where a report goes: one file or a folder, by size or by name; what is beside it; what is never overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from synthetic import METHODS, plain_picture, write_run
from typed import call

from atp_eval.analysis import Summary, summarise
from atp_eval.errors import UserError
from atp_eval.records import Run
from atp_eval.report_commands import parse_size
from atp_eval.reporting import build_report
from atp_eval.reporting.pictures import Pictures

TWO = {name: METHODS[name] for name in ("upper_bound", "grid@144")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("places") / "run"
    return write_run(folder, methods=TWO, benchmarks=["gqa"], documents=12, pictures=plain_picture, keep_images=12)


@pytest.fixture(scope="module")
def summary(run: Run) -> Summary:
    return summarise([run], resamples=20)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_small_page_is_a_file_with_tables_and_figures_beside_it(run: Run, summary: Summary) -> None:
    page = build_report([run], summary=summary)
    assert page == run.path / "report.html"
    assert {"summary.json", "data_issues.csv", "comparison.tex", "figures"} <= names(run.path)
    assert {"retention-tokens.pdf", "retention-tokens.png", "retention-tokens.csv"} <= names(run.path / "figures")
    assert "figures/" not in page.read_text(encoding="utf-8")  # a page that travels links to nothing beside it


def test_a_folder_has_everything_in_its_place(run: Run, summary: Summary, tmp_path: Path) -> None:
    page = build_report([run], tmp_path / "site", summary=summary)
    assert page == tmp_path / "site" / "index.html"
    assert names(page.parent) == {"index.html", "images", "figures", "tables", "summary.json"}
    assert {"comparison.csv", "comparison.md", "comparison.tex", "comparison.parquet"} <= names(page.parent / "tables")
    assert "summary.json" not in names(page.parent / "tables")
    assert json.loads((page.parent / "summary.json").read_text())["benchmarks"][0]["name"] == "gqa"
    pictures = {path.read_bytes() for path in (run.path / "images").iterdir()}
    assert len(names(page.parent / "images")) == len(pictures) == 6  # each once
    assert len(pd.read_csv(page.parent / "tables" / "comparison.csv")) == 4


def test_a_page_over_the_limit_becomes_a_folder_and_takes_its_old_file_along(
    run: Run, summary: Summary, tmp_path: Path
) -> None:
    output = tmp_path / "page.html"
    assert build_report([run], output, summary=summary, figures=False) == output
    size = output.stat().st_size
    assert build_report([run], output, summary=summary, figures=False, max_size=size) == output
    page = build_report([run], output, summary=summary, max_size=size - 1)
    assert page == tmp_path / "page" / "index.html"
    assert not output.exists(), "an old page beside the new one would be read for it"


def test_a_file_that_is_not_ours_is_never_deleted(run: Run, summary: Summary, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    output.write_text("<p>mine</p>")
    build_report([run], output, summary=summary, max_size=1)
    assert output.read_text() == "<p>mine</p>"


def test_pictures_of_an_earlier_page_go_and_other_files_stay(run: Run, summary: Summary, tmp_path: Path) -> None:
    images = tmp_path / "site" / "images"
    images.mkdir(parents=True)
    for name in ("p0123456789abcdef.webp", "portrait.webp", "p0123456789abcdef.png"):
        (images / name).write_bytes(b"x")
    build_report([run], tmp_path / "site", summary=summary)
    assert "p0123456789abcdef.webp" not in names(images)
    assert {"portrait.webp", "p0123456789abcdef.png"} <= names(images)


def test_a_run_folder_is_no_place_for_a_page(run: Run, summary: Summary) -> None:
    before = names(run.path / "images")
    with pytest.raises(UserError, match=r"is a run folder.*--output .*report"):
        build_report([run], run.path, summary=summary)
    assert names(run.path / "images") == before


def test_a_file_is_no_folder_for_a_page(run: Run, summary: Summary, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(UserError, match="mine is a file, not a folder"):
        build_report([run], tmp_path / "mine", summary=summary)
    assert (tmp_path / "mine").read_text() == "kept"


def test_a_page_without_pictures_leaves_no_folder_for_them(tmp_path: Path) -> None:
    Pictures().write(tmp_path / "images")
    assert not (tmp_path / "images").exists()


def test_no_samples_no_gallery(run: Run, summary: Summary, tmp_path: Path) -> None:
    text = build_report([run], tmp_path / "p.html", summary=summary, samples=0, figures=False).read_text()
    assert 'id="gallery-data"' not in text and 'href="#gallery"' not in text and 'id="results"' in text


def test_what_is_being_done_is_told(run: Run, summary: Summary, tmp_path: Path) -> None:
    told: list[str] = []
    build_report([run], tmp_path / "p.html", summary=summary, say=told.append)
    assert told == ["Measuring", "Choosing samples and drawing figures", "Writing", "Drawing figures for papers"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10MB", 10_000_000),
        ("500 kB", 500_000),
        ("2MiB", 2 * 1024**2),
        ("1234", 1234),
        ("1.5M", 1_500_000),
        ("1g", None),
    ]
    + [(bad, None) for bad in ("", "MB", "-1MB", "ten", "1e6", "1MBB", "1iB")],
)
def test_sizes(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(UserError, match="is no size; write 10MB"):
            parse_size(text)
    else:
        assert parse_size(text) == size


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--samples", "-1"), "--samples -1: 0 or more"),
        (("--max-size", "huge"), "--max-size 'huge' is no size"),
        (("-o", "{run}"), "is a run folder"),
        (("-o", "{run}/run.json/page.html"), "cannot write"),
    ],
)
def test_bad_input_is_one_line(
    args: tuple[str, ...], said: str, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = [a.replace("{run}", str(run.path)) for a in args]
    code, out, err = call(monkeypatch, capsys, "report", str(run.path), "--no-figures", *filled)
    assert code == 2 and out == "" and said in err and "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("atp-eval:")]) == 1


def test_json_names_the_page_and_nothing_else_is_on_standard_output(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = (str(run.path), "-o", str(tmp_path / "x" / "p.html"), "--samples", "2", "--no-figures", "--json")
    code, out, _ = call(monkeypatch, capsys, "report", *args)
    assert code == 0 and json.loads(out)["report"] == str(tmp_path / "x" / "p.html")
    assert names(tmp_path / "x") == {"p.html", "p_tables"}
