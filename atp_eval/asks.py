"""Questions as lmms-eval puts them: in batches of equal settings, with their images decoded."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from atp_eval.documents import DocInfo
from atp_eval.generation import generation_options
from atp_eval.records import one_line

if TYPE_CHECKING:
    from atp_eval.encoded import Encoded

WINDOW = 32  # batches among which questions are sorted by length; wider would read pictures far from their order


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
    """An Ask with its image decoded; `error` says why it cannot be answered.

    Of an image there is also what the vision tower is to be shown, pixels [3, side, side], or what it made before.
    """

    ask: Ask
    image: Image.Image | None = None
    image_id: str | None = None
    error: str | None = None
    pixels: Tensor | None = None
    encoded: Encoded | None = None


def batches(asks: Sequence[Ask], size: int) -> Iterator[list[Ask]]:
    """Questions with equal generation settings, stop strings apart; those about one picture together, and always alike.

    Which questions show one picture is taken from `DocInfo.image_key`, for which no picture is decoded; it only
    arranges: whether pictures are the same is known by their pixels later. A picture's questions are torn apart only
    where they are more than `size`; a batch that would have to tear some stays smaller. Within windows the longest come
    first, so that there is little padding, and what does not fit in memory is known early.
    """
    groups: dict[str, list[Ask]] = {}
    for ask in asks:
        groups.setdefault(repr(sorted(generation_options(ask.options)[0].items())), []).append(ask)
    for group in groups.values():
        window: list[list[Ask]] = []
        room = WINDOW * size
        for piece in pieces(group, size):
            window.append(piece)
            room -= len(piece)
            if room <= 0:
                yield from filled(window, size)
                window, room = [], WINDOW * size
        yield from filled(window, size)


def pieces(asks: Sequence[Ask], size: int) -> Iterator[list[Ask]]:
    """The questions about each picture, longest first, at most `size` of them; in the order of their first ones."""
    pictures: dict[str, list[Ask]] = {}
    for ask in asks:
        key = ask.name if ask.info.image_key is None else f"picture {ask.info.image_key}"
        pictures.setdefault(key, []).append(ask)
    for about in pictures.values():
        about.sort(key=length, reverse=True)
        for i in range(0, len(about), size):
            yield about[i : i + size]


def filled(found: Sequence[list[Ask]], size: int) -> Iterator[list[Ask]]:
    """Whole pieces put together into batches: always the longest one that still fits."""
    by_count: dict[int, deque[tuple[int, list[Ask]]]] = {}  # each in rising order of rank
    for rank, piece in enumerate(sorted(found, key=lambda piece: length(piece[0]), reverse=True)):
        by_count.setdefault(len(piece), deque()).append((rank, piece))
    while by_count:
        batch: list[Ask] = []
        while fitting := [count for count in by_count if len(batch) + count <= size]:
            count = min(fitting, key=lambda count: by_count[count][0][0])
            batch += by_count[count].popleft()[1]
            if not by_count[count]:
                del by_count[count]
        yield batch


def length(ask: Ask) -> int:
    """By which questions are sorted."""
    return len(ask.text)


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
