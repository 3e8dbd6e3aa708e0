"""A gallery, and what it shows in a browser."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page
from synthetic import METHODS, FakeMethod, plain_picture, write_run

from atp_eval.records import Run

SHOWN = METHODS | {"schedule:layers=1-4,keep=200-60": FakeMethod(0.8, [(1, (180, 220)), (4, 60)], merged=7)}


def run_with_pictures(folder: Path) -> Run:
    """Three benchmarks, of which ten pictures each are kept."""
    return write_run(
        folder, methods=SHOWN, benchmarks=("gqa", "mmb", "mme"), pictures=plain_picture, keep_images=10, documents=40
    )


def where(page: Page) -> str:
    return page.locator("#gallery-where").inner_text()


def tiles(page: Page, part: str) -> list[str]:
    return page.locator(f"#gallery-tiles {part}").all_inner_texts()


def settled(page: Page, pattern: str) -> None:
    """Waits until the address, which is written a moment later, is like this."""
    page.wait_for_function("(p) => new RegExp(p).test(location.hash)", arg=pattern)
