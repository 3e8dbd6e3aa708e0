"""axe-core over every page in both themes: no violation of WCAG 2.2 A and AA, nor of its best practices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import watched
from page_builders import BUILDERS
from playwright.sync_api import Browser
from synthetic import METHODS, FakeMethod, plain_picture, write_run

SHOWN = METHODS | {"atp@144": FakeMethod(0.8, [(1, (180, 220)), (4, 60)], merged=7, errors=0.1, invalid=0.1)}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("axe")
    run, other = (
        write_run(folder / name, methods=SHOWN, documents=40, pictures=plain_picture, seed=seed)
        for seed, name in enumerate(("run", "other"))
    )
    return {name: build(run, other, folder) for name, build in BUILDERS.items()}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", BUILDERS)
def test_axe_finds_nothing(name: str, scheme: Any, pages: dict[str, Path], browser: Browser) -> None:
    # The page's policy stops axe's script as any other: it is set aside for this test alone.
    with watched(browser, pages[name], color_scheme=scheme, bypass_csp=True, reduced_motion="reduce") as seen:
        for summary in seen.page.locator("summary").all():
            if summary.is_visible():
                summary.click()
        found = Axe().run(seen.page).response["violations"]
        assert [(v["id"], v["impact"], [n["html"][:160] for n in v["nodes"]][:3]) for v in found] == []
