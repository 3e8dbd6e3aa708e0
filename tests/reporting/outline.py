"""What a page is made of."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from atp_eval.records import Run
from atp_eval.reporting import build_report, gallery

SCRIPTS = 2 + len(gallery.SCRIPTS) + 2  # theme.js, report.js, the gallery's; two hold JSON
VOID = {"meta", "link", "input", "wbr", "br", "img"}
PICTURES = ("data:image/webp;base64,", "data:image/png;base64,")  # samples', and colour maps of figures
FILES = tuple(f"data:{kind};charset=utf-8;base64," for kind in ("text/csv", "text/markdown", "application/x-tex"))
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<svg onload=alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "' onmouseover='alert(1)",
    "<!-- ]]> --><style>*{display:none}</style>",
    "\u202egnp.exe",
    "مرحبا بالعالم",
    "\x00\x01\x1b[31m",
    "a" * 5000,
    "&lt;b&gt;&amp;",
    "\U0001f9a9" * 30,
]


class Outline(HTMLParser):
    """The elements of a page in order, with attributes and text; fails on tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.sections: list[str] = []
        self.parts: Counter[tuple[str, str]] = Counter()  # how many elements of a kind are in a section
        self.feed(html)
        self.close()
        assert not self.open, f"unclosed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.sections.append(dict(attrs).get("aria-labelledby") or "")
        if self.sections:
            self.parts[self.sections[-1], tag] += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if self.sections:
            self.parts[self.sections[-1], tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"
        if tag == "section":
            self.sections.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style"}:
            self.text.append(data)

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]


def embedded(page: str, name: str) -> Any:
    """The JSON that lies in the page under a name."""
    found = re.search(f'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def build(run: Run, tmp_path: Path, **options: bool) -> str:
    page = build_report([run], tmp_path / "report.html", figures=False, **options)
    return page.read_text(encoding="utf-8")
