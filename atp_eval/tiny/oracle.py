"""Oracle tokens: what a perfect tower and projector would give, made of the renderer's labels; and fitting the
projector to them.

The language model learns everything on a dozen oracle tokens an image first, which costs a fraction of 576 real ones.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from ..models import tiny
from ..scenes.questions import DIGITS
from ..scenes.world import COLORS, MATERIALS, SETTINGS, SHAPES, SIZES
from .geometry import CELLS, COLUMN, ROW, sincos
from .vision import numbers

WORDS = (
    SHAPES,
    COLORS,
    MATERIALS,
    SIZES,
    DIGITS,
    ("object",),
    SETTINGS,
)  # of the labels in their order; the setting last
DIGIT, CENTRE, PLACED = 4, 5, 64


class Oracle(nn.Module):
    """A token is the sum of the embeddings of the words that describe the cell ('object' for a centre), and of
    its place.

    Sharing the words' embeddings is what makes matching easy to learn.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.place = nn.Linear(PLACED + 4, width)
        nn.init.normal_(self.place.weight, std=0.02)
        self.place.weight.data[:, PLACED:] *= 16
        self.register_buffer("table", sincos(PLACED) * 0.5, persistent=False)
        ids = {w: i for i, w in enumerate(tiny.vocabulary())}
        self.words = []
        for j, group in enumerate(WORDS):
            none = [-1] if j < len(WORDS) - 1 else []  # label 0: no word
            self.words.append(torch.tensor([*none, *(ids[w] for w in group)]))

    def forward(self, described: Tensor, embedding: nn.Embedding) -> Tensor:
        """[B, n, 10] from `describe` -> [B, n, width]."""
        codes = described[..., :8].long()
        cells = codes[..., 7]
        own = torch.stack([COLUMN[cells], ROW[cells]], -1)
        table = self.get_buffer("table")
        out: Tensor = self.place(torch.cat([table[cells], own, described[..., 8:]], -1))
        for j, words in enumerate(self.words):
            known = (words >= 0).float()[:, None]
            out = out + (embedding(words.clamp(min=0)) * known)[codes[..., j]]
        return out


def describe(labels: np.ndarray, settings: np.ndarray) -> Tensor:
    """[B, 8, 576] labels -> [B, 576, 10]: six labels, the setting, the cell's number, and column and row of the
    thing's centre."""
    known = torch.from_numpy(labels.astype(np.int64))
    cells = torch.arange(CELLS).expand(len(known), -1)
    setting = torch.from_numpy(settings)[:, None].expand(cells.shape)
    body = (known[:, 0] > 0).float()[..., None]
    ids = torch.stack([setting, cells], -1).float()
    return torch.cat([known[:, :6].transpose(1, 2).float(), ids, numbers(known, cells)[..., 4:] * body], -1)


def choose(features: Tensor, labels: np.ndarray, count: int) -> tuple[Tensor, Tensor]:
    """The `count` most useful cells by label, in raster order: centres, plates, bodies, then any; and which they
    are [B, count]."""
    known = torch.from_numpy(labels)
    if count >= CELLS:
        return features, torch.arange(CELLS).expand(len(features), -1)
    value = (
        (known[:, CENTRE] > 0) * 30.0
        + (known[:, DIGIT] > 0) * 20.0
        + (known[:, 0] > 0) * 10.0
        + torch.rand(len(known), CELLS)
    )
    cells = value.topk(count, 1).indices.sort(1).values
    return features.gather(1, cells[..., None].expand(-1, -1, features.shape[-1])), cells


def fit_projector(
    model: LlavaForConditionalGeneration, features: Tensor, wanted: Tensor, digit: Tensor, steps: int = 1500
) -> None:
    """Teach the projector the oracle's tokens: least squares written into its two layers, then AdamW.

    features [N, vision width] of the tower, wanted [N, width] of the oracle, digit [N] label of the plate (0: none).
    """
    start = 2.0  # a bias that keeps the GELU nearly linear
    one, two = model.model.multi_modal_projector.linear_1, model.model.multi_modal_projector.linear_2
    mean_f, mean_w = features.mean(0), wanted.mean(0)
    with torch.no_grad():
        g = (features - mean_f).double()
        solution = torch.linalg.solve(g.T @ g + torch.eye(g.shape[1]), g.T @ (wanted - mean_w).double()).float()
        scale = 1 / wanted.std()
        one.weight.copy_(solution.T * scale)
        one.bias.copy_(start - solution.T @ mean_f * scale)
        two.weight.copy_(torch.eye(len(mean_w)) / scale)
        two.bias.copy_(mean_w - start / scale)
    projector = model.model.multi_modal_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=1e-3, weight_decay=0)
    weight = 1 + 3 * (digit > 0)[:, None].float()  # digits are rare, and hard to read

    def left(ids: Tensor, w: Tensor | float = 1.0) -> Tensor:
        return (w * (projector(features[ids]) - wanted[ids]) ** 2).sum() / (w * (wanted[ids] - mean_w) ** 2).sum()

    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / steps)
        ids = torch.randint(len(features), (2048,))
        optimizer.zero_grad()
        left(ids, weight[ids]).backward()
        optimizer.step()
    with torch.no_grad():
        print(
            f"projector: variance of the oracle tokens left unexplained {left(torch.arange(20000)).item():.3f}",
            flush=True,
        )
