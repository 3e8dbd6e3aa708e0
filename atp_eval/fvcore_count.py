"""fvcore's count of an LLM's prefill beside the exact one: many papers take their figures from it."""

from __future__ import annotations

import logging
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

from atp_eval.cost.flops import prefill
from atp_eval.engine import model_geometry


class Traced(NamedTuple):
    """macs: fvcore counts one operation for a multiplication and an addition. exact: FLOPs by `cost.flops.prefill`.
    counted: MACs by operator; unsupported: operators that it passes over, with how often they are called."""

    attention: str
    macs: int
    exact: int
    counted: dict[str, int]
    unsupported: dict[str, int]


class _Reader(nn.Module):
    """The LLM of a LLaVA as a function of embeddings, which is all that a tracer can follow."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, embeddings: Tensor) -> Tensor:
        found: Tensor = self.model(inputs_embeds=embeddings, logits_to_keep=1, use_cache=False).logits
        return found


def trace(config: LlavaConfig, length: int, attention: str) -> Traced:
    """Count a prompt of `length` tokens, image included, without weights and without computing anything.

    The vision tower is left out: torch's tracer cannot follow a convolution of tensors without values.
    """
    with torch.device("meta"):
        model: Any = LlavaForConditionalGeneration._from_config(config, attn_implementation=attention)
        embeddings = torch.empty(1, length, config.get_text_config().hidden_size)
    geometry = model_geometry(config)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's, of shapes that are constants to it, and of its own age
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(_Reader(model.eval()), embeddings)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
        macs = int(analysis.total())
    return Traced(
        attention=attention,
        macs=macs,
        exact=prefill(geometry, [length] * geometry.num_layers).total,
        counted={name: int(flops) for name, flops in analysis.by_operator().items()},
        unsupported=dict(analysis.unsupported_ops()),
    )
