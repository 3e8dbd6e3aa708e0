"""The stages of the language model's training, in order, and the states that they leave."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import drills

Pair = tuple[float, float]  # at the start and at the end of a stage


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training.

    before: the stage it goes on from; none starts from random weights. tokens: visual tokens an image. oracle: they are
    made of the renderer's labels, not of the tower's features; fit: the projector is fitted to them first. images:
    a step; rows: of text an image. rate: of Muon; AdamW, for all but the layers' matrices, has a fifth. text, pictures:
    shares of drills without and with the picture; extra: share of questions outside of the benchmarks' mix. drills:
    weights of the picture drills. blind: share of rows whose text does not see the visual tokens in the first layer.
    """

    before: str | None
    tokens: int
    images: int
    rows: int
    rate: Pair
    text: Pair
    pictures: Pair
    extra: Pair
    drills: dict[str, float]
    oracle: bool = False
    fit: bool = False
    blind: float = 0.0


STAGES = {
    "ground": Stage(
        before=None, tokens=14, images=16, rows=6, rate=(5e-3, 5e-3), oracle=True,
        text=(0.10, 0.25), pictures=(0.88, 0.65), extra=(0.5, 0.5), drills=drills.GROUND,
    ),
    "skills": Stage(
        before="ground", tokens=14, images=12, rows=6, rate=(5e-3, 5e-3), oracle=True,
        text=(0.45, 0.45), pictures=(0.42, 0.42), extra=(0.8, 0.8), drills=drills.SKILLS,
    ),
    "oracle": Stage(
        before="skills", tokens=14, images=12, rows=6, rate=(3e-3, 2e-3), oracle=True,
        text=(0.20, 0.08), pictures=(0.55, 0.30), extra=(0.6, 0.6), drills=drills.LATER,
    ),
    "few": Stage(
        before="oracle", tokens=112, images=8, rows=6, rate=(3e-3, 1.5e-3), fit=True,
        text=(0.10, 0.05), pictures=(0.40, 0.25), extra=(0.6, 0.6), drills=drills.LATER,
    ),
    "wide": Stage(
        before="few", tokens=576, images=8, rows=10, rate=(2e-3, 0.0),
        text=(0.05, 0.03), pictures=(0.25, 0.15), extra=(0.6, 0.5), drills=drills.LATER,
    ),
    "late": Stage(
        before="deep", tokens=112, images=8, rows=6, rate=(3e-3, 1.5e-3), blind=0.8,
        text=(0.10, 0.05), pictures=(0.40, 0.25), extra=(0.6, 0.6), drills=drills.LATER,
    ),
    "all": Stage(
        before="late", tokens=576, images=8, rows=10, rate=(2e-3, 0.0), blind=0.6,
        text=(0.05, 0.03), pictures=(0.25, 0.15), extra=(0.6, 0.5), drills=drills.LATER,
    ),
}  # fmt: skip


def checkpoint(work: Path, stage: str) -> Path:
    """Where the state after a stage lies."""
    return work / f"language_{stage}.safetensors"
