"""Small random models with random thresholds, and conversations of random tokens; fp64, so that equal means equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from engine.small import IMAGE, PAD, small_llava
from torch import Tensor, nn

from atp_eval.engine.fingerprint import fingerprint
from atp_eval.methods.atp import ATP, Adapter, AdapterConfig, AtpOptions, BaseModelId
from atp_eval.training.collate import IGNORED, Sample, collate
from atp_eval.training.masks import Estimator
from atp_eval.training.model import PruningLlava

STRIDES = (2, 3, 4, 6)  # on the 6 x 6 grid of the small model


def options(**given: Any) -> AtpOptions:
    """Three prune points of six layers."""
    return AtpOptions(**{"layers": (1, 3, 4), "hidden": 8, "strides": STRIDES, **given})


def plain_llava(
    *, seed: int = 0, sharp: float = 1.0, dtype: torch.dtype = torch.float64, attention: str = "sdpa"
) -> Any:
    """The base model. sharp: factor on all attention logits."""
    model = small_llava(layers=6, dtype=dtype, attention=attention, seed=seed)
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            layer.self_attn.q_proj.weight *= sharp
    return model


def pruning_llava(
    given: AtpOptions | None = None,
    estimator: Estimator | None = None,
    *,
    seed: int = 0,
    trainable: bool = False,
    checkpointing: bool = False,
    **base: Any,
) -> PruningLlava:
    """Random thresholds, which differ from sample to sample, around `plain_llava(seed=seed, **base)`."""
    model = plain_llava(seed=seed, **base)
    torch.manual_seed(seed + 1)
    pruning = PruningLlava(model, given or options(), estimator, trainable=trainable, checkpointing=checkpointing)
    for module in pruning.thresholds:
        for weight, std in ((module.z.weight, 0.1), (module.head_r.weight, 0.3), (module.head_s.weight, 0.3)):
            nn.init.normal_(weight, std=std)
        if module.mix_logit is not None:
            nn.init.normal_(module.mix_logit)
    if model.dtype == torch.float64:
        pruning.thresholds.double()
    return pruning


def as_method(pruning: PruningLlava, model: Any) -> ATP:
    """The same thresholds, for the engine on `model`."""
    config = AdapterConfig(
        base=BaseModelId(id="small", fingerprint=fingerprint(model), num_layers=6, grid=(6, 6)),
        options=pruning.options,
    )
    points = len(pruning.options.layers)
    unused = torch.zeros(points, 2), torch.ones(1, points, dtype=torch.long)
    return ATP(adapter="small", trained=Adapter(config, pruning.thresholds, *unused))


class Talk(NamedTuple):
    """The length of a conversation's parts, in tokens. image: whether it has one between before and after."""

    before: int
    after: int
    answer: int
    image: bool = True


MIXED = (Talk(3, 5, 4), Talk(2, 9, 2), Talk(0, 7, 3, image=False), Talk(4, 4, 6))


def samples(talks: Sequence[Talk] = MIXED, seed: int = 1, dtype: torch.dtype = torch.float64) -> list[Sample]:
    """Random words and pictures."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for talk in talks:
        words = torch.randint(2, 180, (talk.before + talk.after + talk.answer,), generator=generator)
        cells = torch.full((36 if talk.image else 0,), IMAGE)
        ids = torch.cat([words[: talk.before], cells, words[talk.before :]])
        labels = ids.clone()
        labels[: len(ids) - talk.answer] = IGNORED
        pixels = torch.randn(3, 48, 48, generator=generator, dtype=dtype) if talk.image else None
        found.append(Sample(ids, labels, pixels))
    return found


def batch_of(found: Sequence[Sample], left: bool = False) -> dict[str, Tensor]:
    """As the training has it, padded on the right; or with the padding on the left."""
    batch = collate(found, PAD)
    if left:
        longest = batch["input_ids"].shape[1]
        for name, fill in (("input_ids", PAD), ("attention_mask", 0), ("labels", IGNORED)):
            rows = [row[: len(s.input_ids)] for row, s in zip(batch[name], found, strict=True)]
            batch[name] = torch.stack([F.pad(row, (longest - len(row), 0), value=fill) for row in rows])
    return batch


def prompts(found: Sequence[Sample]) -> dict[str, Tensor]:
    """The conversations without their answers, padded on the left, as the engine reads them."""
    asked = [
        s._replace(input_ids=s.input_ids[s.labels == IGNORED], labels=s.labels[s.labels == IGNORED]) for s in found
    ]
    batch = batch_of(asked, left=True)
    del batch["labels"]
    return batch
