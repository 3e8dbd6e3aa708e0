"""A page out of a template: Jinja2 with autoescape, styles and scripts inline under a policy that allows only them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import atp_eval
from atp_eval.paths import data_folder
from atp_eval.reporting.inline import inline
from atp_eval.reporting.svg import breakable, clean, swatch
from atp_eval.reporting.words import FILTERS
from atp_eval.spreadsheet import csv_text

BASE_STYLES, BASE_SCRIPTS = ("base.css",), ("theme.js",)


def render_page(
    template: str,
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    filters: dict[str, Callable[..., Any]] | None = None,
    files_beside: bool = False,
    **context: Any,
) -> str:
    """The HTML of a template of `reports/` that extends `base.html.j2`.

    styles, scripts: files of `reports/` that the page needs besides the base's. files_beside: whether pictures lie in
    files beside the page, instead of in it. Lone surrogates of the context become question marks.
    """
    folder = data_folder("reports")
    styled = [read_inline(folder / name) for name in (*BASE_STYLES, *styles)]
    scripted = [read_inline(folder / name) for name in (*BASE_SCRIPTS, *scripts)]
    found = environment(folder)
    found.filters |= filters or {}
    page = found.get_template(template).render(
        styles=styled, scripts=scripted, policy=policy(styled, scripted, files_beside),
        files_beside=files_beside, version=atp_eval.__version__, **context,
    )  # fmt: skip
    return page.encode("utf-8", "replace").decode("utf-8")


def environment(folder: Path) -> Environment:
    """Jinja2 that fails on unknown names, escapes everything and cleans every text that it prints."""
    found = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda v: clean(v) if isinstance(v, str) and not isinstance(v, Markup) else v,
    )
    found.filters |= {**FILTERS, "breakable": breakable, "swatch": swatch, "embedded": embedded}
    found.filters |= {"inline": inline, "csv_address": csv_address, "figure_files": lambda chart: ()}
    return found


def policy(styles: Sequence[str], scripts: Sequence[str], files_beside: bool) -> Markup:
    """The Content-Security-Policy: nothing is loaded but pictures of the page's own, nothing runs but these scripts."""
    images = "data: 'self'" if files_beside else "data:"
    sources = [" ".join(map(content_hash, texts)) or "'none'" for texts in (styles, scripts)]
    return Markup(
        f"default-src 'none'; img-src {images}; style-src {sources[0]}; script-src {sources[1]}; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def read_inline(path: Path) -> Markup:
    """A style or script to put into the page as it is."""
    text = path.read_text(encoding="utf-8")
    if "</" in text:
        raise ValueError(f"{path} holds '</', which would end its element")
    return Markup(text)


def content_hash(text: str) -> str:
    """The source expression that lets a Content-Security-Policy allow exactly this text."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def csv_address(table: pd.DataFrame) -> Markup:
    """A table as the address of a CSV file that lies in the page."""
    return file_address("text/csv", csv_text(table))


def file_address(kind: str, text: str) -> Markup:
    """A text file that lies in the page, as an address. kind: its media type."""
    data = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
    return Markup(f"data:{kind};charset=utf-8;base64,{data}")


def embedded(data: Any) -> Markup:
    """JSON for a `<script type="application/json">` element: no text of it can end the element or begin another.

    Texts are cleaned as everywhere on a page, and cut where they are too long.
    """
    text = json.dumps(cleaned(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def cleaned(data: Any) -> Any:
    """The same with every text made safe to show; Markup (addresses of pictures, paths) stays."""
    if isinstance(data, Markup):
        return str(data)
    if isinstance(data, str):
        return clean(data)
    if isinstance(data, dict):
        return {clean(str(key)): cleaned(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [cleaned(value) for value in data]
    return data
