"""Encoded pictures in a folder, for runs to come and for processes beside this one."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from atp_eval.config import RunConfig
from atp_eval.encoded import Encoded
from atp_eval.engine import VisionStates
from atp_eval.errors import UserError
from atp_eval.models import Bundle
from atp_eval.writer import temporary

GIGABYTE = 10**9
FORMAT = 1  # raise it when what is in a file, or how it is made, changes
LEFT = 0.9  # of the limit is left when the least recently used go
UNSEEN = 0.05  # of the limit may be written before the folder is looked at again, for others write there too
STALE_SECONDS = 3600.0  # a file that is being written this long was left by a process that was killed
WAITING = 32  # pictures that may wait to be written


class FeatureStore:
    """Pictures by the hash of their pixels, a safetensors file each: DIR/<2 digits>/<key>.safetensors.

    A key is a hash of the picture's id and of all that decides what the tower makes of it: weights, image mode,
    preprocessing, layer, dtype. So models may share a folder. A file holds the features [V, D] (LLaVA-1.5-7B in bf16:
    4.7 MB), and the states of the tower (3.0 MB more) where some method looked at them. Rounding is that of the batch
    in which a picture was encoded first.

    Processes may share the folder: files appear whole, under their name, and are never changed. Beyond `limit` bytes
    the least recently used go; each process may overshoot by a twentieth before it looks.

    say: takes one line about damaged files, which are made again, about files that cannot be read, and about a disk
        that takes no more. Nothing of it ends a run.

    Raises UserError where the folder cannot be made or written.
    """

    def __init__(self, folder: Path, bundle: Bundle, limit: int, say: Callable[[str], None]) -> None:
        self.folder, self.limit, self.say = folder, limit, say
        self.made_by = origin(bundle)
        self._shape = (bundle.geometry.cells, bundle.geometry.hidden)
        self._lock, self._room = Lock(), BoundedSemaphore(WAITING)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="features")
        self._said: set[str] = set()
        self._unseen = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (probe := temporary(folder / "probe")).write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"--cache-features {folder} cannot be written: {error.strerror}. Name another folder, or leave it out."
            ) from None
        self.trim()

    def path(self, image_id: str) -> Path:
        """Where a picture lies, if it does."""
        key = hashlib.sha256(f"{self.made_by} {image_id}".encode()).hexdigest()[:32]
        return self.folder / key[:2] / f"{key}.safetensors"

    def get(self, image_id: str, states: bool = False) -> Encoded | None:
        """A picture, on the host; None where there is none, or none with the states that are wanted."""
        path = self.path(image_id)
        try:
            found = self._read(path, image_id, states)
        except FileNotFoundError:
            return None
        except (SafetensorError, ValueError) as error:
            self._once("damaged", f"cached features are damaged and made again, first {path.name}: {error}")
            with suppress(OSError):  # it is there no more, or others' to remove
                path.unlink()
            return None
        except OSError as error:
            self._once("unreadable", f"cached features cannot be read; going on without, first {path.name}: {error}")
            return None
        with suppress(OSError):  # others' to change
            os.utime(path)  # it was used now
        return found

    def _read(self, path: Path, image_id: str, states: bool) -> Encoded | None:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
            if (said.get("made_by"), said.get("image")) != (self.made_by, image_id):
                raise ValueError("it is of another picture or model")
            if states and "entering" not in file.keys():  # noqa: SIM118 -- no mapping
                return None
            names = ("features", *(VisionStates._fields if states else ()))
            tensors = {name: file.get_tensor(name) for name in names}
        for name, x in tensors.items():
            if said.get(name) != checksum(x):
                raise ValueError(f"the checksum of {name} is wrong")
        if tuple(tensors["features"].shape) != self._shape:
            raise ValueError(f"features of shape {tuple(tensors['features'].shape)}, not {self._shape}")
        return Encoded(
            tensors["features"], VisionStates(*(tensors[name] for name in VisionStates._fields)) if states else None
        )

    def put(self, image_id: str, picture: Encoded) -> None:
        """Write a picture, behind the caller's back; waits only where many wait to be written already."""
        picture = picture.to(torch.device("cpu"))
        self._room.acquire()
        self._writer.submit(self._write, image_id, picture).add_done_callback(self._written)

    def _written(self, done: Future[None]) -> None:
        self._room.release()
        if error := done.exception():
            self._once("writer", f"cannot keep pictures in {self.folder}: {type(error).__name__}: {error}")

    def _write(self, image_id: str, picture: Encoded) -> None:
        path = self.path(image_id)
        tensors = {"features": picture.features.contiguous()}
        if picture.states is not None:
            tensors |= {name: x.contiguous() for name, x in picture.states._asdict().items()}
        said = {"made_by": self.made_by, "image": image_id} | {name: checksum(x) for name, x in tensors.items()}
        data = save(tensors, said)
        half = temporary(path)
        try:
            path.parent.mkdir(exist_ok=True)
            half.write_bytes(data)
            os.replace(half, path)
        except OSError as error:
            with suppress(OSError):
                half.unlink()
            self._once("disk", f"cannot write to {self.folder}: {error.strerror}; going on without")
            return
        self._unseen += len(data)
        if self._unseen > UNSEEN * self.limit:
            self.trim()

    def flush(self) -> None:
        """Wait until everything that was put is written."""
        self._writer.submit(lambda: None).result()

    def trim(self) -> None:
        """Remove the least recently used files beyond the limit, and what killed processes left half written."""
        self._unseen = 0
        # OSError: another process is at it (a Timeout is one), or the lock or the files are others'.
        with suppress(OSError), FileLock(self.folder / ".trim.lock", timeout=0):
            files = self._files()
            total = sum(size for _, _, size in files)
            if total <= self.limit:
                return
            for path, _, size in sorted(files, key=lambda file: file[1]):
                path.unlink(missing_ok=True)
                total -= size
                if total <= LEFT * self.limit:
                    return

    def _files(self) -> list[tuple[Path, float, int]]:
        """Files with the time of their last use and their size."""
        found = []
        for path in self.folder.glob("??/*.safetensors*"):
            try:
                about = path.stat()
            except FileNotFoundError:
                continue
            if path.name.startswith("."):
                if time.time() - about.st_mtime > STALE_SECONDS:
                    path.unlink(missing_ok=True)
                continue
            found.append((path, about.st_mtime, about.st_size))
        return found

    def _once(self, what: str, line: str) -> None:
        with self._lock:
            first = what not in self._said
            self._said.add(what)
        if first:
            self.say(line)


def feature_store(config: RunConfig, bundle: Bundle, say: Callable[[str], None]) -> FeatureStore | None:
    """What --cache-features asks for."""
    if config.cache_features is None:
        return None
    return FeatureStore(config.cache_features, bundle, int(config.cache_features_gb * GIGABYTE), say)


def origin(bundle: Bundle) -> str:
    """[16 hex digits] a hash of all that decides what a model's tower and projector make of a picture."""
    config = bundle.model.config
    return hashlib.sha256(
        json.dumps(
            {
                "format": FORMAT,
                "weights": bundle.weight_hash,
                "image": bundle.image_mode,
                "processor": bundle.processor.image_processor.to_dict(),
                "layer": config.vision_feature_layer,
                "strategy": config.vision_feature_select_strategy,
                "dtype": str(bundle.dtype),
            },
            sort_keys=True,
            default=str,
        ).encode()
    ).hexdigest()[:16]


def checksum(x: torch.Tensor) -> str:
    """Of a tensor's bytes, against disks that lie; safetensors has none."""
    data: Any = x.contiguous().flatten().view(torch.uint8).numpy()
    return f"{zlib.crc32(data):08x}"
