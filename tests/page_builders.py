"""Every page that the program writes, each from two runs of one protocol and with all its parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.made import growth_cells, methods_cells, write_folder

from atp_eval.analysis.bench import summarise_bench
from atp_eval.analysis.compare import compare
from atp_eval.analysis.reading import entries
from atp_eval.annotation.ballot import draw
from atp_eval.annotation.page import reveal_page, vote_page, write_page
from atp_eval.bench.records import Kind
from atp_eval.records import Run
from atp_eval.reporting import build_report
from atp_eval.reporting.bench_page import write_bench
from atp_eval.reporting.compare import write_comparison
from atp_eval.reporting.gallery_page import build_gallery

Builder = Callable[[Run, Run, Path], Path]


def ballot_page(run: Run, folder: Path, page: Callable[..., str]) -> Path:
    """Of the first two methods, all that can be drawn."""
    first, second, *_ = (e.label for e in entries([run]))
    drawn = draw([run], first, second, 200, include_identical=True, any_picture=True)
    return write_page(page(drawn), folder / f"{page.__name__}.html")


def bench_page(run: Run, folder: Path, kind: Kind) -> Path:
    """Of a bench whose every text is the run's."""
    methods, model = [*run.manifest.methods][:6], str(run.manifest.protocol["model"])
    cells = methods_cells((1, 8), methods=methods) if kind == "methods" else growth_cells(methods)
    refused = {len(cells) - 1: run.manifest.device + model}
    where = write_folder(
        folder / f"bench-{kind}", cells, kind=kind, model=model, device=run.manifest.device, refused=refused
    )
    return write_bench(summarise_bench(where), where, figures=False)


# One line a page: whatever is new is tried with hostile text and by axe at once.
BUILDERS: dict[str, Builder] = {
    "report": lambda run, other, folder: build_report([run], folder / "report.html", figures=False),
    "report, folder": lambda run, other, folder: build_report([run], folder / "report"),
    "gallery": lambda run, other, folder: build_gallery([run], folder / "gallery.html").page,
    "votes": lambda run, other, folder: ballot_page(run, folder, vote_page),
    "side by side": lambda run, other, folder: ballot_page(run, folder, reveal_page),
    "bench": lambda run, other, folder: bench_page(run, folder, "methods"),
    "bench of growth": lambda run, other, folder: bench_page(run, folder, "growth"),
    "compare": lambda run, other, folder: write_comparison(compare(run, other), folder / "compare.html")[0],
}
