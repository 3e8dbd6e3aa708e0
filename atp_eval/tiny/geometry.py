"""Places of cells, and the normalisation of pixels."""

from __future__ import annotations

import numpy as np
import torch
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from ..scenes.world import GRID

CELLS = GRID * GRID
COLUMN = (torch.arange(CELLS) % GRID + 0.5) / (GRID / 2) - 1  # -1 .. 1
ROW = (torch.arange(CELLS) // GRID + 0.5) / (GRID / 2) - 1
_MEAN = torch.tensor(OPENAI_CLIP_MEAN).view(1, 3, 1, 1) * 255
_STD = torch.tensor(OPENAI_CLIP_STD).view(1, 3, 1, 1) * 255


def pixel_values(images: np.ndarray) -> torch.Tensor:
    """uint8 [B, H, W, 3] -> float [B, 3, H, W], what CLIP's image processor makes of a picture that needs no
    resizing."""
    return (torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() - _MEAN) / _STD


def sincos(width: int) -> torch.Tensor:
    """[576, width]: sines and cosines of row and column, from one to a sixtieth of 1.2 rad a cell."""
    q = width // 4
    angle = torch.arange(GRID).float()[:, None] * (1.2 / 60 ** (torch.arange(q) / q))
    wave = torch.cat([angle.sin(), angle.cos()], 1)
    rows, columns = wave[:, None].expand(GRID, GRID, 2 * q), wave[None].expand(GRID, GRID, 2 * q)
    return torch.cat([rows, columns], -1).reshape(CELLS, width)
