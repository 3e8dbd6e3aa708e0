"""Writing a run folder: one process at a time, flushed batch by batch, so that a kill loses at most a batch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

import pandas as pd
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


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step, so that a killed process leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def repair(path: Path) -> int:
    """Cut a torn last line (the process was killed while writing it) off a JSON-lines file; bytes removed."""
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end == len(data):
        return 0
    with path.open("r+b") as f:
        f.truncate(end)
    return len(data) - end


class RunWriter:
    """The one process that may write a run folder.

    >>> with RunWriter(path) as run:
    ...     run.append([record, ...])

    Raises UserError when another process holds the folder or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken = False
        self._files: dict[Path, IO[str]] = {}
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
        for f in self._files.values():
            with suppress(OSError):  # a full disk was reported by `append` already
                f.close()
        self._lock.release()

    def folder(self, method: str, benchmark: str) -> Path:
        """Where one method's rows of one benchmark lie."""
        return self.path / slug(method) / benchmark

    def done(self, method: str, benchmark: str) -> dict[int, SampleRecord]:
        """Records by doc_id that an earlier run left, after the repair of a torn last line."""
        path = self.folder(method, benchmark) / SAMPLES
        if not path.exists():
            return {}
        repair(path)
        return {r.doc_id: r for r in read_samples(path)}

    def append(self, records: Iterable[SampleRecord]) -> None:
        """Write rows and flush them to the disk. Raises TaskFailure when the disk refuses them."""
        touched = set()
        with self._disk():
            for record in records:
                path = self.folder(record.method, record.benchmark) / SAMPLES
                if path not in self._files:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._files[path] = path.open("a", encoding="utf-8")
                self._files[path].write(record.model_dump_json() + "\n")
                touched.add(path)
            for path in touched:
                self._files[path].flush()
                os.fsync(self._files[path].fileno())

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
        rows = self.done(result.method, result.benchmark)
        table = pd.DataFrame([r.model_dump() for _, r in sorted(rows.items()) if r.doc_id in scores])
        table["trace"] = [json.dumps(t) if t else None for t in table["trace"]]
        table["score"] = [scores[i] for i in table["doc_id"]]
        temporary = folder / f".{PARQUET}.{os.getpid()}"
        with self._disk():
            table.to_parquet(temporary, index=False)
            os.replace(temporary, folder / PARQUET)
            write_atomically(folder / RESULT, result.model_dump_json(indent=1))
