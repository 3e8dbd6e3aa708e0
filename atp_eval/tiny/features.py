"""What the trained tower makes of the stored pictures, computed once.

python -m atp_eval.tiny.features --work FOLDER --limit 10000
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from ..models import tiny
from ..scenes.world import Split
from .geometry import CELLS, pixel_values
from .pictures import Pictures


def load_tower(model: LlavaForConditionalGeneration, work: Path) -> Any:
    """Put the trained tower into a model."""
    tower = model.model.vision_tower
    tower.load_state_dict(load_file(work / "tower.safetensors"))
    return tower.eval().requires_grad_(False)


class Features:
    """bf16 [N, 576, width], kept as int16 in a file."""

    def __init__(self, work: Path, split: Split) -> None:
        self.stored = np.load(work / f"{split}_features.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.stored)

    def read(self, ids: list[int]) -> Tensor:
        return torch.from_numpy(np.stack([self.stored[i] for i in ids])).view(torch.bfloat16)


@torch.no_grad()
def store(work: Path, split: Split, limit: int, batch: int = 8) -> None:
    tower, data = load_tower(tiny.build(), work), Pictures(work, split)
    count, start, part = min(len(data), limit), time.time(), work / f"{split}_features.part.npy"
    out = np.lib.format.open_memmap(part, "w+", np.int16, (count, CELLS, tower.config.hidden_size))
    for i in range(0, count, batch):
        with torch.autocast("cpu", torch.bfloat16):
            f = tower(pixel_values(data.images[i : min(count, i + batch)])).last_hidden_state[:, 1:].bfloat16()
        out[i : i + len(f)] = f.contiguous().view(torch.int16).numpy()
    out.flush()
    part.replace(work / f"{split}_features.npy")
    print(f"{split}: features of {count} pictures in {time.time() - start:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=10000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for split in reversed(get_args(Split)):
        store(options.work, split, options.limit)


if __name__ == "__main__":
    main()
