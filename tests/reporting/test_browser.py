"""The page in a real browser: quiet, offline, usable by keyboard, on paper and on a phone."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from browsing import watched
from playwright.sync_api import Browser, Download, Page, expect
from synthetic import METHODS, FakeMethod, plain_picture, write_run

from atp_eval.reporting import build_report
from atp_eval.reporting.contents import SECTIONS

METHODS_SHOWN = METHODS | {"schedule:layers=1-4,keep=200-60": FakeMethod(0.8, [(1, (180, 220)), (4, 60)], merged=7)}

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
  // In a figure: the last shape drawn before the text that its middle lies on, if it is one of a colour of its own.
  const drawn = (text) => {
    const box = text.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
    const under = [...text.closest("svg").querySelectorAll("path, rect, use")].filter((shape) => {
      const r = shape.getBoundingClientRect();
      const before = shape.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING;
      return before && !shape.closest("defs, symbol") && r.x <= x && x <= r.right && r.y <= y && y <= r.bottom;
    });
    const fills = under.map((shape) => getComputedStyle(shape)).filter((style) => style.fill !== "none");
    const solid = fills.filter((style) => Number(style.fillOpacity) * Number(style.opacity) === 1).at(-1);
    return solid && rgb(solid.fill);
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("script, style, title, [hidden]")) continue;
    const style = getComputedStyle(element);
    const color = element.closest("svg") ? style.fill : style.color;
    const back = (element.closest("svg") && drawn(element)) || behind(element);
    const [a, b] = [light(rgb(color)), light(back)].sort((x, y) => y - x);
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
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    run = write_run(
        folder / "run", methods=METHODS_SHOWN, benchmarks=("gqa", "mmb", "mme", "pope"), pictures=plain_picture
    )
    return build_report([run], folder / "report.html", figures=False)


def counts(page: Page) -> list[str]:
    """The tokens named under the open sample's pictures."""
    return page.locator("#gallery-tiles .count").all_inner_texts()


def test_the_page_is_quiet_and_asks_for_nothing_else(browser: Browser, report: Path) -> None:
    with watched(browser, report) as seen:
        seen.page.wait_for_load_state("networkidle")
        assert seen.noise == [] and seen.violations() == []
        assert [r for r in seen.requests if not r.startswith("data:")] == [report.as_uri()]
        assert seen.page.locator("#gallery-rows .row").count() > 3


def test_layers_are_walked_by_keyboard(browser: Browser, report: Path) -> None:
    with watched(browser, report) as seen:
        page = seen.page
        said = page.locator("#gallery-layer-said")
        assert counts(page) == ["576 tokens", "1 token", "1 token", "144 tokens", "60 tokens, 7 of them merged"]
        page.focus("#gallery-layer")
        page.keyboard.press("Home")
        assert said.inner_text() == "entering layer 0, a prune point"
        assert counts(page) == ["576 tokens", "576 tokens", "576 tokens", "144 tokens", "576 tokens"]
        for _ in range(2):
            page.keyboard.press("ArrowRight")
        assert said.inner_text() == "entering layer 2, a prune point"
        assert counts(page)[:4] == ["576 tokens", "1 token", "1 token", "144 tokens"]
        page.focus("#gallery-forth")
        page.keyboard.press("Enter")
        assert said.inner_text() == "entering layer 4, a prune point"
        for _ in range(3):
            page.keyboard.press("Enter")
        assert said.inner_text() == "entering layer 7"
        page.focus("#gallery-back")
        page.keyboard.press("Space")
        assert said.inner_text() == "entering layer 4, a prune point"


