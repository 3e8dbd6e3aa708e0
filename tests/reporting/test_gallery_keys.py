"""The gallery in a real browser: samples, layers and cells by keyboard, by pointing and by touch."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browsing import watched
from playwright.sync_api import Browser, Page
from reporting.galleries import run_with_pictures, tiles, where

from atp_eval.reporting.gallery_page import build_gallery


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = run_with_pictures(tmp_path_factory.mktemp("gallery") / "run")
    return build_gallery([run], run.path / "gallery.html", count=90).page


def test_keys_walk_through_samples_and_layers(browser: Browser, gallery: Path) -> None:
    with watched(browser, gallery) as opened:
        page = opened.page
        seen = [where(page)]
        for key in ("ArrowRight", "j", "k", "ArrowLeft", "ArrowLeft"):
            page.keyboard.press(key)
            seen.append(where(page))
        assert [re.search(r"(\d+) of", text)[1] for text in seen] == ["1", "2", "3", "2", "1", "1"]  # type: ignore[index]
        said = page.locator("#gallery-layer-said")
        assert said.inner_text() == "entering layer 7"
        assert tiles(page, ".count") == [
            "576 tokens",
            "1 token",
            "1 token",
            "144 tokens",
            "60 tokens, 7 of them merged",
        ]
        page.keyboard.press(",")
        assert said.inner_text() == "entering layer 4, a prune point"
        for _ in range(3):
            page.keyboard.press(",")
        assert said.inner_text() == "entering layer 0, a prune point"
        assert tiles(page, ".count") == ["576 tokens", "576 tokens", "576 tokens", "144 tokens", "576 tokens"]
        page.keyboard.press(".")
        assert said.inner_text() == "entering layer 1, a prune point"
        page.focus("#gallery-layer")
        page.keyboard.press("ArrowRight")
        assert said.inner_text() == "entering layer 2, a prune point"
        assert tiles(page, ".count")[1] == "1 token"
        assert where(page) == seen[-1]
        page.locator("#gallery-question").focus()
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "gallery-q"
        page.keyboard.type("j/k,.")
        assert page.locator("#gallery-q").input_value() == "j/k,."


def test_single_keys_can_be_turned_off(browser: Browser, gallery: Path) -> None:
    with watched(browser, gallery) as opened:
        page = opened.page
        page.uncheck("#gallery-keys")
        page.keyboard.press("j")
        assert " 1 of" in where(page)
        page.keyboard.press("ArrowRight")
        assert " 2 of" in where(page)
        page.reload()
        assert not page.is_checked("#gallery-keys")


def test_the_list_is_walked_by_keyboard(browser: Browser, gallery: Path) -> None:
    with watched(browser, gallery) as opened:
        page = opened.page
        page.focus("#gallery-rows")
        for key in ("ArrowDown", "End", "ArrowUp", "Home"):
            page.keyboard.press(key)
            active = page.locator("#gallery-rows").get_attribute("aria-activedescendant")
            assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"
            expected = {"ArrowDown": " 2 of", "End": " 90 of", "ArrowUp": " 89 of", "Home": " 1 of"}[key]
            assert expected in where(page)


def fates(page: Page, row: int, column: int) -> list[str]:
    """What became of a cell for each method, from the traces alone."""
    found: list[str] = page.evaluate(
        """([row, column]) => {
          const data = JSON.parse(document.getElementById("gallery-data").textContent);
          const id = document.getElementById("gallery-where").textContent.split(",")[0].replace(" ", "/");
          const bits = (text) => [...atob(text)].map((c) => c.charCodeAt(0).toString(2).padStart(8, "0")).join("");
          return data.samples.find((s) => s.id === id).answers.map((a) => {
            const gone = a.stages.find(([, , m]) => bits(data.masks[m])[row * 24 + column] === "0");
            return gone ? `${gone[1] ? "pruned or merged" : "pruned"} before layer ${gone[0]}` : "stays to the end";
          });
        }""",
        [row, column],
    )
    return found


def test_pointing_at_a_cell_tells_its_fate_for_every_method(browser: Browser, gallery: Path) -> None:
    with watched(browser, gallery) as opened:
        page = opened.page
        frame = page.locator(".frame").nth(3)
        frame.scroll_into_view_if_needed()
        box = frame.bounding_box()
        assert box
        for row, column in ((0, 0), (23, 23), (9, 14)):
            x, y = ((n + 0.5) / 24 for n in (column, row))
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            assert page.locator("#gallery-pointed").inner_text() == f"row {row + 1}, column {column + 1}"
            assert tiles(page, ".cell") == fates(page, row, column)
        page.mouse.move(1, 1)
        assert page.locator("#gallery-pointed").inner_text() == ""


def test_cells_are_reached_by_keyboard_and_told_aloud(browser: Browser, gallery: Path) -> None:
    with watched(browser, gallery) as opened:
        page = opened.page
        page.locator("#gallery-next").focus()
        page.locator(".frame").nth(3).focus()
        before = where(page)
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowRight")
        aloud = page.locator("#gallery-cell")
        assert aloud.inner_text() == f"grid@144, row 12, column 14: {fates(page, 11, 13)[3]}"
        assert where(page) == before
        page.keyboard.press("j")  # the next sample; the cell and the focus stay
        assert where(page) != before
        assert page.locator("#gallery-pointed").inner_text() == "row 12, column 14"
        assert tiles(page, ".cell") == fates(page, 11, 13)
        page.keyboard.press("Escape")
        assert page.locator("#gallery-pointed").inner_text() == ""


def test_touch_points_at_cells_too(browser: Browser, gallery: Path) -> None:
    with watched(browser, gallery, has_touch=True, is_mobile=True, viewport={"width": 360, "height": 740}) as opened:
        frame = opened.page.locator(".frame").first
        frame.scroll_into_view_if_needed()
        box = frame.bounding_box()
        assert box
        frame.tap(position={"x": box["width"] * 2.5 / 24, "y": box["height"] * 5.5 / 24})
        assert opened.page.locator("#gallery-pointed").inner_text() == "row 6, column 3"
