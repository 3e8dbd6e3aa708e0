"""A cell lies where the pixels of its patch are: padded or cropped, in the page and in Figure 4."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from browsing import watched
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser
from synthetic import METHODS, SIDE, write_run

from atp_eval.analysis.overlays import named_samples
from atp_eval.models import tiny
from atp_eval.models.pictures import seen, squared
from atp_eval.plotting import DPI, write_chart
from atp_eval.records import Run
from atp_eval.reporting.figure4 import Layout, figure4, laid_out
from atp_eval.reporting.gallery_page import build_gallery

PIXELS = 336
PATCH = PIXELS // SIDE
KEPT = "grid@144"  # every fourth cell


class Seen(NamedTuple):
    """A run of one picture. tower: [24, 24, 3], the mean colour of each patch as the vision tower is given it."""

    run: Run
    tower: NDArray[np.float64]
    keep: NDArray[np.bool_]


def patchwork(width: int, height: int) -> Image.Image:
    """Blocks of 40 pixels in colours that are far apart, so that a shift by a cell is seen."""
    dice = np.random.default_rng(3)
    blocks = dice.choice([20, 120, 230], size=(height // 40, width // 40, 3)).astype(np.uint8)
    return Image.fromarray(blocks.repeat(40, 0).repeat(40, 1))


@pytest.fixture(scope="module", params=["pad", "crop"])
def shown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    mode: Any = request.param
    processor = tiny.processor(PIXELS).image_processor
    mean, std = (np.array(x) for x in (processor.image_mean, processor.image_std))
    picture = patchwork(960, 480)
    pixels = processor([squared(picture, mode, tuple(mean))], return_tensors="np")["pixel_values"][0]
    given = (pixels.transpose(1, 2, 0) * std + mean) * 255
    run = write_run(
        tmp_path_factory.mktemp(mode) / "run",
        methods={name: METHODS[name] for name in ("upper_bound", KEPT)},
        benchmarks=["gqa"],
        documents=1,
        pictures=lambda name: seen(picture, mode, tuple(mean), PIXELS),
        protocol={"image": mode},
    )
    trace = named_samples([run], [("gqa", 0)])[0].answers[1].trace
    assert trace is not None
    return Seen(run, given.reshape(SIDE, PATCH, SIDE, PATCH, 3).mean((1, 3)), trace.keep_at(7).reshape(SIDE, SIDE))


def cells(drawn: Image.Image) -> NDArray[np.float64]:
    """[24, 24, 3]: the colour in the middle of each cell of a drawn picture."""
    small = drawn.convert("RGB").resize((PIXELS, PIXELS), Image.Resampling.BILINEAR)
    inner = np.asarray(small, float).reshape(SIDE, PATCH, SIDE, PATCH, 3)[:, 3:-3, :, 3:-3]
    return inner.mean((1, 3))


def agree(drawn: NDArray[np.float64], expected: NDArray[np.float64]) -> bool:
    """Nearly all cells have the colour that is expected there; those on the edge of a block may mix."""
    near = np.abs(drawn - expected).max(-1) < 40
    return bool(near.mean() > 0.9)


def shifted(colours: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return [np.roll(colours, 2, axis) for axis in (0, 1)]


def test_cells_of_the_page_lie_on_their_patches(shown: Seen, browser: Browser, tmp_path: Path) -> None:
    page = build_gallery([shown.run], tmp_path / "g.html").page
    with watched(browser, page, viewport={"width": 1000, "height": 1200}) as opened:
        pictures = opened.page.locator(".frame svg")
        whole, pruned = (Image.open(io.BytesIO(pictures.nth(i).screenshot())) for i in (0, 1))
        veil = opened.page.evaluate("getComputedStyle(document.querySelector('#gallery-tiles .veil')).fill")
        assert veil == "rgba(192, 193, 190, 0.88)"
        box = pictures.nth(1).bounding_box()
        assert box
        for row, column in np.argwhere(shown.keep)[::20].tolist():
            x, y = (box[a] + (n + 0.5) / SIDE * box[b] for n, a, b in ((column, "x", "width"), (row, "y", "height")))
            opened.page.mouse.move(x, y)
            assert opened.page.locator("#gallery-pointed").inner_text() == f"row {row + 1}, column {column + 1}"
            assert opened.page.locator("#gallery-tiles .cell").nth(1).inner_text() == "stays to the end"
    check(shown, cells(whole), cells(pruned), lambda c: 0.12 * c + 0.88 * np.array([192, 193, 190]))


def test_cells_of_figure_4_lie_on_their_patches(shown: Seen, tmp_path: Path) -> None:
    samples = named_samples([shown.run], [("gqa", 0)])
    chart = figure4(samples, KEPT)
    write_chart(chart, tmp_path, ("png",))
    grid = layout_of(samples)
    (left, top), side = next(grid.places()), grid.side
    with Image.open(tmp_path / "figure4.png") as figure:
        panels = [
            figure.crop([round(DPI * x) for x in (start, top, start + side, top + side)])  # type: ignore[arg-type]
            for start in (left, left + side + 0.05)
        ]
    check(shown, cells(panels[0]), cells(panels[1]), lambda c: 0.18 * c + 0.82 * 255)


def layout_of(samples: Any) -> Layout:
    from atp_eval.reporting.figure4 import Row

    return laid_out([Row(s, s.answers[1]) for s in samples], 2)


def check(
    shown: Seen, whole: NDArray[np.float64], pruned: NDArray[np.float64], veiled: Callable[[Any], NDArray[np.float64]]
) -> None:
    expected = np.where(shown.keep[..., None], shown.tower, veiled(shown.tower))
    assert agree(whole, shown.tower)
    assert agree(pruned, expected)
    for wrong in shifted(shown.tower):  # the test would see a shift
        assert not agree(whole, wrong)
    for wrong in shifted(shown.keep[..., None].astype(float)):
        assert not agree(pruned, np.where(wrong > 0, shown.tower, veiled(shown.tower)))
