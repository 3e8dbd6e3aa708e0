"""Training samples of a LLaVA: conversations as tokens and labels, in the very strings that evaluation sends."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile
from torch import Tensor
from torch.utils.data import Dataset

from atp_eval.errors import UserError
from atp_eval.models import Bundle
from atp_eval.models.llava import VICUNA_V1
from atp_eval.training.collate import IGNORED, Sample
from atp_eval.training.conversations import LISTED, Bad, BadRow, Conversation, DataReport, Fault, parse, rows

FAULTS = tuple(Fault)


@contextmanager
def whole_pictures() -> Iterator[None]:
    """Inside the block a picture whose end is missing is broken, whatever another package (lmms-eval) set Pillow to."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


class Conversations(Dataset[Sample]):
    """The usable rows of a file in LLaVA's format, read from it one by one.

    All rows are checked at the start, pictures decoded only when a sample is read. A sample whose picture or length
    then turns out to be unusable is replaced by the next good one and counted. Counts live in shared memory: `report`
    also knows what the workers of a DataLoader found.
    """

    def __init__(
        self,
        path: Path,
        images: Sequence[Path],
        bundle: Bundle,
        *,
        max_length: int = 2048,
        max_bad_share: float = 0.01,
        check_images: bool = True,
    ) -> None:
        """path: .json or .jsonl. images: folders that pictures are looked for in, the first one that has it wins.

        bundle: whose prompts, tokens and pixels are made; its weights are not used. max_length: in tokens, the visual
        ones included; what is longer is cut at the end. max_bad_share: of rows that cannot be used, beyond it they are
        fatal. check_images: whether to look at the start if the pictures exist.

        Raises UserError for what cannot be used at all, for a max_length that would cut an image, and for too many bad
        rows.
        """
        for folder in images:
            if not folder.is_dir():
                raise UserError(f"image folder {str(folder)!r} does not exist; give the folders that hold the pictures")
        self.path, self.images, self.max_length, self.max_bad_share = path, tuple(images), max_length, max_bad_share
        self.bundle = replace(bundle, model=cast(Any, None))  # a worker process is not handed the weights
        self._special = re.compile("|".join(map(re.escape, bundle.tokenizer.all_special_tokens)))
        spans, faults, pictures, known = [], bytearray(), [], dict[str, int]()
        for row in rows(path):
            spans.append((row.start, row.stop))
            image = row.value.get("image") if isinstance(row.value, dict) else None
            pictures.append(-1 if image is None else known.setdefault(str(image), len(known)))
            faults.append(self._checked(row.value, check_images))
        self._spans = np.array(spans)
        self._pictures = np.array(pictures, dtype=np.int64)  # a number for each picture, -1 for none
        self._pictured = torch.from_numpy(self._pictures >= 0)
        self._faults = torch.tensor(faults, dtype=torch.uint8).share_memory_()  # 0, or a fault's place in FAULTS + 1
        self._usable = np.flatnonzero(self._faults.numpy() == 0)
        self.check()
        self._check_length()

    def __len__(self) -> int:
        return len(self._usable)

    def __getitem__(self, index: int) -> Sample:
        """A sample, or the next good one; UserError beyond the share of bad rows and where there is no good one."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        for step in range(len(self)):
            row = int(self._usable[(index + step) % len(self)])
            if self._faults[row]:
                continue
            try:
                return self._sample(self._read(row))
            except BadRow as bad:
                self._faults[row] = FAULTS.index(bad.fault) + 1
                self.check()
        raise self._exhausted()

    @property
    def pictured(self) -> NDArray[np.bool_]:
        """[len(self)]: which samples have a picture."""
        return self._pictures[self._usable] >= 0

    @property
    def pictures(self) -> NDArray[np.int64]:
        """[len(self)]: equal for samples that share a picture; a text-only sample has a number of its own."""
        found = self._pictures[self._usable]
        return np.where(found < 0, len(self._pictures) + np.arange(len(found)), found)

    @property
    def report(self) -> DataReport:
        """What has been found so far, in this process and in DataLoader workers."""
        found, faults = {}, self._faults.clone()
        for code, fault in enumerate(FAULTS, 1):
            if bad := torch.nonzero(faults == code).flatten().tolist():
                found[fault] = Bad(len(bad), tuple(map(self._name, bad[:LISTED])))
        good = faults == 0
        return DataReport(
            rows=len(faults),
            with_image=int((good & self._pictured).sum()),
            text_only=int((good & ~self._pictured).sum()),
            bad=found,
        )

    def check(self) -> None:
        """Raise UserError if more rows are bad than `max_bad_share` allows, or all of them."""
        bad = int(self._faults.count_nonzero())
        if bad > self.max_bad_share * len(self._faults):
            raise UserError(
                f"training data {str(self.path)!r}: {bad / len(self._faults):.1%} of the rows cannot be used, more "
                f"than max_bad_share {self.max_bad_share:g}; repair them or raise it. {self.report}{self._places()}"
            )
        if bad == len(self._faults):
            raise self._exhausted()

    def encode(self, talk: Conversation) -> tuple[Tensor, Tensor]:
        """input_ids and labels [L] of a conversation, at most max_length.

        A question is evaluation's prompt for it, and its answer ends with </s>; the next turn follows directly, without
        the system prompt, as in LLaVA's training.

        Raises BadRow where the cut leaves no answer.
        """
        text, answers = "", []
        for turn, (question, answer) in enumerate(talk.turns):
            prompt = self._prompt(question, talk.image is not None and not turn)
            text += prompt.removeprefix(VICUNA_V1) if turn else prompt
            begin = len(text)
            text += f" {answer}{self.bundle.tokenizer.eos_token}"
            answers.append((begin, len(text)))
        tokens = self.bundle.tokenizer(text, return_offsets_mapping=True, verbose=False)
        input_ids = torch.tensor(tokens["input_ids"][: self.max_length])
        starts = torch.tensor([start for start, _ in tokens["offset_mapping"][: self.max_length]])
        answered = torch.zeros_like(starts, dtype=torch.bool)
        for begin, end in answers:
            answered |= (starts >= begin) & (starts < end)
        if not answered.any():
            raise BadRow(Fault.CUT)
        return input_ids, torch.where(answered, input_ids, IGNORED)

    def _prompt(self, question: str, image: bool) -> str:
        """Evaluation's prompt, the image as many tokens as it becomes."""
        token = self.bundle.processor.image_token
        return self.bundle.prompt(question, images=int(image)).replace(token, token * self.bundle.geometry.cells)

    def _sample(self, talk: Conversation) -> Sample:
        input_ids, labels = self.encode(talk)
        return Sample(input_ids, labels, None if talk.image is None else self._pixels(talk.image))

    def _pixels(self, image: str) -> Tensor:
        """[3, H, W], as for evaluation."""
        path = self._find(image)
        if path is None:
            raise BadRow(Fault.MISSING)
        try:
            with whole_pictures(), Image.open(path) as picture:
                whole = picture.convert("RGB")
        except Exception as error:  # decoders raise whatever they like
            raise BadRow(Fault.BROKEN) from error
        return self.bundle.pixels([whole])[0]

    def _find(self, image: str) -> str | None:
        places = (os.path.join(folder, image) for folder in self.images)
        return next(filter(os.path.isfile, places), None)

    def _checked(self, value: Any, check_images: bool) -> int:
        """The code of a row's fault, 0 for none."""
        try:
            talk = parse(value, self._special)
        except BadRow as bad:
            return FAULTS.index(bad.fault) + 1
        missing = check_images and talk.image is not None and self._find(talk.image) is None
        return FAULTS.index(Fault.MISSING) + 1 if missing else 0

    def _exhausted(self) -> UserError:
        return UserError(f"training data {str(self.path)!r}: no row can be used. {self.report}{self._places()}")

    def _places(self) -> str:
        """Where pictures were looked for, if some were not found."""
        places = ", ".join(map(str, self.images)) or "no folder: `images` is empty"
        return f". Pictures are looked for in {places}" if Fault.MISSING in self.report.bad else ""

    def _check_length(self) -> None:
        least = len(self.bundle.tokenizer(self._prompt("", True))["input_ids"]) + 2  # an answer and its end
        if self.max_length < least and self._pictured[self._usable].any():
            raise UserError(f"max_length {self.max_length} is too short for an image and an answer; at least {least}")

    def _bytes(self, row: int) -> bytes:
        start, stop = self._spans[row].tolist()
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def _read(self, row: int) -> Conversation:
        return parse(json.loads(self._bytes(row)), self._special)

    def _name(self, row: int) -> str:
        """The id of a row; its number in the file where it has none."""
        try:
            name = str(json.loads(self._bytes(row))["id"])
        except (ValueError, RecursionError, TypeError, KeyError):
            return f"row {row}"
        return "".join(letter if letter.isprintable() else "?" for letter in name[:60])
