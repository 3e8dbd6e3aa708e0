"""The voting page in a real browser: without storage, quiet, blind, hostile texts, and read aloud."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from annotation.voting import METHODS, A, B, Opened
from playwright.sync_api import Browser, Page
from synthetic import Texts, plain_picture, write_run

from atp_eval.annotation.ballot import Ballot, draw
from atp_eval.annotation.page import LONGEST_ANSWER, reveal_page, vote_page

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
HOSTILE = (
    "</script><script>window.broken=1</script><img src=x onerror='window.broken=1'>\u202e\x00javascript:" + "w" * 300
)


BLOCKED = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }});"
FULL = "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); };"


@pytest.mark.parametrize("script", [BLOCKED, FULL], ids=["blocked", "full"])
def test_without_storage_votes_work_and_the_page_says_so(
    browser: Browser, made: tuple[Ballot, Path], tmp_path: Path, script: str
) -> None:
    context = browser.new_context()
    context.add_init_script(script)
    with Opened(browser, made[1], context) as opened:
        assert "Export your votes before you close it" in opened.page.locator("#warning").inner_text()
        opened.press("1", "2")
        assert len(opened.export(tmp_path).votes) == 2 and opened.noise == []
    context.close()


@pytest.mark.parametrize("junk", ["", "{", "null", "[]", '{"votes": 3}', '{"votes": [null, 3, ["gqa/0"], ["x", {}]]}'])
def test_junk_in_the_storage_is_ignored(browser: Browser, made: tuple[Ballot, Path], junk: str) -> None:
    ballot, path = made
    context = browser.new_context()
    context.add_init_script(f"localStorage.setItem('atp-eval-votes-{ballot.page}', {json.dumps(junk)})")
    with Opened(browser, path, context) as opened:
        assert opened.count() == "0 of 6 voted" and opened.noise == []
    context.close()


def test_the_page_shows_no_name_and_its_source_none_at_a_glance(browser: Browser, made: tuple[Ballot, Path]) -> None:
    ballot, path = made
    source = path.read_text(encoding="utf-8")
    assert A not in source and B not in source
    assert not re.search(r'"left"\s*:\s*"[ab]', source)
    with Opened(browser, path) as opened:
        assert "do not read this page's source" in opened.page.locator("#how").inner_text()
        assert "Correctness first." in opened.page.locator("#how").inner_text()
        assert opened.page.locator("#picture").evaluate("e => e.complete && e.naturalWidth > 0")
    assert len({item.left for item in ballot.items}) == 2


def test_hostile_text_runs_nothing_and_keeps_the_layout(browser: Browser, tmp_path: Path) -> None:
    texts = Texts(lambda benchmark, i: HOSTILE, right=HOSTILE, wrong="x" * 10**6)
    run = write_run(tmp_path / "run", methods=METHODS, texts=texts, pictures=plain_picture, documents=8)
    ballot = draw([run], A, B, 4, hint=HOSTILE)
    for name, html in (("vote.html", vote_page(ballot)), ("read.html", reveal_page(ballot))):
        page = tmp_path / name
        page.write_text(html, encoding="utf-8")
        with Opened(browser, page, viewport={"width": 400, "height": 800}) as opened:
            assert opened.noise == []
            assert opened.page.evaluate("window.broken") is None
            assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400
            assert "<script>window.broken=1</script>" in opened.page.locator("h2").first.inner_text()
            answers = opened.page.locator(".said").all_inner_texts()
            assert any("<img src=x" in text for text in answers)
            assert any(f"({10**6 - LONGEST_ANSWER:,} more characters)" in text for text in answers)
            for _ in ballot.items:
                assert opened.page.locator("h2 *, .said *").count() == 0  # text, whichever side it stands on
                opened.press("1")
            assert opened.noise == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_pages_never_scroll_sideways(browser: Browser, made: tuple[Ballot, Path], width: int) -> None:
    with Opened(browser, made[1], viewport={"width": width, "height": 800}) as opened:
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        if width < 500:  # thumbs reach all three without scrolling
            for button in opened.page.locator("[data-choice]").all():
                box = button.bounding_box()
                assert box and box["height"] >= 44 and box["y"] + box["height"] <= 800


def violations(page: Page) -> list[str]:
    """What axe-core has against a page."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run().then(r => r.violations)")
    return [f"{v['id']}: {v['nodes'][0]['html'][:100]}" for v in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Browser, made: tuple[Ballot, Path], tmp_path: Path, scheme: Any) -> None:
    ballot, path = made
    read = tmp_path / "read.html"
    read.write_text(reveal_page(ballot), encoding="utf-8")
    with Opened(browser, path, color_scheme=scheme) as opened:
        assert violations(opened.page) == []
        opened.press("1")
        opened.page.locator("#copy summary").click()
        assert violations(opened.page) == []
        opened.press("2", "2", "2", "2", "2")
        assert opened.count() == "6 of 6 voted"
        assert violations(opened.page) == []
    with Opened(browser, read, color_scheme=scheme) as opened:
        assert violations(opened.page) == []


def test_the_reading_page_shows_names_verdicts_and_both_answers(
    browser: Browser, made: tuple[Ballot, Path], tmp_path: Path
) -> None:
    ballot, _ = made
    read = tmp_path / "read.html"
    read.write_text(reveal_page(ballot), encoding="utf-8")
    with Opened(browser, read, java_script_enabled=False) as opened:
        cards = opened.page.locator("article")
        assert cards.count() == 6
        for item, card in zip(ballot.items, cards.all(), strict=True):
            assert card.locator("h3").all_inner_texts() == [A, B]
            assert card.locator(".said").all_inner_texts() == list(item.answers)
            words = [text.split()[-1] for text in card.locator(".verdict-word").all_inner_texts()]
            assert words == ["right" if score else "wrong" for score in item.scores]
            assert card.locator("img").count() == 1
