"""Measured prefill times of a model on a machine, kept in a file, and what they say about any pruning schedule."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from atp_eval.cost.geometry import ModelGeometry, Place
from atp_eval.errors import UserError
from atp_eval.paths import cache_folder

VERSION = 1


@dataclass(frozen=True)
class Calibration:
    """Median seconds of a prefill by visual tokens, all pruned before the LLM.

    tokens: rising, from 1 to all. medians: seconds, of `rounds` interleaved rounds, batch 1, `text` tokens of text;
    measured ones, which may fall by chance. place: where.
    """

    place: Place
    text: int
    rounds: int
    tokens: tuple[int, ...]
    medians: tuple[float, ...]

    def seconds(self, tokens: Sequence[float]) -> float:
        """Seconds of a prefill, layer i of which is entered by `tokens[i]` visual tokens.

        A layer takes its share of a prefill that has its tokens from the start, so this is the mean over layers of
        those prefills' times, between two measured ones on a straight line. What a method does to choose is left out.
        """
        rising = _not_falling(self.medians)
        return sum(self._at(count, rising) for count in tokens) / len(tokens)

    def _at(self, count: float, rising: Sequence[float]) -> float:
        after = next((i for i, known in enumerate(self.tokens) if known >= count), len(self.tokens) - 1)
        before = max(0, after - 1)
        width = self.tokens[after] - self.tokens[before]
        share = (count - self.tokens[before]) / width if width else 0.0
        return rising[before] + share * (rising[after] - rising[before])


def find_calibration(geometry: ModelGeometry) -> Calibration:
    """What was measured for a model of these sizes where it runs.

    Raises UserError that names the command where nothing was, and where it cannot be read.
    """
    if geometry.place is None:
        raise UserError("a budget of time needs to know where the model runs; give a model, or geometry.place")
    device, dtype, attention = geometry.place
    command = f"atp-eval budget --measure --model MODEL --dtype {dtype} --attention {attention}"
    path = calibration_path(geometry)
    if not path.exists():
        raise UserError(
            f"no prefill of a model of these sizes was timed on {device} in {dtype} with {attention}; run: {command}"
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("version") != VERSION or len(data["tokens"]) != len(data["medians"]) or not data["tokens"]:
            raise ValueError
        return Calibration(
            place=Place(*data["place"]),
            text=int(data["text"]),
            rounds=int(data["rounds"]),
            tokens=tuple(map(int, data["tokens"])),
            medians=tuple(map(float, data["medians"])),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"cannot read the measured times in {path}; measure again: {command}") from None


def save_calibration(geometry: ModelGeometry, found: Calibration) -> Path:
    """Keep what was measured, in place of what was before. Raises UserError where the cache cannot be written."""
    path = calibration_path(geometry)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({"version": VERSION, **asdict(found)}, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        where = f"{path}: {error.strerror or error}"
        raise UserError(f"cannot write to {where}. Name another folder with ATP_EVAL_CACHE.") from None
    return path


def calibration_path(geometry: ModelGeometry) -> Path:
    """The file for a model of these sizes in its place: times do not depend on weights, nor on the vision tower."""
    assert geometry.place is not None, "a model that runs somewhere"
    sizes = {**asdict(geometry), "vision": None, "has_cls": None}
    digest = hashlib.sha256(json.dumps(sizes, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "prefill-times" / f"{digest}.json"


def _not_falling(values: Sequence[float]) -> list[float]:
    """The nearest sequence that never falls: neighbours that do are set to their mean."""
    groups: list[tuple[float, int]] = []
    for value in values:
        groups.append((value, 1))
        while len(groups) > 1 and groups[-2][0] > groups[-1][0]:
            (high, many), (low, few) = groups[-2:]
            groups[-2:] = [((high * many + low * few) / (many + few), many + few)]
    return [mean for mean, count in groups for _ in range(count)]
