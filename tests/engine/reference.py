"""The slow truth: keep every token, mask the pruned ones as keys in the layers after, no cache, full attention maps.

Shares no code with the engine: it finds the scores in the maps and asks the same method.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from atp_eval.methods import Method
from engine.small import IMAGE, Batch


class MapPoint:
    """A `Point` for one sample, read from the full maps [H, L, L] of the layer before."""

    sample_ids: list[str]

    def __init__(self, run: Reference, layer: int, hidden: Tensor) -> None:
        self.layer, self.grid, self.sample_ids = layer, run.grid, [run.name]
        self._run, self._hidden = run, hidden
        self.kept = run.alive[run.image][None]

    @property
    def hidden(self) -> Tensor:
        return self._hidden[:, self._run.image] * self.kept[..., None]

    def _cells(self, scores: Tensor) -> Tensor:
        return scores[self._run.image][None].masked_fill(~self.kept, float("-inf"))

    def self_score(self, causal: bool = False) -> Tensor:
        visual = torch.zeros_like(self._run.alive).index_fill(0, self._run.image[self.kept[0]], True)
        counted = visual[:, None].expand_as(self._run.logits[0])
        counted = counted.tril() if causal else counted  # [queries, keys]
        return self._cells((self._run.logits.mean(0) * counted).sum(0) / counted.sum(0))

    def cross_score(self) -> Tensor:
        return self._cells(self._run.maps[:, int(self._run.image[-1]) + 1 : self._run.prompt].mean((0, 1)))

    def last_row(self) -> Tensor:
        return self._cells(self._run.maps[:, -1].mean(0))

    def rows(self, weights: Tensor) -> Tensor:
        share = weights[0] / weights.sum()
        return self._cells((self._run.maps[:, -weights.shape[1] :].mean(0) * share[:, None]).sum(0))


class Reference:
    """Answers one unpadded sample by `method`; `kept` [layers, V] then says which cells entered each layer."""

    def __init__(self, model: Any, method: Method, name: str = "") -> None:
        self.model, self.name = model, name
        self.layers = model.model.language_model.layers
        side = model.config.vision_config.image_size // model.config.vision_config.patch_size
        self.grid = (side, side)
        self.method = method
        self.decisions: dict[int, Any] = {}

    @torch.no_grad()
    def logits_of(self, batch: Batch, steps: int) -> Tensor:
        """[steps, vocab] of greedy decoding, everything computed again at every step."""
        ids, found = batch.ids, []
        self.prompt = ids.shape[1]
        self.image = torch.where(ids[0] == IMAGE)[0]
        config = self.model.model.language_model.config
        before, config._attn_implementation = config._attn_implementation, "test_reference"
        hooks = [
            layer.register_forward_pre_hook(lambda m, args, i=i: self._enter(i, args))
            for i, layer in enumerate(self.layers)
        ]
        _running.append(self)
        try:
            for _ in range(steps):
                self.alive = torch.ones(ids.shape[1], dtype=torch.bool)
                self.kept = torch.zeros(len(self.layers), len(self.image), dtype=torch.bool)
                out = self.model(input_ids=ids, pixel_values=batch.pixels, use_cache=False).logits[:, -1]
                found.append(out)
                ids = torch.cat([ids, out.argmax(-1, keepdim=True)], 1)
        finally:
            _running.pop()
            for hook in hooks:
                hook.remove()
            config._attn_implementation = before
        return torch.cat(found)

    def _enter(self, index: int, args: tuple[Any, ...]) -> Any:
        hidden = args[0]
        if index in self.method.prune_layers:
            if index not in self.decisions:
                self.decisions[index] = self.method.decide(MapPoint(self, index, hidden))
            decision = self.decisions[index]
            stay = decision.keep[0]
            if decision.carry is not None:
                places = self.image[decision.carry[0]]
                hidden = hidden.clone()
                hidden[:, places] = decision.values[:, decision.carry[0]]
                stay = stay | decision.carry[0]
            self.alive[self.image] &= stay
        self.kept[index] = self.alive[self.image]
        return (hidden, *args[1:])


_running: list[Reference] = []


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float, **_: Any) -> Any:
    """Attention of one sample over everything that is alive, written out; leaves its maps in the running Reference."""
    run, share = _running[-1], query.shape[1] // key.shape[1]
    key, value, length = key.repeat_interleave(share, 1), value.repeat_interleave(share, 1), query.shape[2]
    logits = query @ key.transpose(2, 3) * scaling
    seen = torch.ones(length, length, dtype=torch.bool).tril() & run.alive | torch.eye(length, dtype=torch.bool)
    maps = logits.masked_fill(~seen, float("-inf")).softmax(-1)
    run.logits, run.maps = logits[0], maps[0]
    return (maps @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register("test_reference", _attend)
AttentionMaskInterface.register("test_reference", sdpa_mask)
