"""Everything about an ATP that is decided before training and has to be the same afterwards."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from atp_eval.methods.atp.rules import Rules
from atp_eval.methods.atp.scores import STRIDES, ScoreNorm, Scores


class AtpOptions(BaseModel):
    """What the paper leaves open, decided; the first value of each is the default.

    layers: prune before these layers, rising; scores come from the layer before each (Tab. 2: "prior to input").
    score_norm: the scale on which scores meet thresholds (`normalise`). causal_self: S_self over the queries that may
        see a key only; the paper's Eq. 1 has no causal mask. scores, rules: the switches of Tab. 5 and 4.
    lambda_sample, strides: of the spatial score (Eq. 5). hidden: width of z (Eq. 6). learned_mix: our extension.
    positions: "2d" is the pruning positional embedding (PP), for a trained LM only; a frozen one keeps its own, "1d".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: tuple[int, ...] = Field(min_length=1)
    score_norm: ScoreNorm = "minmax"
    causal_self: bool = False
    scores: Scores = "both"
    rules: Rules = "both"
    lambda_sample: float = Field(default=3.0, gt=0)
    strides: tuple[int, ...] = Field(default=STRIDES, min_length=1)
    hidden: int = Field(default=256, ge=1)
    learned_mix: bool = False
    positions: Literal["1d", "2d"] = "1d"

    @model_validator(mode="after")
    def _check(self) -> AtpOptions:
        if self.layers[0] < 1 or list(self.layers) != sorted(set(self.layers)):
            raise ValueError(
                f"layers {'-'.join(map(str, self.layers))} must rise and start at 1 or later: "
                "scores come from the attention of the layer before"
            )
        if min(self.strides) < 1:
            raise ValueError(f"strides {self.strides} must be 1 or more")
        if self.learned_mix and self.scores != "both":
            raise ValueError(f"learned_mix weighs two scores; scores={self.scores} leaves one")
        return self
