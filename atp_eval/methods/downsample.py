"""Image down-sampling: the picture at a lower resolution through the vision tower again, so that fewer tokens come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from atp_eval.cost.scorer import Prompt, encoded_again
from atp_eval.methods.base import Need, Numbering
from atp_eval.methods.bins import Bins
from atp_eval.methods.decision import Decision
from atp_eval.methods.point import Point


@dataclass(frozen=True, kw_only=True)
class Downsample(Bins):
    """Encode the picture again at `rows` x `cols` patches, and give the LLM those tokens, in raster order.

    The tower's own input is resized (bicubic, antialiased) and its position embeddings are interpolated, as
    transformers does for towers that allow it. The tower runs a second time: this is the control for what the LLM needs
    to see, not for what the whole costs. Full size leaves the model untouched.

    positions: contiguous, the default, numbers the tokens as if the model had been given the small picture; 1d gives
        each the position of the cell in the middle of its part of the grid, as `pool` does.
    """

    name: ClassVar[str] = "downsample"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision"})
    positions: Numbering = "contiguous"

    def decide(self, point: Point) -> Decision:
        if self.shape == point.grid:
            return Decision(torch.ones_like(point.kept), count=point.kept.shape[1])
        return self.placed(point.vision.encode_resized(*self.shape), point.grid, point.hidden)

    def scorer_flops(self, prompt: Prompt) -> int:
        return 0 if self.shape == prompt.geometry.grid else encoded_again(prompt.geometry, self.shape)
