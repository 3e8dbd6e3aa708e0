"""The comparison page of some runs, as one file or as a folder, and the tables beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from atp_eval.analysis import Summary, protocol_differences, summarise, write_summary
from atp_eval.analysis.data_issues import issues_frame
from atp_eval.analysis.overlays import SHOWN
from atp_eval.analysis.reading import distinct
from atp_eval.errors import UserError
from atp_eval.records import MANIFEST, Run
from atp_eval.reporting import gallery
from atp_eval.reporting.contents import contents, model_name
from atp_eval.reporting.exhibits import Exhibits
from atp_eval.reporting.page import render_page
from atp_eval.writer import write_atomically

PAGE, INDEX, SUMMARY, ISSUES = "report.html", "index.html", "summary.json", "data_issues.csv"
IMAGES, FIGURES, TABLES = "images", "figures", "tables"
MAX_SIZE = 10_000_000  # bytes of a page that is one file
OURS = re.compile(r'<meta name="generator" content="atp-eval ')
PICTURE = re.compile(r"p[0-9a-f]{16}\.webp")
Say = Callable[[str], None]


def build_report(
    runs: Sequence[Run],
    output: Path | None = None,
    *,
    force: bool = False,
    summary: Summary | None = None,
    samples: int = SHOWN,
    max_size: int = MAX_SIZE,
    figures: bool = True,
    benches: Sequence[Path] = (),
    say: Say = lambda what: None,
) -> Path:
    """Write the page with its tables and figures; the page's path.

    output: a file NAME.html, or a folder, which gets index.html, images/, figures/, tables/ and summary.json;
    report.html in the first run where none is given. A file that would have more than `max_size` bytes becomes a folder
    NAME. Tables and figures of a file lie beside it (`tables_folder`). summary: `summarise(runs)`, where the caller has
    it already. samples: how many the gallery shows. figures: whether a file has PDF and PNG beside it, as a folder
    always has. benches: folders of `atp-eval bench` that are shown too, besides those in the runs. say: told what is
    being done.

    Raises UserError when the runs' protocols differ (unless forced), nothing is finished, or it cannot be written.
    """
    runs = distinct(runs)
    differences = refuse_mixed(runs, force)
    output = output or runs[0].path / PAGE
    say("Measuring")
    summary = summary or summarise(runs)
    say("Choosing samples and drawing figures")
    context = contents(runs, summary, differences, samples, benches)
    try:
        if not is_folder(output):
            text = render(context)
            if len(text.encode("utf-8")) <= max_size:
                return write_file(output, text, context, summary, figures, say)
            remove_own(output)
            output = output.with_suffix("")
        return write_folder(output, context, summary, say)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}. Choose another place with --output.") from None


def refuse_mixed(runs: Sequence[Run], force: bool) -> str | None:
    """What the runs' protocols differ in, in words; None where they are equal. Raises UserError unless forced."""
    found = protocol_differences(runs)
    if found and not force:
        raise UserError(f"these runs cannot be compared: {differing(found)}. --force compares them all the same.")
    return differing(found) if found else None


def is_folder(output: Path) -> bool:
    """Whether an output names a folder: one that is there, or whatever does not end like a page."""
    return output.is_dir() or output.suffix.lower() not in (".html", ".htm")


def write_file(output: Path, text: str, context: dict[str, Any], summary: Summary, figures: bool, say: Say) -> Path:
    """The page as one file; tables beside it."""
    say("Writing")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, text)
    tables = tables_folder(context["runs"], output)
    write_tables(summary, context, tables)
    if figures:
        say("Drawing figures for papers")
        context["exhibits"].write(tables / FIGURES)
    return output


def write_folder(folder: Path, context: dict[str, Any], summary: Summary, say: Say) -> Path:
    """The page as index.html of a folder, with whatever it shows in files."""
    if (folder / MANIFEST).exists():
        raise UserError(
            f"{folder} is a run folder, a page would mix with it. Name another: --output {folder / 'report'}"
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder. Name a page, NAME.html, or another folder with --output.")
    say("Writing")
    folder.mkdir(parents=True, exist_ok=True)
    tables = folder / TABLES
    write_tables(summary, context, tables)
    os.replace(tables / SUMMARY, folder / SUMMARY)
    for old in (folder / IMAGES).glob("p*.webp"):  # of an earlier page, with other samples
        if PICTURE.fullmatch(old.name):
            old.unlink()
    context["pictures"].write(folder / IMAGES)
    write_atomically(folder / INDEX, render(context, files_beside=True))
    say("Drawing figures for papers")
    context["exhibits"].write(folder / FIGURES)
    return folder / INDEX


def write_tables(summary: Summary, context: dict[str, Any], folder: Path) -> None:
    """Everything that the page says as tables."""
    besides = {ISSUES: issues_frame(context["issues"])}
    write_summary(summary, folder, protocol=context["protocol"], besides=besides)


def render(context: dict[str, Any], files_beside: bool = False) -> str:
    """The page's HTML. files_beside: whether pictures, figures and tables lie in files beside it."""
    exhibits: Exhibits = context["exhibits"]
    return render_page(
        "report.html.j2",
        styles=("report.css", *gallery.STYLES),
        scripts=("report.js", *gallery.SCRIPTS),
        filters={
            "model_name": model_name,
            "inline": exhibits.inline,
            "figure_files": lambda chart: exhibits.files(chart, FIGURES if files_beside else None),
        },
        files_beside=files_beside,
        addresses=context["pictures"].addresses(IMAGES if files_beside else None),
        tables_folder=TABLES if files_beside else None,
        **context,
    )


def remove_own(page: Path) -> None:
    """Delete a page that this program wrote before, which a folder takes the place of; nobody else's file."""
    if page.is_file() and OURS.search(page.read_bytes()[:4000].decode("utf-8", "replace")):
        page.unlink()


def tables_folder(runs: Sequence[Run], output: Path) -> Path:
    """Where the tables of a page that is one file go: the run's own folder for its page there, else one beside it."""
    own = len(runs) == 1 and output.resolve().parent == runs[0].path.resolve()
    return runs[0].path if own else output.with_name(f"{output.stem}_tables")


def differing(differences: dict[str, list[Any]]) -> str:
    """`prompt ('hf' and 'vicuna_v1'), dtype (...)`"""
    named = [f"{key} ({' and '.join(dict.fromkeys(map(repr, v)))})" for key, v in differences.items()]
    return f"{', '.join(named)} differ{'s' if len(named) == 1 else ''}"
