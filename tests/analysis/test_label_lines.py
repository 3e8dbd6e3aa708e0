"""Labels over several lines."""

from __future__ import annotations

import pytest

from atp_eval.analysis.label_lines import label_lines


@pytest.mark.parametrize(
    ("label", "width", "lines"),
    [
        ("grid@144:layer=0", 20, ["grid@144:layer=0"]),
        ("grid@144:layer=0", 11, ["grid@144:", "layer=0"]),
        ("pyramiddrop@144", 11, ["pyramiddrop", "@144"]),
        ("prumerge_plus@144", 11, ["prumerge_", "plus@144"]),
        ("cdpruner@144:relevance=llm", 13, ["cdpruner@144:", "relevance=llm"]),
        ("a@9:layers=1-3,keep=288-144", 12, ["a@9:", "layers=1-3,", "keep=288-144"]),
        ("relevance=category", 12, ["relevance=", "category"]),
        ("withoutanyplacetobreak", 5, ["withoutanyplacetobreak"]),
        ("", 5, [""]),
    ],
)
def test_lines_break_between_parts_only(label: str, width: int, lines: list[str]) -> None:
    assert label_lines(label, width) == lines
    assert "".join(lines) == label
