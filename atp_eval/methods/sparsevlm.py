"""SparseVLM: text tokens that the image speaks to rate it, in three stages, and dropped tokens are partly recycled.

Zhang et al., "SparseVLM: Visual Token Sparsification for Efficient Vision-Language Model Inference", ICML 2025
(https://arxiv.org/abs/2410.04417). This is "v1", the paper's method; SparseVLM+ ("v2.0") is another one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from atp_eval.cost.scorer import Prompt, attention_rows, product
from atp_eval.errors import UserError
from atp_eval.methods.base import Geometry, Need
from atp_eval.methods.budget import average_input, check_average
from atp_eval.methods.decision import Decision
from atp_eval.methods.density_peaks import density_peaks
from atp_eval.methods.point import Point
from atp_eval.methods.stages import Stages, scale_layers
from atp_eval.methods.tensors import rows

LAYERS = (3, 7, 16)  # the authors prune the outputs of layers 2, 6 and 15
CELLS = 576  # the image that the official counts are for
OFFICIAL = {"64": (66, 30, 17), "96": (238, 48, 26), "128": (303, 110, 36), "192": (300, 200, 110)}


class StageCounts(NamedTuple):
    """One stage: tokens that are kept, dropped tokens that are clustered, and the clusters that those become."""

    keep: int
    recycled: int
    clusters: int


def stage_counts(tokens: int, keep: int) -> StageCounts:
    """Of `tokens` visual tokens at most all but one are kept; p = int(0.3 dropped) + 1 of the others become
    int(p / 10) + 1 clusters."""
    keep = min(keep, tokens - 1)
    recycled = int((tokens - keep) * 0.3) + 1
    return StageCounts(keep, recycled, recycled // 10 + 1)


def tokens_after(cells: int, keep: Sequence[int]) -> tuple[int, ...]:
    """Visual tokens after each stage, clusters included; they count as tokens of the next stage."""
    found = [cells]
    for wanted in keep:
        stage = stage_counts(found[-1], wanted)
        found.append(stage.keep + stage.clusters)
    return tuple(found[1:])


def raters(visual: Tensor, text: Tensor, is_text: Tensor) -> Tensor:
    """[B, T] bool: text tokens that the image speaks to more than to the mean one.

    m = mean_visual softmax_text(V T^T) says how much; a token is a rater where m > mean(m).
    visual [B, V, D] and text [B, T, D] are input embeddings of the LLM, is_text [B, T] bool says which of `text` count.
    The logits are not divided by sqrt(D). Where no token is above the mean (all alike, or only one) all are raters:
    the authors' code would average over none, which is not a number.
    """
    exact = torch.promote_types(visual.dtype, torch.float32)
    logits = visual.to(exact) @ text.to(exact).transpose(1, 2)  # [B, V, T]
    m = logits.masked_fill(~is_text[:, None], float("-inf")).softmax(2).mean(1)  # [B, T], 0 where no text
    above = is_text & (m > m.sum(1, keepdim=True) / is_text.sum(1, keepdim=True))
    return torch.where(above.any(1, keepdim=True), above, is_text)


class Sparsified(NamedTuple):
    """Places among the tokens of a stage. kept: [B, k] long, rising. clusters: [B, c] long, the place of the token that
    each cluster grew around, in falling order of rho * delta. merged: [B, c, D], what the clusters become."""

    kept: Tensor
    clusters: Tensor
    merged: Tensor


def sparsify(scores: Tensor, hidden: Tensor, keep: int) -> Sparsified:
    """One stage for tokens in sequence order: scores [B, v], hidden states [B, v, D].

    The `keep` highest scores stay; of the dropped the highest are clustered (`stage_counts`), listed from the highest
    on. Of equal scores the earlier token comes first.
    """
    count = stage_counts(scores.shape[1], keep)
    ranked = scores.argsort(dim=1, descending=True, stable=True)
    recycled = ranked[:, count.keep : count.keep + count.recycled]
    found = density_peaks(rows(hidden, recycled), count.clusters)
    return Sparsified(ranked[:, : count.keep].sort(dim=1).values, recycled.gather(1, found.centres), found.merged)


def solve_keep(average: float, layers: Sequence[int], geometry: Geometry) -> tuple[int, ...]:
    """The three counts with the input average nearest to `average`, clusters counted.

    They lie on the line through the official lists, from 1-1-1 through 66-30-17, 238-48-26, 303-110-36 and 300-200-110
    to all tokens but one, in shares of the image, straight in between. So the official lists are the counts for their
    own input averages, and a budget between two of them has a shape between theirs. Steps on the line are a quarter of
    the token that the fastest count moves by.
    """
    scale = geometry.cells / CELLS
    corners = [[1.0] * 3, *([n * scale for n in shape] for shape in OFFICIAL.values()), [geometry.cells - 1.0] * 3]
    line: dict[tuple[int, ...], float] = {}
    for start, end in pairwise(corners):
        steps = 4 * math.ceil(max(abs(b - a) for a, b in zip(start, end, strict=True))) or 1
        for step in range(steps + 1):
            keep = tuple(max(1, round(a + (b - a) * step / steps)) for a, b in zip(start, end, strict=True))
            if keep not in line:
                line[keep] = average_input(geometry, layers, tokens_after(geometry.cells, keep))
    return min(line, key=lambda keep: abs(line[keep] - average))


@dataclass(frozen=True, kw_only=True)
class SparseVLM(Stages):
    """Before each of `layers` keep the `keep[j]` visual tokens with the most attention from the raters, and clusters.

    layers: 3, 7 and 16 of 32 (the authors prune the outputs of 2, 6 and 15), scaled to the model's depth.
    keep: tokens kept at each stage, without clusters, each at most all but one (as in the authors' code); the number of
        all tokens switches a stage off.
    official: the authors' counts for "192" (their default, and here), "128", "96" or "64", scaled to images of other
        than 576 tokens. Those numbers are averages of layer outputs; as averages of inputs they are 206.5, 145.4, 114.1
        and 82.3 on 32 layers. `sparsevlm@144` is an average of inputs (`solve_keep`).

    The raters are found once, on the input embeddings, among all tokens after the image (`raters`). The score is the
    mean attention probability of the layer before over heads and raters; clusters of earlier stages compete with
    other visual tokens. Of the dropped, the best 30 % are merged into a tenth of their number (`sparsify`). Order: kept
    tokens as they were, then new clusters. Numbered without gaps in each layer. All of this is the authors' code as it
    runs by default, but for the noise that it adds to densities (`density_peaks`), and for half precision: scores and
    clusters are fp32 here. Its first version derived the counts from the rank of the attention matrix, as the paper
    does; every later one, and this, has fixed counts.
    """

    name: ClassVar[str] = "sparsevlm"
    needs: ClassVar[frozenset[Need]] = frozenset({"embeddings"})
    official: Literal["192", "128", "96", "64"] | None = None
    cells: int | None = field(default=None, compare=False, repr=False)  # of the image; known once solved

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.official is not None and (self.keep is not None or self.average is not None):
            raise UserError(f"sparsevlm: official={self.official} goes without a budget and without keep; it sets both")

    def solve(self, geometry: Geometry) -> SparseVLM:
        layers = self.layers or scale_layers(LAYERS, geometry.num_layers)
        keep = self.keep or self._counts(layers, geometry)
        self._check(layers, keep, geometry)
        return self._solved(layers=layers, keep=keep, official=None, cells=geometry.cells)

    def _counts(self, layers: tuple[int, ...], geometry: Geometry) -> tuple[int, ...]:
        cells = geometry.cells
        if self.average is None:
            return tuple(max(1, round(n * cells / CELLS)) for n in OFFICIAL[self.official or "192"])
        check_average(self.name, self.average, geometry)
        self._check(layers, [1] * len(LAYERS), geometry)
        if self.average == cells:
            return (cells,) * len(LAYERS)
        keep = solve_keep(self.average, layers, geometry)
        lowest = average_input(geometry, layers, tokens_after(cells, keep))
        if self.average < lowest - 0.5:
            self._refuse(math.ceil(lowest), layers, geometry)
        return keep

    def counts(self) -> tuple[int, ...]:
        assert self.keep is not None and self.cells is not None, "solve() first"
        return tokens_after(self.cells, self.keep)

    def decide(self, point: Point) -> Decision:
        assert self.layers is not None and self.keep is not None, "solve() first"
        stage, (batch, cells) = self.layers.index(point.layer), point.kept.shape
        if self.keep[stage] >= cells:
            return Decision(point.kept, count=cells)
        tokens = (cells, *tokens_after(cells, self.keep))[stage]
        sequence = point.order.argsort(dim=1)[:, :tokens]  # [B, v] cells, earlier clusters where they stand
        scores = point.rows(raters(*point.embeddings)).gather(1, sequence)
        kept, clusters, merged = sparsify(scores, rows(point.hidden, sequence), self.keep[stage])

        kept, clusters = sequence.gather(1, kept), sequence.gather(1, clusters)
        stay = torch.cat([kept, clusters], dim=1)
        places = torch.arange(stay.shape[1], device=stay.device).expand_as(stay)
        none = torch.zeros_like(point.kept)
        index = clusters[..., None].expand_as(merged)
        return Decision(
            none.scatter(1, kept, True),
            count=stay.shape[1],
            carry=none.scatter(1, clusters, True),
            values=torch.zeros_like(point.hidden).scatter(1, index, merged.to(point.hidden.dtype)),
            order=sequence.new_zeros(batch, cells).scatter(1, stay, places),
        )

    def scorer_flops(self, prompt: Prompt) -> int:
        """Raters, found anew at each stage; their rows of attention; the means of clusters, whose distances take no
        product."""
        assert self.layers is not None and self.keep is not None, "solve() first"
        cells, width, text = prompt.geometry.cells, prompt.geometry.hidden, prompt.after
        found, tokens = 0, cells
        for layer, keep, after in zip(self.layers, self.keep, tokens_after(cells, self.keep), strict=True):
            if keep < cells:
                stage = stage_counts(tokens, keep)
                found += product(cells, width, text) + attention_rows(prompt, layer, text)
                found += product(stage.clusters, stage.recycled, width)
            tokens = after
        return found
