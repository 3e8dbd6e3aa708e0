"""Random tokens: what a budget is worth before any method chooses well."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from atp_eval.cost.scorer import Prompt
from atp_eval.errors import UserError
from atp_eval.methods.decision import Decision, keep_top
from atp_eval.methods.point import Point
from atp_eval.methods.single import SinglePoint


def random_scores(seed: int, sample_ids: Sequence[str], cells: int) -> Tensor:
    """[B, cells] in [0, 1), on the CPU: a function of the seed and the sample's id alone, whatever the batch."""
    rows = []
    for sample in sample_ids:
        digest = hashlib.sha256(f"{seed}:{sample}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        rows.append(torch.rand(cells, generator=generator, dtype=torch.float64))
    return torch.stack(rows)


@dataclass(frozen=True, kw_only=True)
class Random(SinglePoint):
    """Keep `keep` tokens drawn uniformly for each sample.

    seed: another seed draws other tokens for every sample; the same seed the same ones in every run.
    """

    name: ClassVar[str] = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed < 0:
            raise UserError(f"random: seed={self.seed} must not be negative")

    @property
    def early(self) -> bool:
        return True

    def decide(self, point: Point) -> Decision:
        assert self.keep is not None, "solve() first"
        scores = random_scores(self.seed, point.sample_ids, point.kept.shape[1]).to(
            point.kept.device, non_blocking=True
        )
        return keep_top(scores.masked_fill(~point.kept, float("-inf")), self.keep)

    def scorer_flops(self, prompt: Prompt) -> int:
        return 0
