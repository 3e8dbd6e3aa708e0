"""Which token sits where in a batch of pruned, left-padded sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from atp_eval.errors import UserError


@dataclass(frozen=True)
class Layout:
    """The sequences as they enter one layer: B rows, L slots, V cells of the visual grid.

    valid: [B, L] bool, False for padding (on the left).
    cell: [B, L] long, the grid cell of a visual token; V for everything else, padding included.
    lengths: tokens of each row, on the host, so that nothing waits for the device.
    """

    valid: Tensor
    cell: Tensor
    lengths: Sequence[int]
    cells: int

    @property
    def padded(self) -> bool:
        """Whether any row is shorter than the batch."""
        return min(self.lengths) < self.valid.shape[1]

    @property
    def visual(self) -> Tensor:
        """[B, L] bool."""
        return self.cell < self.cells

    @property
    def order(self) -> Tensor:
        """[B, V] long: place of each cell's token among the visual tokens of its row; V where the token is gone."""
        return self.to_cells((self.visual.cumsum(1) - 1).masked_fill(~self.visual, self.cells), self.cells)

    @property
    def places(self) -> Tensor:
        """[B, L] long: tokens numbered 0, 1, 2, ... without gaps; 0 for padding."""
        return (self.valid.cumsum(1) - 1).clamp(min=0)

    def places_after(self, cached: int, count: int) -> Tensor:
        """[B, count] long: numbers without gaps of the next `count` tokens, when the cache holds `cached` slots."""
        new = torch.arange(cached, cached + count, device=self.valid.device) - self.valid.shape[1]
        return self.places[:, -1:] + 1 + new

    def to_cells(self, x: Tensor, fill: float) -> Tensor:
        """Values per slot [B, L, ...] as values per grid cell [B, V, ...]; `fill` where the cell's token is gone."""
        out = x.new_full((x.shape[0], self.cells + 1, *x.shape[2:]), fill)
        out.scatter_(1, self.cell.view(*self.cell.shape, *[1] * (x.dim() - 2)).expand_as(x), x)
        return out[:, : self.cells]

    def to_slots(self, x: Tensor, fill: float) -> Tensor:
        """Values per grid cell [B, V, ...] as values per slot [B, L, ...]; `fill` where the slot is not visual."""
        x = torch.cat([x, x.new_full((x.shape[0], 1, *x.shape[2:]), fill)], dim=1)
        return gather(x, self.cell)

    def drop(self, stay: Tensor, lengths: Sequence[int], order: Tensor | None = None) -> tuple[Layout, Tensor]:
        """Keep text, and the visual tokens of the cells in `stay` [B, V]; `lengths` says how many that leaves in a row.

        order: [B, V], 0 <= order < V: the visual tokens are put in rising order of it; None leaves them as they are.

        Returns the new layout and [B, L'] indexes of the slots it takes over, in order: L' is the longest row, shorter
        rows are padded on the left with slots that are to be ignored.
        """
        keep = self.valid & self.to_slots(stay, True)
        index = self._ranked(keep, order).argsort(dim=1, stable=True)[:, -max(lengths) :]
        valid = keep.gather(1, index)
        cell = self.cell.gather(1, index).masked_fill(~valid, self.cells)
        return Layout(valid, cell, lengths, self.cells), index

    def _ranked(self, keep: Tensor, order: Tensor | None) -> Tensor:
        """[B, L]: rises from what goes, through what stands before the image and the image, to what stands after it."""
        if order is None:
            return keep.int()
        visual = self.visual
        behind = (visual.cumsum(1) > 0).long() * (self.cells + 1)
        return torch.where(visual, self.to_slots(order.long(), 0) + 1, behind).masked_fill(~keep, -1)


def gather(x: Tensor, index: Tensor) -> Tensor:
    """x [B, L, ...] at slots `index` [B, L'] -> [B, L', ...]."""
    rows = torch.arange(len(index), device=index.device)[:, None]
    return x.flatten(0, 1)[index + x.shape[1] * rows]  # several times as fast as `gather` with an index for each number


class Prompts(NamedTuple):
    """Unpruned prompts: their layout, and for each row whether it has an image and the text tokens after that."""

    layout: Layout
    has_image: list[bool]
    text: list[int]


def read_prompts(input_ids: Tensor, attention_mask: Tensor | None, image_token: int, cells: int) -> Prompts:
    """Find image and text in prompts [B, L].

    Waits for the device once. Raises UserError for padding on the right, and for a row whose image tokens are not one
    full grid with text after it.
    """
    image = input_ids == image_token
    valid = torch.ones_like(image) if attention_mask is None else attention_mask.to(torch.bool)
    after = valid & (image.cumsum(1) == image.sum(1, keepdim=True)) & ~image & image.any(1, keepdim=True)
    stats = torch.stack([valid.sum(1), image.sum(1), after.sum(1), valid[:, -1]], dim=1).tolist()
    for row, (_, visual, text, ends) in enumerate(stats):
        if visual not in (0, cells):
            raise UserError(
                f"prompt {row} of the batch has {visual} visual tokens; pruning takes one image of {cells} a prompt"
            )
        if visual and not text:
            raise UserError(f"prompt {row} of the batch ends with its image; the answer is read off text after it")
        if not ends:
            raise UserError(
                f"prompt {row} of the batch is padded on the right; set the tokenizer's padding_side='left'"
            )
    cell = (image.cumsum(1) - 1).masked_fill(~image, cells)
    layout = Layout(valid, cell, [row[0] for row in stats], cells)
    return Prompts(layout, [row[1] > 0 for row in stats], [row[2] for row in stats])
