"""A method that nobody should use: it looks at everything, merges, reorders and renumbers, for the proofs to see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from atp_eval.methods import Decision, Geometry, Method, Point
from atp_eval.methods.base import Need, Positions


@dataclass(frozen=True, kw_only=True)
class Mixer(Method):
    """Keep `share` of the tokens, some of them with others merged in, and two new ones, in the order of a score."""

    name: ClassVar[str] = "mixer"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision", "embeddings", "asked"})
    layers: tuple[int, ...] = (0, 2, 4)
    numbering: Positions = "contiguous"
    share: float = 0.6

    @property
    def prune_layers(self) -> tuple[int, ...]:
        return self.layers

    @property
    def positions(self) -> Positions:
        return self.numbering

    def solve(self, geometry: Geometry) -> Mixer:
        return self

    def decide(self, point: Point) -> Decision:
        if self.share == 1:
            return Decision(point.kept)
        score = self.look(point).masked_fill(~point.kept, float("-inf"))  # [B, V]
        best = score.argsort(dim=1, descending=True, stable=True)
        ranks = best.argsort(1)
        alive = point.kept.sum(1, keepdim=True)
        keep = (ranks < (alive * self.share).ceil()) & point.kept
        carry = (ranks >= alive - 2) & point.kept & ~keep
        rewrite = (ranks % 3 == 1) & keep
        values = point.hidden.flip(1) * 0.5 + point.hidden.mean(1, keepdim=True)
        return Decision(keep, carry=carry, rewrite=rewrite, values=values, order=ranks)

    @staticmethod
    def look(point: Point) -> torch.Tensor:
        """[B, V]: a number from everything that there is."""
        grid, embeddings, vision = point.grid, point.embeddings, point.vision
        text = (embeddings.text * embeddings.is_text[..., None]).sum(1, keepdim=True)
        score = (embeddings.visual * text).sum(-1) + point.asked * 0.3
        for layer in ("own", "next"):
            query, key = vision.queries(layer), vision.keys(layer)
            score = score + (query[:, :, :1] * key[:, :, 1:]).sum((1, 3))
        score = score + vision.features.sum(-1) * vision.cls_feature.mean(-1, keepdim=True)
        score = score + vision.project(vision.features).mean(-1)
        small = vision.encode_resized(grid[0] // 2, grid[1])
        score = score + small.mean(-1).repeat_interleave(2, 1) + point.coming_row() + point.order.to(score) * 0.01
        if point.layer:
            told = point.text
            spoken = (told.keys * told.is_text[..., None, None]).sum(1, keepdim=True)
            heard = (point.final_norm(told.hidden) * told.is_text[..., None]).sum(1, keepdim=True)
            score = score + (point.keys * spoken).sum((2, 3)) + (point.hidden * heard).mean(-1)
            score = score + point.rows(point.embeddings.is_text.to(score))
        return score
