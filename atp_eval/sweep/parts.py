"""A run folder whose cells are lent to workers: each answers in a part of its own, and what it wrote comes back.

Only one process may write a run folder, so the process that shares out the work holds it, and every unit of work has a
part, `RUN/.parts/NAME`, which is a run folder too. Cells (a method's folder of a benchmark) move between the two, a
rename each, with whatever is in them: nothing that was answered is lost or copied, whoever is killed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from atp_eval.errors import UserError
from atp_eval.records import IMAGES, MANIFEST, RESULT, SAMPLES, Manifest, read_run, slug
from atp_eval.writer import write_atomically

PARTS = ".parts"
PATIENCE = 10.0  # seconds until a worker that was ended has let go of its part


def lend(run: Path, name: str, cells: Iterable[tuple[str, str]]) -> Path:
    """Move (method, benchmark) cells of a run folder, as far as they are there, to a part; its path."""
    part = run / PARTS / name
    part.mkdir(parents=True, exist_ok=True)
    if (run / MANIFEST).exists():  # so that a worker of another protocol is refused
        shutil.copyfile(run / MANIFEST, part / MANIFEST)
    for method, benchmark in cells:
        _move(run / slug(method) / benchmark, part / slug(method) / benchmark)
    return part


def take_back(run: Path, part: Path) -> None:
    """Move all cells and pictures of a part into its run folder, and add what its manifest knows; the part is gone
    then.

    Raises UserError where a process still writes the part.
    """
    try:
        with FileLock(part / ".lock", timeout=PATIENCE):
            for samples in sorted(part.glob(f"*/*/{SAMPLES}")):
                cell = samples.parent
                _move(cell, run / cell.relative_to(part))
            for picture in (part / IMAGES).glob("*"):
                (run / IMAGES).mkdir(exist_ok=True)
                picture.replace(run / IMAGES / picture.name)
            if (part / MANIFEST).exists():
                joined = _joined(run, read_run(part).manifest)
                write_atomically(run / MANIFEST, joined.model_dump_json(indent=1))
    except Timeout:
        pid = (part / ".owner").read_text(encoding="ascii") if (part / ".owner").exists() else "unknown"
        raise UserError(f"{part} is in use by process {pid}, a worker. Wait for it, or end it.") from None
    shutil.rmtree(part)


def gather(run: Path) -> None:
    """Take back every part that workers, killed or not, have left."""
    for part in sorted((run / PARTS).glob("*")):
        take_back(run, part)
    if (run / PARTS).exists():
        (run / PARTS).rmdir()


def _joined(run: Path, part: Manifest) -> Manifest:
    """The run's manifest with the benchmarks and methods of a part; the part's own where it has none."""
    if not (run / MANIFEST).exists():
        return part
    own = read_run(run).manifest
    benchmarks, methods = {**own.benchmarks, **part.benchmarks}, {**own.methods, **part.methods}
    return own.model_copy(update={"benchmarks": benchmarks, "methods": methods})


def _move(source: Path, target: Path) -> None:
    """Rename a cell. Where both are there (a process was killed between two steps) the one with more in it stays."""
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        if _worth(target) >= _worth(source):
            return
        shutil.rmtree(target)
    source.rename(target)


def _worth(cell: Path) -> tuple[bool, int]:
    """Whether a cell is finished, and how many bytes of answers it has."""
    samples = cell / SAMPLES
    return (cell / RESULT).exists(), samples.stat().st_size if samples.exists() else 0
