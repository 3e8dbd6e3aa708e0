"""The gallery as data and as HTML: whole, small, safe, readable without scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic import METHODS, FakeMethod, Texts, plain_picture, write_run

from atp_eval.analysis.overlays import Answer
from atp_eval.analysis.reading import entries
from atp_eval.errors import UserError
from atp_eval.records import Run
from atp_eval.reporting.gallery import GalleryParts, gallery_parts, judged
from atp_eval.reporting.gallery_page import build_gallery, series_of
from atp_eval.reporting.pictures import Pictures
from atp_eval.trace import KeepTrace, Stage, unpack

SHOWN = METHODS | {"atp@144": FakeMethod(0.8, [(1, (180, 220)), (4, 60)], merged=7)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run") / "one"
    return write_run(folder, methods=SHOWN, benchmarks=("gqa", "mmb", "mme"), pictures=plain_picture, keep_images=8)


def parts_of(run: Run, count: int = 200) -> GalleryParts:
    return gallery_parts([run], series_of(entries([run])), Pictures(), count)


def embedded(page: str, name: str) -> Any:
    """The JSON that a page carries under an id."""
    found = re.search(f'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def test_the_data_are_the_records(run: Run) -> None:
    data = json.loads(json.dumps(parts_of(run).data))
    assert [m["label"] for m in data["methods"]] == list(SHOWN)
    assert [m["against"] for m in data["methods"]] == [None, 0, 0, 0, 0]
    assert [m["reference"] for m in data["methods"]] == [True, False, False, False, False]
    assert data["layers"] == 8 and len(data["samples"]) == 72
    rows = run.samples()
    for sample in data["samples"][::7]:
        benchmark, doc = sample["id"].split("/")
        for method, answer in zip(data["methods"], sample["answers"], strict=True):
            is_it = (
                (rows["method"] == method["label"]) & (rows["benchmark"] == benchmark) & (rows["doc_id"] == int(doc))
            )
            row = rows[is_it].iloc[0]
            trace = KeepTrace.from_json(json.loads(row["trace"]))
            assert (answer["said"], answer["score"]) == (row["response"], row["score"])
            assert answer["tokens"] == round(trace.average_input, 1)
            stages = [Stage(i, unpack(data["masks"][m], (24, 24)), merged) for i, merged, m in answer["stages"]]
            assert KeepTrace((24, 24), 8, tuple(stages)).to_json() == trace.to_json()


def test_a_mask_and_a_picture_are_there_once(run: Run, tmp_path: Path) -> None:
    page = build_gallery([run], tmp_path / "g.html").page.read_text(encoding="utf-8")
    data, pictures = embedded(page, "gallery-data"), embedded(page, "gallery-pictures")
    assert len(data["masks"]) == len(set(data["masks"]))
    addresses = re.findall(r"data:image/webp;base64,[\w+/=]+", page)
    assert len(addresses) == len(set(addresses)) == 12  # four pictures of each of three benchmarks
    assert len(pictures) == 12 - 3  # three stand with the samples that are readable without scripts
    assert {a["picture"] for s in data["samples"] for a in s["answers"] if a["picture"]} > set(pictures)


def test_the_page_says_how_samples_were_chosen(run: Run, tmp_path: Path) -> None:
    found = build_gallery([run], tmp_path / "g.html", count=24)
    text = " ".join(re.sub(r"<[^>]+>", "", found.page.read_text(encoding="utf-8")).split())
    parts = found.parts
    assert (parts.samples, parts.at_random, parts.pictured) == (24, 6, 24)
    assert "Of these 24 samples, 6 were drawn at random, first from those with a picture, and " in text
    assert f"and {parts.differing} are here because methods score differently on them" in text
    assert ("others fill up" in text) is (parts.at_random + parts.differing < 24)


def test_without_scripts_some_samples_are_readable(run: Run, tmp_path: Path) -> None:
    page = build_gallery([run], tmp_path / "g.html").page.read_text(encoding="utf-8")
    few = page[page.index('id="gallery-few"') :]
    assert few.count("<article") == 3 and "<noscript>" in page
    assert few.count('class="veil"') == 3 * 4 and few.count("<use ") == 3 * 5
    assert "60 tokens, 7 of them merged" in few


def test_many_pictures_go_into_files_beside_the_page(run: Run, tmp_path: Path) -> None:
    found = build_gallery([run], tmp_path / "g.html", largest=100)
    page = found.page.read_text(encoding="utf-8")
    assert found.files == tmp_path / "g_files"
    assert "data:image" not in page and "img-src data: 'self'" in page
    named = set(re.findall(r"g_files/(p\w+\.webp)", page))
    assert named == {p.name for p in found.files.iterdir()} and len(named) == 12


def test_long_answers_are_cut_so_that_the_page_stays_small(tmp_path: Path) -> None:
    texts = Texts(lambda benchmark, i: "\x00" * 50_000, right="\u202e" * 100_000, wrong="a" * 100_000)
    run = write_run(tmp_path / "run", texts=texts, benchmarks=["gqa"], documents=200)
    parts = parts_of(run)
    longest = max(len(a["said"]) for s in parts.data["samples"] for a in s["answers"])
    assert 400 < longest < 2100
    assert build_gallery([run], tmp_path / "g.html").page.stat().st_size < 10_000_000


def answer(**fields: Any) -> Answer:
    return Answer(
        **{"label": "m", "response": "x", "error": None, "invalid": False, "score": 0.0, "trace": None, **fields}
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"score": 1.0}, "right"),
        ({"score": 0.3}, "partly right (0.30)"),
        ({"score": 0.0}, "wrong"),
        ({"score": 0.0, "invalid": True}, "no answer"),
        ({"score": 1.0, "invalid": True}, "right"),
        ({"response": None, "error": "out of memory", "score": 0.0}, "failed"),
    ],
)
def test_verdicts_are_words_with_symbols_of_their_own(fields: dict[str, Any], expected: str) -> None:
    assert judged(answer(**fields))[0] == expected
    others = [{"score": 1.0}, {"score": 0.5}, {}, {"invalid": True}, {"error": "e"}]
    assert len({judged(answer(**o))[1] for o in others}) == 5


@pytest.mark.parametrize(
    "options",
    [
        {"methods": {"upper_bound": METHODS["upper_bound"]}},
        {"methods": {"grid@144": METHODS["grid@144"]}},
        {"methods": METHODS | {"broken": FakeMethod(0.5, errors=1.0)}},
        {"benchmarks": ["pope"], "documents": 1},
        {"methods": METHODS | {f"random@144:seed={i}": METHODS["random@144"] for i in range(12)}},
        {"skip": [("grid@144", "gqa"), ("upper_bound", "pope")], "pictures": plain_picture},
    ],
    ids=["upper bound alone", "no upper bound", "all failed", "one question", "many", "unfinished"],
)
def test_poor_runs_still_make_a_gallery(options: dict[str, Any], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", **{"documents": 8, "benchmarks": ("gqa", "pope"), **options})
    found = build_gallery([run], tmp_path / "g.html")
    assert found.page.stat().st_size > 10_000 and found.parts.samples >= 1


def test_runs_of_different_protocols_are_refused_unless_forced(tmp_path: Path) -> None:
    make: Callable[..., Run] = lambda name, **p: write_run(tmp_path / name, documents=4, protocol=p)  # noqa: E731
    runs = [make("a"), make("b", prompt="vicuna_v1")]
    with pytest.raises(UserError, match="these runs follow different protocols: prompt differ"):
        build_gallery(runs, tmp_path / "g.html")
    page = build_gallery(runs, tmp_path / "g.html", force=True).page.read_text(encoding="utf-8")
    assert "showing them together was forced" in page
    labels = [m["label"] for m in embedded(page, "gallery-data")["methods"]]
    assert labels[0] == "upper_bound (a)" and "grid@144 (b)" in labels
    against = [m["against"] for m in embedded(page, "gallery-data")["methods"]]
    assert against == [None, 0, 0, 0, None, 4, 4, 4]  # each run's own upper bound


def test_a_series_is_a_methods_number_in_the_report(run: Run) -> None:
    assert [series_of(entries([run]))(label) for label in SHOWN] == [0, 1, 2, 3, 4]
