"""The voting page in a real browser: by keyboard and by touch, kept, exported and imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from annotation.voting import A, B, Opened
from playwright.sync_api import Browser

from atp_eval.annotation.ballot import Ballot
from atp_eval.annotation.merge import merge_files
from atp_eval.annotation.votes import read_votes


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
