"""The kinds of tables and figures that a sweep can be: `figure` in its file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from rich.console import RenderableType

from atp_eval.plotting import Chart
from atp_eval.sweep import figure, layer_figure, layer_words, layers, table, words


class Shown(Protocol):
    """A sweep's figures."""

    def to_json(self) -> dict[str, Any]:
        """All of them, JSON-ready."""


class Kind(NamedTuple):
    """How answers become a table, and the table a document, a terminal's text and a figure."""

    make: Callable[..., Any]
    to_markdown: Callable[[Any], str]
    to_rich: Callable[[Any], RenderableType]
    chart: Callable[[Any, str], Chart]


KINDS = {
    "budgets": Kind(table.make_table, words.to_markdown, words.to_rich, figure.chart),
    "layers": Kind(layers.make_layer_table, layer_words.to_markdown, layer_words.to_rich, layer_figure.chart),
}
