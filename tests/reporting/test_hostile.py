"""Hostile text in every place where the outside may write, through every page: nothing runs, nothing is asked for,
nothing moves. `hostile.STRINGS` are the texts, `page_builders.BUILDERS` the pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from browsing import watched
from hostile import STRINGS, WORDS, broken_run, labels
from page_builders import BUILDERS
from playwright.sync_api import Browser

from atp_eval.analysis import summarise, write_summary
from atp_eval.records import Run
from atp_eval.reporting.page import content_hash, embedded
from atp_eval.reporting.svg import UNSAFE

# Every element with those it lies in, whatever their order: <wbr> goes where a name may break.
OUTLINE = """[...document.querySelectorAll('*')].filter((e) => e.localName !== 'wbr').map((e) => {
  const path = [];
  for (let at = e; at; at = at.parentElement) path.unshift(at.localName);
  return path.join(' > ');
}).sort()"""
ACTIVE = r"""[...document.querySelectorAll('*')].flatMap((e) => [...e.attributes].filter((a) => {
    const safe = /^(#|(images|figures|tables)\/|data:(image\/(webp|png);|text\/(csv|markdown);|application\/x-tex;|,))/;
    const leads = /^(href|src|action|formaction|xlink:href)$/.test(a.name);
    return a.name.startsWith('on') || a.name === 'srcdoc' || (leads && !safe.test(a.value));
  }).map((a) => `${e.localName} ${a.name}=${a.value.slice(0, 60)}`))"""
STYLED = "[...document.querySelectorAll('[style]')].map((e) => e.outerHTML.slice(0, 80))"  # before scripts set any


class Made(NamedTuple):
    """Every page of a run, by its name among BUILDERS."""

    run: Run
    pages: dict[str, Path]


def make(folder: Path, kind: tuple[str, ...], name: str) -> Made:
    run, other = (broken_run(folder / side, kind, name) for side in ("a", "b"))
    return Made(run, {builder: build(run, other, folder) for builder, build in BUILDERS.items()})


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("hostile"), STRINGS, 'run <b>"x"\'{{7*7}}<img src=x onerror=window.broken=1>')


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("harmless"), WORDS, "run of plain words")


def test_there_are_fifty_texts_and_each_is_another() -> None:
    assert len(STRINGS) >= 50 and len(set(STRINGS)) == len(STRINGS) <= len(set(WORDS))
    assert max(map(len, STRINGS)) > 1_000_000


@pytest.mark.parametrize("name", BUILDERS)
def test_nothing_runs_and_nothing_is_asked_for(name: str, hostile: Made, browser: Browser) -> None:
    page = hostile.pages[name]
    with watched(browser, page, viewport={"width": 1280, "height": 900}) as seen:
        seen.page.wait_for_load_state("load")
        use(seen.page)
        assert seen.page.evaluate("window.broken") is None
        assert seen.noise == [] and seen.dialogs == [] and seen.violations() == []
        assert seen.page.url.split("#")[0] == page.as_uri()  # no refresh, no frame that leads away
        allowed = page.parent.as_uri() + "/images/"
        assert [r for r in seen.requests if not r.startswith(("data:", allowed)) and r != page.as_uri()] == []
        assert seen.page.evaluate(ACTIVE) == []


@pytest.mark.parametrize("name", BUILDERS)
def test_the_elements_are_those_of_harmless_text(name: str, hostile: Made, harmless: Made, browser: Browser) -> None:
    found = []
    for made in (harmless, hostile):
        with watched(browser, made.pages[name], java_script_enabled=False) as seen:
            found.append(seen.page.evaluate(OUTLINE))
            assert seen.page.evaluate(STYLED) == []
    assert found[0] == found[1]
    assert len(found[0]) > 50


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", BUILDERS)
def test_the_layout_holds(name: str, width: int, hostile: Made, browser: Browser) -> None:
    with watched(browser, hostile.pages[name], viewport={"width": width, "height": 844}) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        assert seen.page.evaluate("document.body.scrollWidth") <= width
        assert seen.page.locator("main h1").is_visible() and seen.page.locator("main").count() == 1
        footer = seen.page.locator("body > footer").bounding_box()
        assert footer and footer["height"] > 10  # nothing swallowed the end of the page


def use(page: Any) -> None:
    """Press what there is: walk through samples, sort tables, open what is folded."""
    for summary in page.locator("summary").all():
        if summary.is_visible():
            summary.click()
    for button in page.locator("button.sort").all()[:8]:
        button.click()
    page.evaluate("document.activeElement.blur()")
    for key in ("j", "ArrowRight"):
        for _ in range(15):
            page.keyboard.press(key)
    search = page.locator("input[type=search]")
    if search.count():
        search.first.fill("<img src=x onerror=window.broken=1>")


@pytest.mark.parametrize("name", BUILDERS)
def test_the_policy_allows_these_scripts_and_styles_by_hash_and_nothing_else(name: str, hostile: Made) -> None:
    text = hostile.pages[name].read_text(encoding="utf-8")
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.replace("&#39;", "'").split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert set(rules) == {"default-src", "img-src", "style-src", "script-src", "base-uri", "form-action"}
    assert rules["img-src"] in ("data:", "data: 'self'")
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    styles = re.findall(r"<style>(.*?)</style>", text, re.S)
    assert scripts or name == "side by side"
    assert rules["script-src"].split() == [content_hash(s) for s in scripts]
    assert rules["style-src"].split() == [content_hash(s) for s in styles]
    data = re.findall(r"<script (?!type=\"application/json\" id=\"[a-z-]+\">)[^>]*>", text)
    assert data == []  # every other script element is data, which never runs


@pytest.mark.parametrize("name", BUILDERS)
def test_no_character_that_a_page_must_not_carry_is_on_it(name: str, hostile: Made) -> None:
    text = hostile.pages[name].read_text(encoding="utf-8")
    assert not UNSAFE.search(text.replace("\n", " ").replace("\t", " "))


def test_a_lone_surrogate_of_the_context_becomes_readable() -> None:
    assert embedded({"a\ud800": ["\udfff<"]}) == '{"a\\u27e8U+D800\\u27e9":["\\u27e8U+DFFF\\u27e9\\u003c"]}'


def test_tables_hold_no_formula_no_link_and_no_command(hostile: Made, tmp_path: Path) -> None:
    written = write_summary(summarise([hostile.run], resamples=20), tmp_path, protocol=" ".join(STRINGS)[:3000])
    texts = {path.name: path.read_text(encoding="utf-8") for path in written if path.suffix != ".parquet"}
    for name, text in texts.items():
        if name.endswith(".csv"):
            assert not re.search(r'(^|,)"?\s*[=@+]', text, re.M), name
    assert "](" not in texts["comparison.md"].replace(r"\](", "") and not re.search(r"(?<!\\)<", texts["comparison.md"])
    assert r"\textless{}script\textgreater{}" in texts["comparison.tex"] and r"\write" not in texts["comparison.tex"]
    assert len(labels(STRINGS)) == len(re.findall(r"@144|upper\\_bound", texts["comparison.tex"]))
