"""The charts of a page: each drawn once however often the page is rendered, and the files that go with them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from atp_eval.plotting import Chart, write_chart
from atp_eval.reporting.inline import inline

KINDS = ("pdf", "png")


class Link(NamedTuple):
    """To a file beside the page."""

    title: str
    address: Markup


class Exhibits:
    """What a page's templates draw and link to, collected while they do."""

    def __init__(self) -> None:
        self._drawn: dict[str, Markup] = {}
        self._charts: dict[str, Chart] = {}

    def inline(self, chart: Chart) -> Markup:
        """The chart as an element of the page."""
        if chart.name not in self._drawn:
            self._drawn[chart.name] = inline(chart)
        return self._drawn[chart.name]

    def files(self, chart: Chart, folder: str | None) -> list[Link]:
        """Where a chart's files will lie, seen from the page; none to be linked to where the page is one file."""
        self._charts[chart.name] = chart
        return [Link(kind.upper(), Markup(f"{folder}/{chart.name}.{kind}")) for kind in KINDS] if folder else []

    def write(self, folder: Path) -> list[Path]:
        """The files of all charts that `files` was asked about."""
        return [path for chart in self._charts.values() for path in write_chart(chart, folder, KINDS)]
