"""What stock LLaVA answers when its visual tokens are replaced by others: how methods before the LLM were published."""

from __future__ import annotations

from typing import Any

import torch
from engine.small import IMAGE, Batch, small_llava
from torch import Tensor


def sharp_llava() -> Any:
    """A small model whose CLS token prefers some patches strongly, in both layers of its tower."""
    model = small_llava()
    with torch.no_grad():
        for layer in model.model.vision_tower.encoder.layers:
            layer.self_attn.q_proj.weight.mul_(3)
            layer.self_attn.k_proj.weight.mul_(3)
            layer.self_attn.k_proj.bias.normal_(generator=torch.Generator().manual_seed(3))
            layer.self_attn.q_proj.bias.normal_(generator=torch.Generator().manual_seed(4))
    return model


@torch.no_grad()
def spliced(model: Any, batch: Batch, visual: Tensor, steps: int) -> Tensor:
    """[steps, vocab]: greedy logits of a prompt alone whose image is `visual` [n, D]; no cache, no pruning."""
    embed = model.get_input_embeddings()
    image, found = batch.ids[0] == IMAGE, []
    before = embed(batch.ids[0][: int(image.int().argmax())])
    after = embed(batch.ids[0][len(before) + int(image.sum()) :])
    for _ in range(steps):
        out = model.model.language_model(inputs_embeds=torch.cat([before, visual, after])[None], use_cache=False)
        logits = model.lm_head(out.last_hidden_state[:, -1])
        found.append(logits)
        after = torch.cat([after, embed(logits.argmax(-1))])
    return torch.cat(found)
