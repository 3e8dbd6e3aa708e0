"""KeepTrace: exactly which visual tokens of one sample stayed, layer by layer.

Numpy only, so that analysis and reporting read it without torch. One trace takes about a hundred bytes in a record
(a bit per grid cell and prune point, base64), small enough to store for every sample of VQAv2.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Stage:
    """What stays from one prune point on.

    layer: the decoder layer before whose input the tokens were removed; 0 means before the LLM.
    keep: [rows * cols] bool, grid cells (raster order) that live on as tokens of their own.
    merged: number of tokens made of several cells (pooling, recycling), which no single cell stands for.
    """

    layer: int
    keep: NDArray[np.bool_]
    merged: int = 0

    @property
    def tokens(self) -> int:
        """Visual tokens that enter `layer`."""
        return int(self.keep.sum()) + self.merged


@dataclass(frozen=True)
class KeepTrace:
    """The prune points of one sample, in order of layers; no stages means that every token stayed.

    grid: (rows, cols) of the full visual grid; (0, 0) for a sample without an image.
    num_layers: decoder layers of the LLM.
    """

    grid: tuple[int, int]
    num_layers: int
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        layers = [s.layer for s in self.stages]
        if layers != sorted(set(layers)) or any(not 0 <= layer < self.num_layers for layer in layers):
            raise ValueError(f"prune layers {layers} must rise and lie in 0..{self.num_layers - 1}")
        if any(s.keep.shape != (self.grid[0] * self.grid[1],) for s in self.stages):
            raise ValueError(f"keep masks must have {self.grid[0]} x {self.grid[1]} cells")

    def keep_at(self, layer: int) -> NDArray[np.bool_]:
        """[rows * cols] bool: cells that enter `layer` as tokens of their own."""
        keep = np.ones(self.grid[0] * self.grid[1], dtype=bool)
        for stage in self.stages:
            if stage.layer <= layer:
                keep = stage.keep
        return keep

    def tokens_per_layer(self) -> NDArray[np.int64]:
        """[num_layers]: visual tokens that enter each decoder layer."""
        tokens = np.full(self.num_layers, self.grid[0] * self.grid[1], dtype=np.int64)
        for stage in self.stages:
            tokens[stage.layer :] = stage.tokens
        return tokens

    @property
    def average_input(self) -> float:
        """Mean over layers of the tokens that enter a layer: the convention of ATP-LLaVA's tables, and ours."""
        return float(self.tokens_per_layer().mean())

    @property
    def average_output(self) -> float:
        """Mean over layers of the tokens that leave a layer (SparseVLM's convention)."""
        tokens = self.tokens_per_layer()
        return float(np.append(tokens[1:], tokens[-1]).mean())

    @property
    def final(self) -> int:
        """Tokens that enter the last layer (FastV's ratio counts these)."""
        return int(self.tokens_per_layer()[-1])

    def died_before(self) -> NDArray[np.int16]:
        """[rows * cols]: the layer before which each cell was removed; num_layers for cells that stayed to the end."""
        died = np.full(self.grid[0] * self.grid[1], self.num_layers, dtype=np.int16)
        for stage in reversed(self.stages):
            died[~stage.keep] = stage.layer
        return died

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form: bit-packed keep masks in base64."""
        return {
            "grid": list(self.grid),
            "layers": self.num_layers,
            "stages": [[s.layer, s.merged, pack(s.keep)] for s in self.stages],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> KeepTrace:
        """The inverse of `to_json`. Raises ValueError where the data cannot be a trace."""
        rows, cols = (int(n) for n in data["grid"])
        stages = []
        for layer, merged, packed in data["stages"]:
            stages.append(Stage(int(layer), unpack(packed, (rows, cols)), int(merged)))
        return cls((rows, cols), int(data["layers"]), tuple(stages))


def pack(cells: NDArray[np.bool_]) -> str:
    """[rows * cols] bool in raster order as base64 of its bits, the first in the highest one; padded with zeros."""
    return base64.b64encode(np.packbits(cells).tobytes()).decode("ascii")


def unpack(text: str, grid: tuple[int, int]) -> NDArray[np.bool_]:
    """The inverse of `pack` on a grid of (rows, cols). Raises ValueError where the text cannot be cells of it."""
    count = grid[0] * grid[1]
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8))
    if not count <= len(bits) < count + 8:
        raise ValueError(f"a mask of {len(bits)} bits does not fit a grid of {grid[0]} x {grid[1]}")
    return bits[:count].astype(bool)
