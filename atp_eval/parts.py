"""A run folder that several processes fill: each answers in a part of its own, and what it wrote comes back.

Only one process may write a run folder, so the process that shares out the work holds it, and every unit of work has a
part, `RUN/.parts/NAME`, which is a run folder too. Cells (a method's folder of a benchmark) are lent to a part, a
rename each, and come back like that; where the run folder has the cell as well, since each part has a share of its
questions, the rows are added to it. Nothing that was answered is lost, whoever is killed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from atp_eval.errors import UserError
from atp_eval.records import IMAGES, MANIFEST, RESULT, SAMPLES, Manifest, read_run, slug
from atp_eval.rows import read_columns
from atp_eval.writer import repair, write_atomically

PARTS = ".parts"
ABOUT = ("tasks", "methods", "output", "workers")  # of the settings: what the whole run is, not one of its parts
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
            if (part / MANIFEST).exists() and (part / ".owner").exists():  # else it is the run's own, as it was lent
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
    """A part's manifest, which says how was answered last, with what the run is about, its beginning and time.

    A part that is finished makes no finished run.
    """
    if not (run / MANIFEST).exists():
        return part
    own = read_run(run).manifest
    benchmarks, methods = {**own.benchmarks, **part.benchmarks}, {**own.methods, **part.methods}
    kept = {"created": own.created, "seconds": own.seconds, "finished": own.finished and part.finished}
    about = {name: own.config[name] for name in ABOUT if name in own.config}
    config = {**part.config, **about}
    return part.model_copy(update={"benchmarks": benchmarks, "methods": methods, "config": config, **kept})


def _move(source: Path, target: Path) -> None:
    """Rename a cell. Where both are there, the rows of both stay; of a document that both have, those of the finished
    cell."""
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and (target / RESULT).exists() >= (source / RESULT).exists():
        _add(source / SAMPLES, target / SAMPLES)
        return
    if target.exists():
        _add(target / SAMPLES, source / SAMPLES)
        shutil.rmtree(target)
    source.rename(target)


def _add(source: Path, target: Path) -> None:
    """Append the rows of documents that the target lacks; they are on the disk then, since the source will go."""
    if not source.exists():
        return
    repair(source)
    target.touch()
    repair(target)
    known = set(read_columns(target, ["doc_id"])["doc_id"].to_pylist())
    documents = read_columns(source, ["doc_id"])["doc_id"].to_pylist()
    with source.open("rb") as rows, target.open("ab") as file:
        file.writelines(row for doc, row in zip(documents, rows, strict=True) if doc not in known)
        file.flush()
        os.fsync(file.fileno())
