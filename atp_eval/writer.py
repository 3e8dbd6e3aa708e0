"""Writing a run folder: one process at a time; the system has each batch at once, so that a kill loses at most one."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from filelock import FileLock, Timeout

from atp_eval.errors import TaskFailure, UserError
from atp_eval.records import (
    IMAGES,
    MANIFEST,
    PARQUET,
    RESULT,
    SAMPLES,
    Manifest,
    Result,
    SampleRecord,
    read_samples,
    slug,
)
from atp_eval.rows import Answer, read_answers, read_columns, write_parquet

PIECE = 2**16  # bytes that are read at a time
SYNC_SECONDS = 1.0  # a crash of the machine (not of the process: see `append`) loses what was answered since


def temporary(path: Path) -> Path:
    """A name beside a file for what will replace it; no other's, since others may write the same file, elsewhere too,
    where processes have the same numbers."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step, so that a kill, or a crash of the machine, leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = temporary(path)
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def repair(path: Path) -> int:
    """Cut a torn last line (the process was killed while writing it) off a JSON-lines file; bytes removed."""
    with path.open("rb") as file:
        end = size = file.seek(0, os.SEEK_END)
        newline = -1
        while end and newline < 0:  # from the end, a piece after the other
            start = max(0, end - PIECE)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            end = start + newline + 1
    if end < size:
        os.truncate(path, end)
    return size - end


class RunWriter:
    """The one process that may write a run folder.

    >>> with RunWriter(path) as run:
    ...     run.append([record, ...])

    beside: another run folder, whose answers count as there; it is read only.

    Raises UserError when another process holds the folder or it cannot be written.
    """

    def __init__(self, path: Path, beside: Path | None = None) -> None:
        self.path, self.beside = path, beside
        self.broken = False
        self._files: dict[Path, IO[str]] = {}
        self._unsynced: set[Path] = set()
        self._synced = time.monotonic()
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path / ".lock", timeout=0)
        except OSError as error:
            raise UserError(f"cannot write to {path}: {error.strerror}. Choose a folder with --output.") from None

    def __enter__(self) -> RunWriter:
        owner = self.path / ".owner"
        try:
            self._lock.acquire()
            owner.write_text(str(os.getpid()), encoding="ascii")
        except Timeout:
            pid = owner.read_text(encoding="ascii") if owner.exists() else "unknown"
            raise UserError(
                f"{self.path} is in use by process {pid}. Wait for it, or choose another folder with --output."
            ) from None
        except OSError as error:
            raise UserError(f"cannot write to {self.path}: {error.strerror}. Choose a folder with --output.") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(TaskFailure):  # a full disk was reported by `append` already
            self._sync()
        for f in self._files.values():
            with suppress(OSError):
                f.close()
        self._lock.release()

    def folder(self, method: str, benchmark: str) -> Path:
        """Where one method's rows of one benchmark lie."""
        return self.path / slug(method) / benchmark

    def documents(self, method: str, benchmark: str) -> set[int]:
        """The doc_ids that are recorded, here or beside, after the repair of a torn last line."""
        found: set[int] = set()
        for path in self._samples(method, benchmark):
            found.update(read_columns(path, ["doc_id"])["doc_id"].to_pylist())
        return found

    def answers(self, method: str, benchmark: str) -> dict[int, Answer]:
        """What scoring needs of every record here or beside, by doc_id."""
        return {key: row for path in self._samples(method, benchmark) for key, row in read_answers(path).items()}

    def records(self, method: str, benchmark: str) -> dict[int, SampleRecord]:
        """All of every record here or beside, by doc_id."""
        return {r.doc_id: r for path in self._samples(method, benchmark) for r in read_samples(path)}

    def _samples(self, method: str, benchmark: str) -> Iterator[Path]:
        """The files of a cell, beside first; what this process is writing is on the disk then."""
        if self.beside and (path := self.beside / slug(method) / benchmark / SAMPLES).exists():
            yield path
        if (path := self.folder(method, benchmark) / SAMPLES).exists():
            if path not in self._files:
                repair(path)
            yield path

    def append(self, records: Iterable[SampleRecord]) -> None:
        """Write rows and hand them to the system, which has them then, even if this process is killed; once a second
        it puts them on the disk. Raises TaskFailure when the disk refuses them.
        """
        with self._disk():
            for record in records:
                path = self.folder(record.method, record.benchmark) / SAMPLES
                if path not in self._files:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._files[path] = path.open("a", encoding="utf-8")
                self._files[path].write(record.model_dump_json() + "\n")
                self._unsynced.add(path)
            for path in self._unsynced:
                self._files[path].flush()
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        """Put on the disk what the system has."""
        with self._disk():
            for path in self._unsynced:
                os.fsync(self._files[path].fileno())
        self._unsynced.clear()
        self._synced = time.monotonic()

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """What the disk refuses ends the run, with what to do; `broken` then tells it from other failures."""
        try:
            yield
        except OSError as error:
            self.broken = True
            raise TaskFailure(
                f"cannot write to {self.path}: {error.strerror}. What was answered before is kept; "
                "make room and run the same command again."
            ) from None

    def keep_image(self, image_id: str, encode: Callable[[], bytes]) -> None:
        """Keep a picture once, for the report; encode() gives it as WebP."""
        path = self.path / IMAGES / f"{image_id}.webp"
        if not path.exists():
            with self._disk():
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(encode())

    def forget(self, method: str, benchmark: str) -> None:
        """Delete what an earlier run left of one method's benchmark; the result first, which stands for the others."""
        with self._disk():
            for name in (RESULT, PARQUET, SAMPLES):
                (self.folder(method, benchmark) / name).unlink(missing_ok=True)

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace run.json."""
        with self._disk():
            write_atomically(self.path / MANIFEST, manifest.model_dump_json(indent=1))

    def finish(self, result: Result, scores: dict[int, float]) -> None:
        """Write results.json, and the rows with their scores (by doc_id) as parquet."""
        folder = self.folder(result.method, result.benchmark)
        table = temporary(folder / PARQUET)
        with self._disk():
            self._sync()
            write_parquet(folder / SAMPLES, table, scores)
            os.replace(table, folder / PARQUET)
            write_atomically(folder / RESULT, result.model_dump_json(indent=1))
