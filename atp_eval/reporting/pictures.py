"""The pictures of a page: each once, small, inside the page or in files beside it."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path

from markupsafe import Markup
from PIL import Image

QUALITY = 78  # of WebP
LONGEST_SIDE = 448  # pixels; what a model sees is smaller


class Pictures:
    """Pictures by a name made of their content: the same picture is there once, whatever its files are called."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}
        self._names: dict[Path, str] = {}

    def add(self, path: Path) -> str:
        """The name of a picture, made small the first time. Raises OSError for a file that is no picture."""
        if path not in self._names:
            raw = path.read_bytes()
            name = f"p{hashlib.sha256(raw).hexdigest()[:16]}"
            if name not in self._data:
                self._data[name] = small(raw)
            self._names[path] = name
        return self._names[path]

    @property
    def size(self) -> int:
        """Bytes that they take inside a page."""
        return sum(-(-len(data) // 3) * 4 for data in self._data.values())

    def addresses(self, folder: str | None = None) -> dict[str, Markup]:
        """Each picture's address by its name: a data: address, or that of a file in `folder`."""
        if folder is not None:
            return {name: Markup(f"{folder}/{name}.webp") for name in self._data}
        return {
            name: Markup("data:image/webp;base64," + base64.b64encode(data).decode("ascii"))
            for name, data in self._data.items()
        }

    def write(self, folder: Path) -> list[Path]:
        """All of them as files NAME.webp; no folder where there are none."""
        if self._data:
            folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, data in self._data.items():
            written.append(folder / f"{name}.webp")
            written[-1].write_bytes(data)
        return written


def small(raw: bytes) -> bytes:
    """A picture as WebP of at most LONGEST_SIDE pixels, or as it is where that is no smaller and it is WebP already."""
    with Image.open(io.BytesIO(raw)) as image:
        fits = image.format == "WEBP" and max(image.size) <= LONGEST_SIDE
        picture = image.convert("RGB")
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=4)
    return raw if fits and len(raw) <= buffer.tell() else buffer.getvalue()
