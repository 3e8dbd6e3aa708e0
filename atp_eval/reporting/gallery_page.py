"""The gallery as a page of its own: one file, or one with its pictures in a folder beside it where they are many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from atp_eval.analysis.overlays import SHOWN
from atp_eval.analysis.reading import Entry, benchmarks_of, distinct, entries, protocol_differences
from atp_eval.errors import UserError
from atp_eval.records import Run
from atp_eval.reporting.gallery import SCRIPTS, STYLES, GalleryParts, gallery_parts
from atp_eval.reporting.page import render_page
from atp_eval.reporting.pictures import Pictures
from atp_eval.writer import write_atomically

LARGEST = 5_000_000  # bytes of pictures inside a page; more go into files beside it


@dataclass(frozen=True)
class Written:
    """A gallery on disk. files: the folder of its pictures, where they did not fit into the page."""

    page: Path
    files: Path | None
    parts: GalleryParts


def build_gallery(
    runs: Sequence[Run],
    output: Path,
    *,
    count: int = SHOWN,
    benchmarks: Sequence[str] | None = None,
    force: bool = False,
    largest: int = LARGEST,
) -> Written:
    """Write the page of `count` samples.

    Raises UserError when the runs' protocols differ (unless forced), nothing is finished, a benchmark is unknown, or it
    cannot be written.
    """
    runs = distinct(runs)
    differences = refuse_differences(runs, force)
    pictures = Pictures()
    among = entries(runs)
    parts = gallery_parts(runs, series_of(among), pictures, count, benchmarks)
    folder = output.with_name(f"{output.stem}_files") if pictures.size > largest else None
    page = render_page(
        "gallery_page.html.j2",
        styles=STYLES,
        scripts=SCRIPTS,
        files_beside=folder is not None,
        title=titled(runs),
        about=[" and ".join(r.path.resolve().name for r in runs), ", ".join(benchmarks or benchmarks_of(among))],
        differences=", ".join(differences),
        gallery=parts,
        addresses=pictures.addresses(folder.name if folder else None),
    )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if folder:
            pictures.write(folder)
        write_atomically(output, page)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}. Choose another file with --output.") from None
    return Written(output, folder, parts)


def refuse_differences(runs: Sequence[Run], force: bool) -> list[str]:
    """What of the runs' protocols differs. Raises UserError for any, unless forced."""
    differences = list(protocol_differences(runs))
    if differences and not force:
        raise UserError(
            f"these runs follow different protocols: {', '.join(differences)} differ. --force shows them together."
        )
    return differences


def titled(runs: Sequence[Run]) -> str:
    """The models, by the last part of their names."""
    names = [str(r.manifest.protocol.get("model", "a model")) for r in runs]
    return ", ".join(dict.fromkeys(Path(n).name if Path(n).is_absolute() else n for n in names))


def series_of(among: Sequence[Entry]) -> Callable[[str], int]:
    """A label's series, as in the report: 0 for an upper bound, then 1, 2, ... in order."""
    pruned = [e.label for e in among if not e.is_reference]
    numbers = {label: i for i, label in enumerate(pruned, 1)}
    return lambda label: numbers.get(label, 0)
