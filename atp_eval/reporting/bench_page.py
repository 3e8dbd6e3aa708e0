"""The page of a bench, and its files: figures for papers, all figures as JSON and CSV."""

from __future__ import annotations

import json
from pathlib import Path

from atp_eval.analysis.bench import BenchSummary, bench_frame
from atp_eval.analysis.growth import curves, growth_frame
from atp_eval.errors import UserError
from atp_eval.reporting.bench import BenchParts, bench_parts
from atp_eval.reporting.exhibits import Exhibits
from atp_eval.reporting.page import render_page
from atp_eval.spreadsheet import csv_text
from atp_eval.writer import write_atomically

PAGE, RESULTS, TABLE, FITS, FIGURES = "bench.html", "results.json", "results.csv", "fits.csv", "figures"


def write_bench(summary: BenchSummary, folder: Path, figures: bool = True) -> Path:
    """The page and everything beside it; the page's path. Raises UserError where they cannot be written."""
    parts, exhibits = bench_parts(summary), Exhibits()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / PAGE, page((parts,), exhibits))
        results = summary.to_json()
        if parts.growth is not None:
            fits = growth_frame(curves(summary))
            write_atomically(folder / FITS, csv_text(fits))
            results["fits"] = json.loads(fits.to_json(orient="records"))
        write_atomically(folder / RESULTS, json.dumps(results, indent=1, default=str) + "\n")
        write_atomically(folder / TABLE, csv_text(bench_frame(summary)))
        if figures:
            exhibits.write(folder / FIGURES)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}. Choose another folder with --output.") from None
    return folder / PAGE


def page(benches: tuple[BenchParts, ...], exhibits: Exhibits) -> str:
    """The HTML."""
    return render_page(
        "bench_page.html.j2",
        styles=("report.css",),
        filters={"inline": exhibits.inline, "figure_files": lambda chart: exhibits.files(chart, None)},
        benches=benches,
        heading=benches[0].heading,
    )
