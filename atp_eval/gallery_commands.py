"""`atp-eval gallery`: samples to look at, as a page, or as a figure for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atp_eval.errors import UserError, unknown
from atp_eval.terminal import Json, console, print_json, split_names

if TYPE_CHECKING:
    from atp_eval.analysis.overlays import Sample
    from atp_eval.records import Run

PAGE_SAMPLES, FIGURE_SAMPLES = 200, 6
ONLY_FIGURE = "goes with --figure4, which draws one method's figure; the page shows all methods and layers"

GALLERY_EPILOG = """
**Examples**

`atp-eval gallery runs/tiny-mini-1a2b3c` — a page to browse 200 samples: filters, layers, methods side by side

`atp-eval gallery runs/a runs/b -o both.html --benchmark gqa,pope --samples 400`

`atp-eval gallery runs/tiny-mini-1a2b3c --figure4` — a PDF and a PNG for a paper, and a CSV of what they show

`atp-eval gallery runs/tiny-mini-1a2b3c --figure4 --method atp@144 --docs gqa:12,pope:3 --layers 1,3,6 -o figures/kept`
"""


def gallery(
    runs: Annotated[list[Path], typer.Argument(help="One or more run folders.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The page, or the figure's name.  [default: in the first run]"),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help=f"How many.  [default: {PAGE_SAMPLES}, in a figure {FIGURE_SAMPLES}]")
    ] = None,
    benchmark: Annotated[str | None, typer.Option("--benchmark", "-b", help="Only these, comma-separated.")] = None,
    figure4: Annotated[
        bool, typer.Option("--figure4", help="A figure like the paper's Figure 4 instead of the page.")
    ] = False,
    method: Annotated[
        str | None, typer.Option(help="With --figure4: the method.  [default: the first that prunes]")
    ] = None,
    docs: Annotated[str | None, typer.Option(help="With --figure4: these documents, as `gqa:12,pope:3`.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="With --figure4: layers, as `1,3,6`.  [default: the method's prune layers]")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Show runs of different protocols together; the page says so.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what was pruned, sample by sample: a page to browse, or a static figure for a paper."""
    from atp_eval.records import read_run

    if samples is not None and samples < 1:
        raise UserError(f"--samples {samples}: at least 1")
    names = None if benchmark is None else split_names(benchmark)
    if names == []:
        raise UserError(f"--benchmark {benchmark!r} names none. Leave it out for all.")
    given = {"--method": method, "--docs": docs, "--layers": layers}
    if not figure4 and (wrong := next((key for key, value in given.items() if value is not None), None)):
        raise UserError(f"{wrong} {ONLY_FIGURE}")
    opened = [read_run(path) for path in runs]
    if figure4:
        chosen = figure_samples(opened, samples or FIGURE_SAMPLES, names, docs, samples is not None)
        write_figure(opened, chosen, method, layers, output or runs[0] / "figure4", force, as_json)
    else:
        write_page(opened, output or runs[0] / "gallery.html", samples or PAGE_SAMPLES, names, force, as_json)


def write_page(
    runs: list[Run], output: Path, samples: int, benchmarks: list[str] | None, force: bool, as_json: bool
) -> None:
    """The page, and what a person wants to know of it."""
    from atp_eval.reporting.gallery_page import build_gallery

    found = build_gallery(runs, output, count=samples, benchmarks=benchmarks, force=force)
    parts = found.parts
    told: dict[str, Any] = {
        **{"gallery": str(found.page), "files": str(found.files) if found.files else None, "samples": parts.samples},
        **{"with_picture": parts.pictured, "at_random": parts.at_random, "methods": [m.label for m in parts.methods]},
        "bytes": found.page.stat().st_size,
    }
    if as_json:
        print_json(told)
        return
    missing = "" if parts.pictured else "; the run kept no pictures (atp-eval run --keep-images)"
    say(f"{parts.samples} samples, {parts.pictured} with a picture, {len(parts.methods)} methods{missing}")
    say(f"Gallery: {found.page.resolve()}")
    if found.files:
        say(f"Its pictures lie beside it: {found.files.resolve()}")


def figure_samples(
    runs: list[Run], count: int, benchmarks: list[str] | None, docs: str | None, counted: bool
) -> list[Sample]:
    """The samples of a figure: those that were named, or some with a picture, drawn at random.

    Raises UserError for names that are none, and where no picture was kept.
    """
    from atp_eval.analysis.overlays import interesting_samples, named_samples, spread

    if docs is not None:
        if benchmarks is not None or counted:
            raise UserError(f"--docs {docs} says which samples; leave out --samples and --benchmark")
        picks = [parse_doc(text) for text in split_names(docs)]
        if not picks:
            raise UserError(f"--docs {docs!r} names none. Write benchmark:number, as in gqa:12,pope:3")
        return named_samples(runs, picks)
    found = [s for s in interesting_samples(runs, 10 * count, benchmarks, share=1.0) if s.image]
    if not found:
        raise UserError("no picture was kept, so there is nothing to draw on. Run again with --keep-images 24 or more.")
    return spread(found, count)


def parse_doc(text: str) -> tuple[str, int]:
    """`gqa:12`. Raises UserError for another form."""
    name, _, number = text.partition(":")
    if not name or not number.isdecimal() or len(number) > 12:
        raise UserError(f"--docs {text!r}: write benchmark:number, as in gqa:12,pope:3")
    return name, int(number)


def write_figure(
    runs: list[Run],
    samples: list[Sample],
    method: str | None,
    layers: str | None,
    output: Path,
    force: bool,
    as_json: bool,
) -> None:
    """PDF, PNG and CSV, and what they show."""
    from atp_eval.analysis.reading import entries
    from atp_eval.plotting import write_chart
    from atp_eval.reporting.figure4 import figure4
    from atp_eval.reporting.gallery_page import refuse_differences

    refuse_differences(runs, force)
    among = entries(runs)
    labels = [e.label for e in among]
    if method is not None and method not in labels:
        raise unknown("method of this run", method, labels)
    label = method or next((e.label for e in among if not e.is_reference), labels[0])
    if layers is not None and not all(part.isdecimal() for part in split_names(layers) or [""]):
        raise UserError(f"--layers {layers!r}: write layers as numbers, as in 1,3,6")
    path = output.with_suffix("") if output.suffix in (".pdf", ".png", ".csv") else output
    numbers = None if layers is None else [int(part) for part in split_names(layers)]
    chart = figure4(samples, label, numbers, path.name)
    try:
        written = write_chart(chart, path.parent)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}. Choose another name with --output.") from None
    if as_json:
        shown = [f"{s.benchmark}:{s.doc_id}" for s in samples]
        print_json({"files": [str(p) for p in written], "method": label, "docs": shown, "caption": chart.alt})
        return
    say(chart.alt)
    for file in written:
        say(f"Figure: {file.resolve()}")


def say(text: str) -> None:
    """A line for people; paths stay whole, and nothing in it is markup."""
    console().print(text, markup=False, soft_wrap=True, highlight=False)
