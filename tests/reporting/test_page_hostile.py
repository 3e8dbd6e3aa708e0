"""The page as HTML: safe whatever questions, answers and names hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reporting.outline import HOSTILE, SCRIPTS, Outline, build
from synthetic import METHODS, Texts, plain_picture, write_run

from atp_eval.analysis import summarise
from atp_eval.records import Run
from atp_eval.reporting.build import render
from atp_eval.reporting.contents import contents
from atp_eval.reporting.gallery import READABLE
from atp_eval.reporting.svg import UNSAFE, clean


def small_page(folder: Path, texts: Texts) -> str:
    shape = {"methods": {name: METHODS[name] for name in ("upper_bound", "grid@144")}, "benchmarks": ["gqa"]}
    return build(write_run(folder / "run", texts=texts, pictures=plain_picture, documents=4, **shape), folder)


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return Outline(small_page(tmp_path_factory.mktemp("harmless"), Texts())).tags()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_does_nothing(text: str, harmless: list[str], tmp_path: Path) -> None:
    page = small_page(tmp_path, Texts(lambda benchmark, i: text, right=text, wrong=text + "!"))
    found = Outline(page)
    assert found.tags() == harmless  # the text made no element
    assert clean(text) in " ".join(found.text)
    assert not UNSAFE.search(page.replace("\n", " "))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(question=st.text(max_size=60), answer=st.text(max_size=60), label=st.text(min_size=1, max_size=20))
def test_any_text_makes_the_same_elements(
    question: str, answer: str, label: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    encodable = (question + answer + label).encode("utf-8", "ignore").decode("utf-8")
    texts = Texts(lambda benchmark, i: encodable or "?", right=encodable or "?", wrong=encodable + "!")
    run = write_run(
        tmp_path_factory.mktemp("any"), texts=texts, methods={"m": METHODS["grid@144"]}, benchmarks=["gqa"], documents=4
    )
    manifest = run.manifest.model_copy(update={"device": label, "protocol": {"model": label, label: question}})
    found = contents([Run(run.path, manifest)], summarise([run], resamples=20), None, 8)
    tags = Outline(render(found)).tags()
    assert tags.count("article") == READABLE + 1
    assert tags.count("script") == SCRIPTS


@given(st.text())
def test_clean_text_is_printable_and_encodable(text: str) -> None:
    found = clean(text)
    assert not UNSAFE.search(found)
    found.encode("utf-8")
