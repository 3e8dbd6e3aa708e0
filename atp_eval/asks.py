"""Questions as lmms-eval puts them: in batches of equal settings, with their images decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from atp_eval.documents import DocInfo
from atp_eval.encoded import Encoded
from atp_eval.records import one_line

WINDOW = 32  # batches among which questions are sorted by length; wider would tear questions about one image apart


@dataclass(frozen=True)
class Ask:
    """One question as lmms-eval puts it.

    text: the prompt's text without image token or chat template. load: gives its images (none for text only).
    options: lmms-eval's generation settings. info: what the document asks, for the records.
    """

    benchmark: str
    doc_id: int
    text: str
    load: Callable[[], list[Image.Image]]
    options: dict[str, Any]
    info: DocInfo
    is_valid: Callable[[str], bool] = bool

    @property
    def name(self) -> str:
        """Names the sample wherever it is answered; seeds what is random for it."""
        return f"{self.benchmark}/{self.doc_id}"


@dataclass
class Loaded:
    """An Ask with its image decoded; `error` says why it cannot be answered."""

    ask: Ask
    image: Image.Image | None = None
    image_id: str | None = None
    error: str | None = None
    encoded: Encoded | None = None


def batches(asks: Sequence[Ask], size: int) -> Iterator[list[Ask]]:
    """Questions with equal generation settings, sorted by length within windows; the same batches at every call."""
    groups: dict[str, list[Ask]] = {}
    for ask in asks:
        groups.setdefault(repr(sorted(ask.options.items())), []).append(ask)
    for group in groups.values():
        for start in range(0, len(group), size * WINDOW):
            window = sorted(group[start : start + size * WINDOW], key=lambda a: len(a.text), reverse=True)
            for i in range(0, len(window), size):
                yield window[i : i + size]


def load(ask: Ask) -> Loaded:
    """Decode the image. What cannot be decoded or is not supported becomes the sample's error, by name."""
    try:
        images = ask.load()
        if len(images) > 1:
            return Loaded(ask, error=f"{len(images)} images in one question; only one is supported")
        if not images:
            return Loaded(ask)
        image = images[0].convert("RGB")
    except Exception as error:  # decoders raise whatever they like; the sample is recorded as failed, with the reason
        return Loaded(ask, error=f"broken image: {type(error).__name__}: {one_line(error)}")
    digest = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()[:16]
    return Loaded(ask, image, digest)
