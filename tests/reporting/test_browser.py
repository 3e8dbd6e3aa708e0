"""The page in a real browser: quiet, offline, usable by keyboard, on paper and on a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from synthetic import METHODS, FakeMethod, Texts, plain_picture, write_run

from atp_eval.reporting import build_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
]
METHODS_SHOWN = METHODS | {"schedule:layers=1-4,keep=200-60": FakeMethod(0.8, [(1, (180, 220)), (4, 60)], merged=7)}
HOSTILE = "</script><script>window.broken=1</script><img src=x onerror='window.broken=1'>\u202e\x00" + "w" * 300

# Contrast of every text with what lies behind it, by WCAG 2's formula, in the page as it is drawn.
CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = rgb(getComputedStyle(e).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("script, style, title, [hidden]")) continue;
    const style = getComputedStyle(element);
    const color = element.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(rgb(color)), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${walker.currentNode.data.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}
"""
NAMELESS = """
() => [...document.querySelectorAll("button, input, a, svg[role=img], [role=region], table, article, section")]
  .filter((e) => {
    const ids = (e.getAttribute("aria-labelledby") ?? "").split(" ").filter(Boolean);
    const named = ids.map((id) => document.getElementById(id)?.textContent ?? "").join("");
    const own = e.matches("button, a") ? e.textContent : "";
    const other = e.caption?.textContent ?? e.labels?.[0]?.textContent ?? "";
    return !`${e.getAttribute("aria-label") ?? ""}${named}${own}${other}`.trim();
  })
  .map((e) => e.outerHTML.slice(0, 80))
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.fail("these tests need a browser: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    run = write_run(
        folder / "run", methods=METHODS_SHOWN, benchmarks=("gqa", "mmb", "mme", "pope"), pictures=plain_picture
    )
    return build_report([run], folder / "report.html", figures=False)


class Opened:
    """A page with everything that it complained about or asked for."""

    def __init__(self, browser: Browser, report: Path, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.noise: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.noise.append(message.text))
        self.page.on("pageerror", lambda error: self.noise.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *error: object) -> None:
        self.context.close()


def counts(page: Page) -> list[str]:
    """The tokens named under the first sample's pictures."""
    return page.locator("article").first.locator(".count").all_inner_texts()


def test_the_page_is_quiet_and_asks_for_nothing_else(browser: Browser, report: Path) -> None:
    with Opened(browser, report) as opened:
        opened.page.wait_for_load_state("networkidle")
        assert opened.noise == []
        assert [r for r in opened.requests if not r.startswith("data:")] == [report.as_uri()]
        assert opened.page.locator("symbol image").count() == 8


def test_layers_are_walked_by_keyboard(browser: Browser, report: Path) -> None:
    with Opened(browser, report) as opened:
        page = opened.page
        said = page.locator("#layer-said")
        assert counts(page) == ["576 tokens", "1 token", "1 token", "144 tokens", "60 tokens, 7 of them merged"]
        page.focus("#layer")
        page.keyboard.press("Home")
        assert said.inner_text() == "entering layer 0, a prune point"
        assert counts(page) == ["576 tokens", "576 tokens", "576 tokens", "144 tokens", "576 tokens"]
        assert page.locator("article").first.locator(".veil:visible").count() == 1
        for _ in range(2):
            page.keyboard.press("ArrowRight")
        assert said.inner_text() == "entering layer 2, a prune point"
        assert counts(page)[:4] == ["576 tokens", "1 token", "1 token", "144 tokens"]
        page.focus("#forth")
        page.keyboard.press("Enter")
        assert said.inner_text() == "entering layer 4, a prune point"
        for _ in range(3):
            page.keyboard.press("Enter")
        assert said.inner_text() == "entering layer 7"
        page.focus("#back")
        page.keyboard.press("Space")
        assert said.inner_text() == "entering layer 4, a prune point"


def test_everything_usable_is_reached_by_tab_and_shows_its_focus(browser: Browser, report: Path) -> None:
    with Opened(browser, report) as opened:
        reached = []
        for _ in range(40):
            opened.page.keyboard.press("Tab")
            reached.append(opened.page.evaluate("document.activeElement.id || document.activeElement.className"))
            outline = opened.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none" or reached[-1] == ""
        assert reached[0] == "skip"
        assert {"theme", "back", "layer", "forth", "scroll"} <= set(reached)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_themes_and_all_has_a_name(browser: Browser, report: Path, scheme: Any) -> None:
    with Opened(browser, report, color_scheme=scheme, bypass_csp=True) as opened:
        assert opened.page.evaluate(CONTRAST) == []
        assert opened.page.evaluate(NAMELESS) == []


def test_the_theme_can_be_chosen_and_is_remembered(browser: Browser, report: Path) -> None:
    with Opened(browser, report, color_scheme="light") as opened:
        paper = "getComputedStyle(document.body).backgroundColor"
        light = opened.page.evaluate(paper)
        button = opened.page.locator("#theme")
        button.press("Enter")
        assert (button.inner_text(), opened.page.evaluate(paper)) == ("Theme: light", light)
        button.press("Enter")
        assert button.inner_text() == "Theme: dark"
        assert opened.page.evaluate(paper) != light
        opened.page.reload()
        assert button.inner_text() == "Theme: dark"


@pytest.mark.parametrize("width", [320, 400, 768, 1280])
def test_the_page_never_scrolls_sideways(browser: Browser, report: Path, width: int) -> None:
    with Opened(browser, report, viewport={"width": width, "height": 800}) as opened:
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_the_page_still_shows_the_end_of_pruning(browser: Browser, report: Path) -> None:
    with Opened(browser, report, java_script_enabled=False) as opened:
        assert not opened.page.locator("#control").is_visible()
        assert counts(opened.page)[1:] == ["1 token", "1 token", "144 tokens", "60 tokens, 7 of them merged"]


def test_on_paper_controls_go_and_the_text_is_dark(browser: Browser, report: Path) -> None:
    with Opened(browser, report, color_scheme="dark") as opened:
        opened.page.emulate_media(media="print")
        assert not opened.page.locator("#control").is_visible()
        assert not opened.page.locator("nav").is_visible()
        assert opened.page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        assert opened.page.pdf(format="A4").startswith(b"%PDF")


def test_hostile_text_runs_nothing_and_keeps_the_layout(browser: Browser, tmp_path: Path) -> None:
    texts = Texts(lambda benchmark, i: HOSTILE, right=HOSTILE, wrong="javascript:" + HOSTILE)
    run = write_run(tmp_path / "run", texts=texts, pictures=plain_picture, documents=8)
    page = build_report([run], tmp_path / "report.html", figures=False)
    with Opened(browser, page, viewport={"width": 400, "height": 800}) as opened:
        assert opened.noise == []
        assert opened.page.evaluate("window.broken") is None
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400
        assert "<script>" in opened.page.locator("article h3").first.inner_text()


def test_the_policy_stops_what_is_not_ours(browser: Browser, report: Path, tmp_path: Path) -> None:
    text = report.read_text(encoding="utf-8")
    bad = tmp_path / "bad.html"
    bad.write_text(text.replace("</main>", "<script>window.broken = 1</script></main>"), encoding="utf-8")
    with Opened(browser, bad) as opened:
        assert opened.page.evaluate("window.broken") is None
        assert any("Content Security Policy" in line for line in opened.noise)
