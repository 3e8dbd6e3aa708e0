"""The voting page, opened in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page
from synthetic import FakeMethod

from atp_eval.annotation.votes import Votes, read_votes

A, B = "upper_bound", "fastv@144"
METHODS = {A: FakeMethod(0.9), B: FakeMethod(0.4, [(2, 1)])}


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
