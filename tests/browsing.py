"""Debian's Chromium for tests, and a page in it that is watched: what it says, asks for and refuses."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
]
LISTEN = """window.__violations = []; addEventListener("securitypolicyviolation",
  (e) => window.__violations.push(`${e.violatedDirective} ${e.blockedURI}`), true);"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.fail("these tests need a browser: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield launched
        launched.close()


class Seen:
    """A page with everything that it complained about or asked for; whatever is not a file on this disk is refused."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.noise: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.page.add_init_script(LISTEN)
        self.page.on("console", lambda message: self.noise.append(message.text))
        self.page.on("pageerror", lambda error: self.noise.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.page.route(lambda url: not url.startswith(("file:", "data:")), lambda route: route.abort())

    def violations(self) -> list[str]:
        """What the page's policy refused."""
        found: list[str] = self.page.evaluate("window.__violations")
        return found


@contextmanager
def watched(browser: Browser, page: Path, hash: str = "", **options: Any) -> Iterator[Seen]:
    """A page opened from its file. hash: of its address. options: of the browser's context."""
    context = browser.new_context(**options)
    seen = Seen(context)
    seen.page.goto(page.as_uri() + hash)
    try:
        yield seen
    finally:
        context.close()