def test_everything_usable_is_reached_by_tab_and_shows_its_focus(browser: Browser, report: Path) -> None:
    with watched(browser, report) as seen:
        reached = []
        for _ in range(150):
            seen.page.keyboard.press("Tab")
            reached.append(seen.page.evaluate("document.activeElement.id || document.activeElement.className"))
            outline = seen.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none" or reached[-1] == ""
        assert reached[0] == "skip"
        assert {"theme", "scroll", "sort", "gallery-q", "gallery-rows", "gallery-layer", "gallery-forth"} <= set(
            reached
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_themes_and_all_has_a_name(browser: Browser, report: Path, scheme: Any) -> None:
    with watched(browser, report, color_scheme=scheme, bypass_csp=True) as seen:
        assert seen.page.evaluate(CONTRAST) == []
        assert seen.page.evaluate(NAMELESS) == []


def test_the_theme_can_be_chosen_and_is_remembered(browser: Browser, report: Path) -> None:
    with watched(browser, report, color_scheme="light") as seen:
        paper = "getComputedStyle(document.body).backgroundColor"
        light = seen.page.evaluate(paper)
        button = seen.page.locator("#theme")
        button.press("Enter")
        assert (button.inner_text(), seen.page.evaluate(paper)) == ("Theme: light", light)
        button.press("Enter")
        assert button.inner_text() == "Theme: dark"
        assert seen.page.evaluate(paper) != light
        seen.page.reload()
        assert button.inner_text() == "Theme: dark"


@pytest.mark.parametrize("width", [320, 400, 768, 1280])
def test_the_page_never_scrolls_sideways(browser: Browser, report: Path, width: int) -> None:
    with watched(browser, report, viewport={"width": width, "height": 800}) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


def column(page: Page, index: int) -> list[str]:
    """The first words of a column of the comparison table."""
    cells = page.locator(f"table.results >> nth=0 >> tbody tr > :nth-child({index})").all_inner_texts()
    return [cell.strip().split("\n")[0] for cell in cells]


def test_the_table_is_sorted_by_every_column_and_back(browser: Browser, report: Path) -> None:
    with watched(browser, report) as seen:
        page = seen.page
        given = column(page, 1)
        heads = page.locator("table.results >> nth=0 >> thead th")
        assert heads.locator("button").count() == heads.count() == 3 + 4
        for index in range(2, heads.count() + 1):
            head, button = heads.nth(index - 1), heads.nth(index - 1).locator("button")
            values = [float(cell.split(" ")[0].rstrip("↓↑").replace(",", "")) for cell in column(page, index)]
            button.press("Enter")
            assert head.get_attribute("aria-sort") == "descending"
            shown = [float(cell.split(" ")[0].rstrip("↓↑").replace(",", "")) for cell in column(page, index)]
            assert shown == sorted(values, reverse=True) and len(set(values)) > 1
            button.press("Space")
            assert head.get_attribute("aria-sort") == "ascending"
            assert column(page, 1)[0] != column(page, 1)[-1] and page.locator("[aria-sort]").count() == 1
            button.press("Enter")
            assert head.get_attribute("aria-sort") is None and column(page, 1) == given
        heads.nth(0).locator("button").click()
        assert heads.nth(0).get_attribute("aria-sort") == "ascending" and column(page, 1) == sorted(given)
        heads.nth(3).locator("button").click()
        assert heads.nth(0).get_attribute("aria-sort") is None  # one column at a time
        assert "Sorted by" in page.locator("#results-caption ~ *, table.results caption .unseen").first.inner_text()


def test_the_section_being_read_is_marked_and_the_navigation_stays(browser: Browser, report: Path) -> None:
    with watched(browser, report, viewport={"width": 1280, "height": 800}, reduced_motion="reduce") as seen:
        page = seen.page
        assert page.locator("#sections [aria-current]").count() == 0
        for name in ("Results", "Heat map", "Claims", "Data issues"):
            page.locator("#sections a", has_text=name).click()
            expect(page.locator("#sections [aria-current]")).to_have_text(name)
            box = page.locator("#sections").bounding_box()
            assert box and 0 <= box["y"] < 5
            heading = page.locator(page.evaluate("location.hash")).bounding_box()
            assert heading and heading["y"] >= box["height"]  # not behind the navigation
        assert page.evaluate("document.querySelector('#sections').scrollWidth <= innerWidth")


def test_every_section_is_in_the_navigation(browser: Browser, report: Path) -> None:
    with watched(browser, report) as seen:
        shown = seen.page.locator("#sections a").evaluate_all("(links) => links.map((a) => a.hash.slice(1))")
        assert shown == [section.id for section in SECTIONS if section.id != "adaptive"] or "adaptive" in shown
        assert seen.page.locator("main > section").count() == len(shown) + 1  # and the verdict


def saved(download: Download) -> str:
    return Path(download.path()).read_text(encoding="utf-8")


def test_tables_and_data_are_saved_out_of_the_page(browser: Browser, report: Path) -> None:
    with watched(browser, report) as seen:
        for title, name, begin in (
            ("CSV", "comparison.csv", "method,benchmark,"),
            ("Markdown", "comparison.md", "| method |"),
            ("LaTeX", "comparison.tex", "% Written by atp-eval"),
        ):
            with seen.page.expect_download() as info:
                seen.page.locator("p.files a", has_text=title).first.click()
            assert info.value.suggested_filename == name
            assert saved(info.value).startswith(begin)
            assert saved(info.value) == (report.parent / f"{report.stem}_tables" / name).read_text(encoding="utf-8")
        links = seen.page.locator("figcaption .files a")
        assert links.count() == seen.page.locator("figcaption").count() - 1  # but for the overlaps, which are a table
        with seen.page.expect_download() as info:
            links.first.click()
        assert len(list(csv.DictReader(io.StringIO(saved(info.value))))) == len(METHODS_SHOWN)
        assert seen.noise == []


def test_a_folder_shows_its_pictures_and_links_to_files_that_are_there(browser: Browser, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", benchmarks=["gqa"], documents=8, pictures=plain_picture)
    page = build_report([run], tmp_path / "out")
    assert page == tmp_path / "out" / "index.html"
    with watched(browser, page) as seen:
        seen.page.wait_for_load_state("networkidle")
        assert seen.noise == [] and seen.violations() == []
        assert all(r.startswith(("data:", page.parent.as_uri())) for r in seen.requests)
        loaded = "(all) => all.every((i) => i.complete && i.naturalWidth > 0)"
        assert seen.page.locator("img").count() > 0 and seen.page.locator("img").evaluate_all(loaded)
        links = seen.page.locator("a[href]").evaluate_all("(all) => all.map((a) => a.getAttribute('href'))")
        files = [link for link in links if not link.startswith(("#", "data:"))]
        assert {Path(link).suffix for link in files} == {"", ".pdf", ".png"} and len(files) > 6
        assert all((page.parent / link).exists() for link in files)


def test_without_scripts_the_page_still_shows_the_end_of_pruning(browser: Browser, report: Path) -> None:
    with watched(browser, report, java_script_enabled=False) as seen:
        assert not seen.page.locator("#gallery-viewer").is_visible()
        assert seen.page.locator("button.sort").count() == 0
        shown = seen.page.locator("#gallery-few article").first.locator(".count").all_inner_texts()
        assert shown[1:] == ["1 token", "1 token", "144 tokens", "60 tokens, 7 of them merged"]


def test_on_paper_controls_go_and_the_text_is_dark(browser: Browser, report: Path) -> None:
    with watched(browser, report, color_scheme="dark") as seen:
        seen.page.emulate_media(media="print")
        assert not seen.page.locator("#gallery-filters").is_visible()
        assert not seen.page.locator("#sections").is_visible()
        assert seen.page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        assert seen.page.pdf(format="A4").startswith(b"%PDF")


def test_the_policy_stops_what_is_not_ours(browser: Browser, report: Path, tmp_path: Path) -> None:
    text = report.read_text(encoding="utf-8")
    bad = tmp_path / "bad.html"
    bad.write_text(text.replace("</main>", "<script>window.broken = 1</script></main>"), encoding="utf-8")
    with watched(browser, bad) as seen:
        assert seen.page.evaluate("window.broken") is None
        assert any("Content Security Policy" in line for line in seen.noise)
        assert seen.violations() == ["script-src-elem inline"]
