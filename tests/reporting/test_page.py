"""The page as HTML: whole and self-contained."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pandas as pd
import pytest
from reporting.outline import FILES, PICTURES, Outline, build, embedded
from synthetic import METHODS, FakeMethod, plain_picture, write_run

from atp_eval.analysis.export import NAMES
from atp_eval.errors import UserError
from atp_eval.records import Run
from atp_eval.reporting import build_report
from atp_eval.reporting.contents import command
from atp_eval.reporting.gallery import READABLE
from atp_eval.reporting.page import content_hash
from atp_eval.reporting.svg import breakable
from atp_eval.reporting.words import heat


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("run") / "one", pictures=plain_picture, keep_images=12)


@pytest.fixture(scope="module")
def page(run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(run, tmp_path_factory.mktemp("page"))


def test_the_page_has_all_its_parts(page: str) -> None:
    found = Outline(page)
    ids = [attributes.get("id") for _, attributes in found.elements]
    nav = list(dict.fromkeys(a["href"] for t, a in found.elements if t == "a"))
    named = ("results", "tradeoff", "heat", "tokens", "fairness", "agreement", "gallery", "efficiency", "claims")
    assert [h for h in nav if h in {f"#{name}" for name in (*named, "protocol", "issues")}] == [
        f"#{name}" for name in (*named, "protocol", "issues")
    ]
    assert "verdict" in ids
    assert len([i for i in ids if i]) == len({i for i in ids if i})
    text = " ".join(found.text)
    for label in METHODS:
        assert label in text
    assert "What this model shows is said of this model only." in text
    assert "atp-eval run --tasks gqa,mme,pope" in text
    tables = {"results": 1, "heat": 1, "fairness": 1, "agreement": 1 + 4, "efficiency": 1, "protocol": 2, "issues": 0}
    assert {name: found.parts[name, "table"] for name in tables} == tables
    assert found.parts["tradeoff", "figure"] == 3
    assert "every method answered every document" in text
    assert found.tags().count("article") == READABLE + 1  # and the one that scripts fill


def test_what_counts_go_with_is_shown_where_they_vary(page: str, tmp_path: Path) -> None:
    assert "Is it adaptive?" not in page
    methods = METHODS | {"atp@144": FakeMethod(0.8, [(1, (100, 300))])}
    found = Outline(build(write_run(tmp_path / "run", methods=methods, documents=12), tmp_path))
    text = " ".join(" ".join(found.text).split())
    assert "#adaptive" in [a.get("href") for t, a in found.elements if t == "a"]
    assert (found.parts["adaptive", "table"], found.parts["adaptive", "figure"]) == (1, 1)
    assert re.search(r"atp@ ?144 keeps \d+\.\d visual tokens on average", text.replace("\u00a0", " "))
    assert "cells asked about" in text and "fine − coarse" in text
    assert (tmp_path / "report_tables" / "adaptivity.csv").exists()


def test_without_known_objects_there_is_neither_their_figure_nor_their_columns(tmp_path: Path) -> None:
    methods = {"upper_bound": METHODS["upper_bound"], "atp@144": FakeMethod(0.8, [(1, (100, 300))])}
    run = write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=12)
    for path in run.path.rglob("samples.parquet"):
        table = pd.read_parquet(path).assign(objects=None, asked_cells=None, asked_map=None)
        table.to_parquet(path, index=False)
    found = Outline(build(run, tmp_path))
    text = " ".join(found.text)
    assert "Is it adaptive?" in text and "cells asked about" not in text and not found.parts["adaptive", "figure"]


def test_links_and_labels_lead_somewhere(page: str) -> None:
    found = Outline(page)
    ids = {attributes.get("id") for _, attributes in found.elements}
    for _, attributes in found.elements:
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert not attributes.get(name) or attributes[name] in ids, attributes
        href = attributes.get("href") or ""
        assert not href.startswith("#") or href[1:] in ids, href


def test_nothing_is_loaded_and_only_our_script_and_style_are_allowed(page: str) -> None:
    found = Outline(page)
    for tag, attributes in found.elements:
        for name, value in attributes.items():
            assert not name.startswith("on") and name != "style", (tag, name)
            assert name not in {"src", "srcset", "action", "formaction"}, (tag, name)
            if name in {"href", "xlink:href"}:
                assert (value or "").startswith(("#", *PICTURES, "data:,", *FILES)), value
                assert not (value or "").startswith(FILES) or attributes["download"], "a file is kept, never opened"
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/2000/svg\")", page)  # its name, not an address
    policy = next(a["content"] for t, a in found.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none';") and "unsafe" not in policy
    script, style = (re.search(f"<{t}>(.*?)</{t}>", page, re.S) for t in ("script", "style"))
    assert script and style
    assert content_hash(script[1]) in policy and content_hash(style[1]) in policy


def test_each_picture_is_there_once_and_every_method_draws_on_it(page: str, run: Run) -> None:
    found = Outline(page)
    pictures = [h for t, a in found.elements if t == "image" and (h := a["href"]) and h.startswith(PICTURES[0])]
    others = list(embedded(page, "gallery-pictures").values())
    kept = [(run.path / "images" / f"{b}-{i}.webp").read_bytes() for b in ("gqa", "mme", "pope") for i in range(6)]
    assert len({*pictures, *others}) == len(pictures) + len(others) == len(set(kept)) == 18
    assert found.parts["samples", "use"] == READABLE * len(METHODS)
    veils = [a for t, a in found.elements if t == "path" and (a.get("class") or "").startswith("veil")]
    assert len(veils) == READABLE * 3
    assert all(re.fullmatch(r"(M\d+,\d+h\d+v1h-\d+z)+", v["d"] or "") for v in veils)


def test_headings_go_down_one_step_at_a_time(page: str) -> None:
    levels = [int(t[1]) for t in Outline(page).tags() if re.fullmatch("h[1-6]", t)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_the_same_run_gives_the_same_page(run: Run, page: str, tmp_path: Path) -> None:
    assert build(run, tmp_path) == page


def test_names_break_between_their_parts_and_short_values_stay_with_theirs() -> None:
    assert breakable("grid@144:layer=0") == "grid@144:<wbr>layer=0"
    assert breakable("schedule:layers=1-3,keep=9") == "schedule:<wbr>layers=1-3,<wbr>keep=9"
    assert breakable("schedule:score=last_row") == "schedule:<wbr>score=<wbr>last_row"
    assert breakable("a = b: <c>") == "a = b: &lt;c&gt;"


def test_controls_that_share_their_draws_are_said_to(tmp_path: Path) -> None:
    said = "Controls of one seed draw from the same order of cells"
    twice = {**METHODS, "random@144:layer=0": FakeMethod(0.7, [(0, 144)])}
    for methods, is_said in ((METHODS, False), (twice, True)):
        run = write_run(tmp_path / f"{len(methods)}", methods=methods)
        page = build_report([run], samples=0, figures=False).read_text(encoding="utf-8")
        assert (said in page) is is_said


@pytest.mark.parametrize(
    "options",
    [
        {"methods": {"upper_bound": METHODS["upper_bound"]}},
        {"methods": {"grid@144": METHODS["grid@144"]}},
        {"methods": METHODS | {"broken": FakeMethod(0.5, errors=1.0)}},
        {"methods": METHODS, "benchmarks": ["pope"], "documents": 1},
        {"methods": {"upper_bound": FakeMethod(0.0), "grid@144": METHODS["grid@144"]}},
        {"methods": METHODS | {f"random@144:seed={i}": METHODS["random@144"] for i in range(12)}},
        {"methods": METHODS, "skip": [("grid@144", "gqa"), ("upper_bound", "pope")]},
    ],
    ids=["upper bound alone", "no upper bound", "all failed", "one question", "upper bound of 0", "many", "unfinished"],
)
def test_poor_runs_still_make_a_page(options: dict, tmp_path: Path) -> None:  # type: ignore[type-arg]
    found = Outline(build(write_run(tmp_path / "run", **{"documents": 8, **options}), tmp_path))
    assert {"table", "h1", "article"} <= set(found.tags())
    assert "nan" not in " ".join(found.text).lower().split()


def test_different_protocols_are_refused_unless_forced_and_then_said(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", documents=6),
        write_run(tmp_path / "b", documents=6, protocol={"prompt": "vicuna_v1"}),
    ]
    with pytest.raises(UserError, match=r"prompt \('hf' and 'vicuna_v1'\) differs"):
        build_report(runs, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
    text = " ".join(Outline(build_report(runs, tmp_path / "report.html", figures=False, force=True).read_text()).text)
    assert "comparing them was forced" in text and "vicuna_v1" in text


def test_the_command_names_what_earlier_commands_put_into_the_folder(run: Run) -> None:
    config = run.manifest.config | {"tasks": ["pope"], "methods": ["grid@144"], "limit": 7}
    last = Run(run.path, run.manifest.model_copy(update={"config": config}))
    assert command(last) == (
        "atp-eval run --tasks gqa,mme,pope --methods upper_bound,fastv@144,random@144,grid@144 "
        "--model tiny --seed 0 --limit 7"
    )


def test_tables_are_written_beside(run: Run, tmp_path: Path) -> None:
    build_report([run], run.path / "report.html", figures=False)
    assert set(NAMES) <= {p.name for p in run.path.iterdir()}
    build_report([run], tmp_path / "elsewhere.html", figures=False)
    assert set(NAMES) <= {p.name for p in (tmp_path / "elsewhere_tables").iterdir()}
    other = write_run(tmp_path / "b", documents=6)
    third = write_run(tmp_path / "c", documents=6)
    build_report([other, third], tmp_path / "both.html", figures=False)
    assert (tmp_path / "both_tables" / "comparison.md").exists()


def test_a_page_that_cannot_be_written_is_a_clear_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*Choose another place with --output"):
        build_report([run], tmp_path / "file" / "report.html")


def test_no_path_of_this_machine_gets_onto_the_page(page: str, run: Run) -> None:
    assert str(run.path.parent) not in page


@pytest.mark.parametrize(
    ("retention", "expected"),
    [(100.0, "loss-0"), (101.0, "loss-0"), (97.5, "loss-1"), (12.0, "loss-12"), (101.5, "gain-1"), (180.0, "gain-3")],
)
def test_heat_goes_by_what_is_lost(retention: float, expected: str) -> None:
    assert heat(retention) == expected
    assert heat(float("nan")) == "none"
