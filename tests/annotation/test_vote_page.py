"""The voting page in a real browser: by keyboard and by touch, kept, exported, imported, quiet, and blind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from browsing import chromium
from playwright.sync_api import Browser, BrowserContext, Page
from synthetic import FakeMethod, Texts, plain_picture, write_run

from atp_eval.annotation.ballot import Ballot, draw
from atp_eval.annotation.merge import merge_files
from atp_eval.annotation.page import LONGEST_ANSWER, reveal_page, vote_page
from atp_eval.annotation.votes import Votes, read_votes

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
A, B = "upper_bound", "fastv@144"
METHODS = {A: FakeMethod(0.9), B: FakeMethod(0.4, [(2, 1)])}
HOSTILE = (
    "</script><script>window.broken=1</script><img src=x onerror='window.broken=1'>\u202e\x00javascript:" + "w" * 300
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ballot, Path]:
    folder = tmp_path_factory.mktemp("vote")
    run = write_run(folder / "run", methods=METHODS, pictures=plain_picture, benchmarks=("gqa", "mmb"))
    ballot = draw([run], A, B, 6, hint="Correctness first.")
    page = folder / "annotate.html"
    page.write_text(vote_page(ballot), encoding="utf-8")
    return ballot, page


class Opened:
    """A page with everything that it complained about or asked for."""

    def __init__(self, browser: Browser, path: Path, context: BrowserContext | None = None, **options: Any) -> None:
        self.own = context is None
        self.context = context or browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.noise: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.noise.append(message.text))
        self.page.on("pageerror", lambda error: self.noise.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: dialog.accept())
        self.page.goto(path.as_uri())

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *error: object) -> None:
        if self.own:
            self.context.close()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def count(self) -> str:
        return self.page.locator("#count").inner_text()

    def said(self) -> str:
        return self.page.locator("#said").inner_text()

    def export(self, folder: Path, name: str = "Ada") -> Votes:
        self.page.locator("#annotator").fill(name)
        with self.page.expect_download() as download:
            self.page.locator("#export").click()
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        self.path = path
        return read_votes(path)


def test_votes_by_keyboard_are_exported_as_they_were_given(
    browser: Browser, made: tuple[Ballot, Path], tmp_path: Path
) -> None:
    ballot, path = made
    with Opened(browser, path) as opened:
        seen = []
        for key in ("1", "ArrowRight", "0", "2", "ArrowLeft", "Space"):
            seen.append(tuple(opened.page.locator(side).inner_text() for side in ("#left", "#right")))
            opened.press(key)
        assert seen == [item.shown for item in ballot.items]
        assert opened.count() == "6 of 6 voted"
        assert opened.page.locator("#done").is_visible() and not opened.page.locator("#sample").is_visible()
        found = opened.export(tmp_path)
        assert opened.said() == f"Exported 6 of 6 votes as votes-Ada-{ballot.page[:8]}.json."
        assert opened.noise == []
        assert {r for r in opened.requests if not r.startswith("data:")} == {path.as_uri()}
    assert [v.sample for v in found.votes] == [item.sample for item in ballot.items]
    assert [v.looks[0].choice for v in found.votes] == ["left", "right", "tie", "right", "left", "tie"]
    assert [v.looks[0].left for v in found.votes] == [item.left for item in ballot.items]
    assert [v.picture for v in found.votes] == [item.image for item in ballot.items]
    assert all(v.seconds is not None for v in found.votes)
    assert (found.page, found.a, found.b, found.seed, found.annotator) == (ballot.page, A, B, 0, "Ada")
    assert found.pools == ballot.pools
    assert merge_files([opened.path]).pooled.votes == 6


def test_progress_is_kept_and_undone_and_put_off(browser: Browser, made: tuple[Ballot, Path], tmp_path: Path) -> None:
    ballot, path = made
    asked = [item.asked for item in ballot.items]
    with Opened(browser, path) as opened:
        shown = opened.page.locator("#asked")
        opened.press("1", "2")
        opened.page.locator("#annotator").fill("Ada")
        opened.page.reload()
        assert opened.count() == "2 of 6 voted" and shown.inner_text() == asked[2]
        assert opened.page.locator("#annotator").input_value() == "Ada"
        opened.press("u")
        assert opened.count() == "1 of 6 voted" and shown.inner_text() == asked[1]
        opened.press("s")
        assert opened.count() == "1 of 6 voted, 1 put off" and shown.inner_text() == asked[2]
        opened.press("1", "1", "1", "1")
        assert shown.inner_text() == asked[1]
        opened.press("Backspace")
        assert opened.count() == "4 of 6 voted, 1 put off" and shown.inner_text() == asked[5]
        found = opened.export(tmp_path)
        assert [v.sample for v in found.votes] == [ballot.items[i].sample for i in (0, 2, 3, 4)]


def test_keys_leave_fields_alone_and_can_be_switched_off(browser: Browser, made: tuple[Ballot, Path]) -> None:
    with Opened(browser, made[1]) as opened:
        page = opened.page
        page.locator("#annotator").focus()
        page.keyboard.type("a 12 us")
        assert opened.count() == "0 of 6 voted" and page.locator("#annotator").input_value() == "a 12 us"
        page.locator("#theme").focus()
        opened.press("Space")  # presses the button, and is no tie
        assert opened.count() == "0 of 6 voted" and page.locator("#theme").inner_text() == "Theme: light"
        opened.press("Control+1", "Alt+2", "x")
        page.evaluate(
            "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '1', repeat: true, bubbles: true}))"
        )
        assert opened.count() == "0 of 6 voted"
        page.locator("#shortcuts").uncheck()
        opened.press("1")
        assert opened.count() == "0 of 6 voted"
        page.locator("#shortcuts").check()
        opened.press("1")
        assert opened.count() == "1 of 6 voted"


def test_buttons_vote_and_the_next_question_is_read_out(browser: Browser, made: tuple[Ballot, Path]) -> None:
    with Opened(browser, made[1]) as opened:
        for choice in ("left", "tie", "right"):
            opened.page.locator(f"[data-choice={choice}]").click()
            assert opened.page.evaluate("document.activeElement.id") == "asked"
        assert opened.count() == "3 of 6 voted"
        assert opened.page.locator("#progress").evaluate("e => e.value / e.max") == 0.5


def test_an_earlier_export_goes_on_elsewhere_and_what_is_here_stays(
    browser: Browser, made: tuple[Ballot, Path], tmp_path: Path
) -> None:
    ballot, path = made
    with Opened(browser, path) as first:
        first.press("1", "1", "1")
        first.export(tmp_path)
    with Opened(browser, path) as second:
        second.press("2")
        second.page.locator("#import").set_input_files(first.path)
        second.page.wait_for_function("document.getElementById('said').textContent.startsWith('Imported 2')")
        assert "1 samples were voted on here already" in second.said()
        assert second.count() == "3 of 6 voted" and second.page.locator("#annotator").input_value() == "Ada"
        second.press("0")
        choices = {v.sample: v.looks[0].choice for v in second.export(tmp_path).votes}
        assert [choices.get(item.sample) for item in ballot.items] == ["right", "left", "left", "tie", None, None]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"page": "0" * 32}, "on another page"),
        ({"format": "else"}, "holds no exported votes"),
        ({"judge": {"model": "m"}}, "a model's votes"),
        ({"votes": [{"benchmark": "gqa", "doc_id": 999, "looks": [{"choice": "left"}]}]}, "does not know"),
        ({"votes": [{"looks": None}]}, "does not know"),
        ({"votes": [None]}, "does not know"),
        ({"annotator": "Bo"}, "Those are Bo's votes, and here are Ada's"),
        (None, "holds no exported votes"),
    ],
)
def test_files_that_do_not_belong_here_are_refused(
    browser: Browser, made: tuple[Ballot, Path], tmp_path: Path, change: dict[str, Any] | None, said: str
) -> None:
    with Opened(browser, made[1]) as opened:
        opened.press("1")
        opened.export(tmp_path)
        data = json.loads(opened.path.read_text())
        opened.path.write_text("{" if change is None else json.dumps(data | change))
        opened.page.locator("#import").set_input_files(opened.path)
        opened.page.wait_for_function("said => document.getElementById('said').textContent.includes(said)", arg=said)
        assert opened.count() == "1 of 6 voted" and opened.noise == []


def test_a_name_is_needed_and_no_models(browser: Browser, made: tuple[Ballot, Path]) -> None:
    with Opened(browser, made[1]) as opened:
        opened.press("1")
        for name, said in (("  ", "Write your name"), ("judge:gpt", "stands for a model")):
            opened.page.locator("#annotator").fill(name)
            opened.page.locator("#export").click()
            assert said in opened.said()
            assert opened.page.evaluate("document.activeElement.id") == "annotator"


def test_votes_can_be_copied_as_text(browser: Browser, made: tuple[Ballot, Path], tmp_path: Path) -> None:
    with Opened(browser, made[1]) as opened:
        opened.press("1")
        opened.page.locator("#copy summary").click()
        text = opened.page.locator("#text")
        assert text.input_value() == "Write your name above first."
        opened.page.locator("#annotator").fill("Ada")
        (tmp_path / "copied.json").write_text(text.input_value())
        assert len(read_votes(tmp_path / "copied.json").votes) == 1


def test_starting_over_forgets(browser: Browser, made: tuple[Ballot, Path]) -> None:
    with Opened(browser, made[1]) as opened:
        opened.press("1", "1")
        opened.page.locator("#restart").click()
        assert opened.count() == "0 of 6 voted"
        opened.page.reload()
        assert opened.count() == "0 of 6 voted"


def test_two_tabs_lose_no_vote(browser: Browser, made: tuple[Ballot, Path]) -> None:
    with Opened(browser, made[1]) as one, Opened(browser, made[1], one.context) as two:
        one.press("1")
        two.page.wait_for_function("document.getElementById('count').textContent.startsWith('1 of')")
        two.press("2")
        one.page.wait_for_function("document.getElementById('count').textContent.startsWith('2 of')")


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
