"""The gallery in a real browser: filters, deep links, hostile texts, other media."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import watched
from playwright.sync_api import Browser, expect
from reporting.galleries import run_with_pictures, settled, tiles, where
from synthetic import METHODS, Texts, plain_picture, write_run

from atp_eval.records import Run
from atp_eval.reporting.gallery_page import build_gallery

HOSTILE = "</script><script>window.broken=1</script><img src=x onerror='window.broken=1'>\u202e\x00" + "w" * 300
HASHES = [
    "#sample=gqa/9999",
    "#sample=__proto__&layer=constructor",
    "#sample=%E0%A4%A&q=%",
    "#sample=" + "a" * 50_000,
    "#layer=99999999999999999999&tokens=-&show=:::",
    "#show=lost:<img src=x onerror='window.broken=1'>&q=<script>window.broken=1</script>",
    "#method=nobody&method=&benchmark=javascript:alert(1)",
    "#tokens=1-2-3&show=toString",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_with_pictures(tmp_path_factory.mktemp("gallery") / "run")


@pytest.fixture(scope="module")
def gallery(run: Run) -> Path:
    return build_gallery([run], run.path / "gallery.html", count=90).page


def test_the_page_is_quiet_and_asks_for_nothing_else(browser: Browser, gallery: Path) -> None:
    with watched(browser, gallery) as opened:
        opened.page.wait_for_load_state("networkidle")
        for _ in range(30):
            opened.page.keyboard.press("j")
        settled(opened.page, "sample=")
        assert opened.noise == []
        assert [r for r in opened.requests if not r.startswith("data:")] == [gallery.as_uri()]


def test_pictures_beside_the_page_are_shown(browser: Browser, run: Run, tmp_path: Path) -> None:
    page = build_gallery([run], tmp_path / "g.html", count=12, largest=0).page
    with watched(browser, page) as opened:
        opened.page.wait_for_load_state("networkidle")
        assert opened.noise == []
        assert all(r.startswith(tmp_path.as_uri()) for r in opened.requests)
        assert opened.page.locator("img.thumb").first.evaluate("(i) => i.complete && i.naturalWidth > 0")


def test_only_visible_rows_are_drawn(browser: Browser, gallery: Path) -> None:
    with watched(browser, gallery, viewport={"width": 1280, "height": 700}) as opened:
        page = opened.page
        assert page.locator("#gallery-found").inner_text() == "90 of 90 samples"
        assert 5 < page.locator(".row").count() < 25
        page.locator("#gallery-rows").evaluate("(e) => { e.scrollTop = e.scrollHeight; }")
        expect(page.locator("[aria-posinset='90']")).to_be_visible()
        assert page.locator(".row").count() < 25
        page.locator("[aria-posinset='90']").click()
        assert where(page).endswith("90 of 90")
        assert page.locator("[aria-selected='true']").get_attribute("aria-posinset") == "90"


def test_filters_leave_what_they_say(browser: Browser, run: Run, gallery: Path) -> None:
    rows = run.samples()
    with watched(browser, gallery) as opened:
        page = opened.page
        data = page.evaluate("JSON.parse(document.getElementById('gallery-data').textContent)")
        score = {(r.method, f"{r.benchmark}/{r.doc_id}"): r.score for r in rows.itertuples()}
        lost = [s["id"] for s in data["samples"] if score["fastv@144", s["id"]] < score["upper_bound", s["id"]]]
        assert 0 < len(lost) < 90
        page.select_option("#gallery-kind", "lost")
        page.select_option("#gallery-by", "fastv@144")
        assert page.locator("#gallery-found").inner_text() == f"{len(lost)} of 90 samples"
        assert where(page).startswith(lost[0].replace("/", " "))
        assert "▼ lost" in tiles(page, "li")[1]
        settled(page, r"show=lost:fastv@144$")
        page.select_option("#gallery-benchmark", "mme")
        mme = [i for i in lost if i.startswith("mme")]
        assert page.locator("#gallery-found").inner_text().startswith(f"{len(mme)} of 90")
        page.click("button[type=reset]")
        expect(page.locator("#gallery-found")).to_have_text("90 of 90 samples")
        page.fill("#gallery-q", "THING 7 of")
        found = [s for s in data["samples"] if "thing" in s["question"] and "7" in s["question"]]
        assert page.locator("#gallery-found").inner_text().startswith(f"{len(found)} of 90")
        page.fill("#gallery-q", "there is no such text")
        expect(page.locator("#gallery-found")).to_have_text("No sample matches. Clear a filter.")
        page.fill("#gallery-q", "")
        page.select_option("#gallery-kind", "random")
        assert (
            page.locator("#gallery-found").inner_text() == f"{sum(s['random'] for s in data['samples'])} of 90 samples"
        )


def test_tokens_are_filtered_by_averages_of_pruned_methods(browser: Browser, gallery: Path) -> None:
    with watched(browser, gallery) as opened:
        page = opened.page
        tokens = page.evaluate(
            "JSON.parse(document.getElementById('gallery-data').textContent).samples.map((s) => s.answers[4].tokens)"
        )
        page.select_option("#gallery-by", "schedule:layers=1-4,keep=200-60")
        middle = sorted(tokens)[45]
        page.fill("#gallery-least", str(int(middle)))
        assert page.locator("#gallery-found").inner_text() == f"{sum(t >= int(middle) for t in tokens)} of 90 samples"
        page.select_option("#gallery-by", "")
        page.fill("#gallery-least", "500")  # only the upper bound has so many, and it is not meant
        assert page.locator("#gallery-found").inner_text() == "No sample matches. Clear a filter."


def test_an_address_opens_the_same_view_again(browser: Browser, gallery: Path) -> None:
    with watched(browser, gallery) as opened:
        page = opened.page
        page.select_option("#gallery-kind", "differ")
        page.keyboard.press("Escape")
        page.locator("#gallery-next").click()
        page.locator("#gallery-back").click()
        page.locator("#gallery-chooser summary").click()
        page.locator("#gallery-methods input").nth(2).uncheck()
        settled(page, "layer=4.*show=differ.*method=upper_bound.*method=schedule:layers%3D1-4,keep%3D200-60")
        told, counts, address = where(page), tiles(page, ".count"), page.url
    with watched(browser, gallery, address.partition("#")[1] + address.partition("#")[2]) as again:
        assert where(again.page) == told
        assert tiles(again.page, ".count") == counts and len(counts) == 4
        assert again.page.locator("#gallery-kind").input_value() == "differ"
        assert again.page.locator("#gallery-layer").input_value() == "4"


def test_the_address_of_one_sample_is_short_and_back_goes_back(browser: Browser, gallery: Path) -> None:
    with watched(browser, gallery) as opened:
        page = opened.page
        first = where(page)
        page.keyboard.press("ArrowRight")
        second = where(page)
        settled(page, r"^#sample=gqa/\d+$")
        page.wait_for_timeout(200)
        page.keyboard.press("ArrowRight")
        page.wait_for_function("(old) => location.href !== old", arg=page.url)
        page.go_back()
        expect(page.locator("#gallery-where")).to_have_text(second)
        page.go_back()
        expect(page.locator("#gallery-where")).to_have_text(first)
        assert len({first, second}) == 2


@pytest.mark.parametrize("hash", HASHES, ids=lambda text: text[:24])
def test_hostile_addresses_break_nothing(browser: Browser, gallery: Path, hash: str) -> None:
    with watched(browser, gallery, hash, viewport={"width": 400, "height": 800}) as opened:
        page = opened.page
        assert opened.noise == []
        assert page.evaluate("window.broken") is None
        assert page.locator("#gallery-viewer").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        assert len(where(page)) < 200


def test_an_unknown_sample_is_said(browser: Browser, gallery: Path) -> None:
    with watched(browser, gallery, "#sample=gqa/9999") as opened:
        assert where(opened.page).startswith("There is no sample gqa/9999 here. gqa ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing_and_nothing_scrolls_sideways(
    browser: Browser, gallery: Path, scheme: Any, width: int
) -> None:
    size = {"width": width, "height": 800}
    with watched(browser, gallery, color_scheme=scheme, viewport=size, bypass_csp=True) as opened:
        opened.page.locator("#gallery-chooser summary").click()
        opened.page.locator(".frame").nth(1).focus()
        found = Axe().run(opened.page)
        assert found.violations_count == 0, found.generate_report()
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_a_few_samples_are_there(browser: Browser, gallery: Path) -> None:
    with watched(browser, gallery, java_script_enabled=False) as opened:
        page = opened.page
        assert page.locator("#gallery-few article").count() == 3
        assert page.locator("#gallery-few article").first.is_visible()
        assert page.locator("noscript p").is_visible()
        assert not page.locator("#gallery-viewer").is_visible()


def test_on_paper_the_open_sample_and_the_few_are_there(browser: Browser, gallery: Path) -> None:
    with watched(browser, gallery, color_scheme="dark") as opened:
        page = opened.page
        assert not page.locator("#gallery-few").is_visible()
        page.emulate_media(media="print")
        assert page.locator("#gallery-open").is_visible() and page.locator("#gallery-few").is_visible()
        assert page.locator("#gallery-layer-said").is_visible()
        for gone in ("#gallery-filters", "#gallery-rows", "#gallery-layer", "#gallery-next"):
            assert not page.locator(gone).is_visible()
        assert page.pdf(format="A4").startswith(b"%PDF")


def test_hostile_texts_run_nothing_and_keep_the_layout(browser: Browser, tmp_path: Path) -> None:
    dice = random.Random(5)
    texts = Texts(lambda benchmark, i: f"{i} {HOSTILE}", right=HOSTILE, wrong="javascript:" + "\ud800" + HOSTILE)
    safe = Texts(texts.question, texts.right, texts.wrong.encode("utf-8", "replace").decode())
    run = write_run(tmp_path / "run", texts=safe, pictures=plain_picture, documents=8)
    page = build_gallery([run], tmp_path / "g.html").page
    with watched(browser, page, viewport={"width": 400, "height": 800}) as opened:
        for _ in range(6):
            opened.page.keyboard.press(dice.choice("jk"))
        opened.page.locator(".more").first.click()
        opened.page.fill("#gallery-q", "</script>")
        assert opened.noise == []
        assert opened.page.evaluate("window.broken") is None
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400
        assert "<script>" in opened.page.locator("#gallery-question").inner_text()
        assert "⟨U+202E⟩⟨U+0000⟩" in opened.page.locator("#gallery-question").inner_text()
        assert [r for r in opened.requests if not r.startswith("data:")] == [page.as_uri()]
        settled(opened.page, "q=%3C")


def test_many_methods_show_eight_until_more_are_chosen(browser: Browser, tmp_path: Path) -> None:
    methods = METHODS | {f"random@144:seed={i}": METHODS["random@144"] for i in range(13)}
    run = write_run(tmp_path / "run", methods=methods, benchmarks=["gqa"], documents=10)
    with watched(browser, build_gallery([run], tmp_path / "g.html").page) as opened:
        page = opened.page
        assert page.locator(".tile:visible").count() == 8
        assert page.locator("#gallery-chooser summary").inner_text() == "Methods side by side: 8 of 17"
        page.locator("#gallery-chooser summary").click()
        page.click("#gallery-all")
        assert page.locator("#gallery-tiles .tile").count() == 17
        page.click("#gallery-none")
        assert tiles(page, ".who") == ["upper_bound"]
        assert page.locator("rect.blank").first.is_visible()
