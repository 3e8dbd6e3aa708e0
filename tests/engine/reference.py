"""The slow truth: keep every token, mask the pruned ones as keys in the layers after, no cache, full attention maps.

Shares no code with the engine: it finds the scores in the maps and asks the same method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from atp_eval.methods import Method
from atp_eval.methods.point import Embeddings, TextTokens
from engine.small import IMAGE, Batch


class SlowVision:
    """A `Vision` from the tower's own list of hidden states."""

    def __init__(self, model: Any, pixels: Tensor) -> None:
        self.model, self.pixels = model, pixels
        self.tower = model.model.vision_tower
        self.states = self.tower(pixels, output_hidden_states=True).hidden_states
        self.chosen = model.config.vision_feature_layer  # negative in the tests
        self.first = 1 if "clip" in model.config.vision_config.model_type else 0

    @property
    def features(self) -> Tensor:
        return self.states[self.chosen][:, self.first :]

    @property
    def cls_feature(self) -> Tensor:
        return self.states[self.chosen][:, 0]

    def _heads(self, which: Literal["own", "next"], name: str) -> Tensor:
        at = self.chosen if which == "own" else min(-1, self.chosen + 1)
        layer = self.tower.encoder.layers[at]
        made = getattr(layer.self_attn, name)(layer.layer_norm1(self.states[at - 1]))
        heads = layer.self_attn.num_heads
        return torch.stack(made.chunk(heads, -1), 1)

    def queries(self, layer: Literal["own", "next"]) -> Tensor:
        return self._heads(layer, "q_proj")

    def keys(self, layer: Literal["own", "next"]) -> Tensor:
        return self._heads(layer, "k_proj")

    def project(self, features: Tensor) -> Tensor:
        return self.model.model.multi_modal_projector(features)

    def encode_resized(self, rows: int, cols: int) -> Tensor:
        patch = self.model.config.vision_config.patch_size
        small = interpolate(self.pixels.float(), (rows * patch, cols * patch), mode="bicubic", antialias=True)
        states = self.tower(small.to(self.pixels.dtype), output_hidden_states=True, interpolate_pos_encoding=True)
        return self.project(states.hidden_states[self.chosen][:, self.first :])


class MapPoint:
    """A `Point` for one sample, read from the full maps [H, L, L] of the layer before."""

    sample_ids: list[str]

    def __init__(self, run: Reference, layer: int, hidden: Tensor) -> None:
        self.layer, self.grid, self.sample_ids = layer, run.grid, [run.name]
        self._run, self._hidden = run, hidden
        self._text = slice(int(run.image[-1]) + 1, run.prompt)
        self.kept = run.alive[run.image][None]

    @property
    def order(self) -> Tensor:
        sequence = self._run.sequence[self._run.image]
        alive = self.kept[0]
        ranks = [sum(other < mine for other in sequence[alive]) for mine in sequence]
        return torch.stack(ranks).masked_fill(~alive, len(sequence))[None]

    @property
    def hidden(self) -> Tensor:
        return self._hidden[:, self._run.image] * self.kept[..., None]

    @property
    def embeddings(self) -> Embeddings:
        start = self._run.start
        return Embeddings(start[:, self._run.image], start[:, self._text], self._is_text)

    @property
    def vision(self) -> SlowVision:
        return SlowVision(self._run.model, self._run.pixels)

    @property
    def asked(self) -> Tensor:
        cells = torch.zeros(1, len(self._run.image), dtype=torch.bool)
        cells[0, list(self._run.asked)] = True
        return cells

    @property
    def keys(self) -> Tensor:
        return self._run.keys[:, :, self._run.image].transpose(1, 2) * self.kept[..., None, None]

    @property
    def text(self) -> TextTokens:
        keys = self._run.keys[:, :, self._text].transpose(1, 2)
        return TextTokens(self._is_text, self._hidden[:, self._text], keys)

    @property
    def _is_text(self) -> Tensor:
        return torch.ones(1, self._text.stop - self._text.start, dtype=torch.bool)

    def final_norm(self, hidden: Tensor) -> Tensor:
        return self._run.model.model.language_model.norm(hidden)

    def _cells(self, scores: Tensor) -> Tensor:
        return scores[self._run.image][None].masked_fill(~self.kept, float("-inf"))

    def self_score(self, causal: bool = False) -> Tensor:
        visual = torch.zeros_like(self._run.alive).index_fill(0, self._run.image[self.kept[0]], True)
        counted = visual[:, None].expand_as(self._run.logits[0])
        counted = counted.tril() if causal else counted  # [queries, keys]
        return self._cells((self._run.logits.mean(0) * counted).sum(0) / counted.sum(0))

    def cross_score(self) -> Tensor:
        return self._cells(self._run.maps[:, self._text].mean((0, 1)))

    def last_row(self) -> Tensor:
        return self._cells(self._run.maps[:, -1].mean(0))

    def rows(self, weights: Tensor) -> Tensor:
        share = weights[0] / weights.sum()
        return self._cells((self._run.maps[:, -weights.shape[1] :].mean(0) * share[:, None]).sum(0))

    def coming_row(self) -> Tensor:
        layer, run = self._run.layers[self.layer], self._run
        normed, attention = layer.input_layernorm(self._hidden), layer.self_attn
        cos, sin = run.tables

        def turned(x: Tensor) -> Tensor:  # [1, L, heads * d] -> [heads, L, d]
            x = torch.stack(x[0].split(attention.head_dim, -1))
            half = x.shape[-1] // 2
            return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

        query, key = turned(attention.q_proj(normed)), turned(attention.k_proj(normed))
        key = key.repeat_interleave(len(query) // len(key), 0)
        logits = (query[:, -1:] * key).sum(-1) * attention.head_dim**-0.5
        return self._cells(logits.masked_fill(~run.alive, float("-inf")).softmax(-1).mean(0))


class Reference:
    """Answers one unpadded sample by `method`; `kept` [layers, V] then says which cells entered each layer.

    asked: the cells that the question is about.
    """

    def __init__(self, model: Any, method: Method, name: str = "", asked: Sequence[int] = ()) -> None:
        self.model, self.name, self.asked = model, name, asked
        self.layers = model.model.language_model.layers
        side = model.config.vision_config.image_size // model.config.vision_config.patch_size
        self.grid = (side, side)
        self.method = method
        self.decisions: dict[int, Any] = {}

    @torch.no_grad()
    def logits_of(self, batch: Batch, steps: int) -> Tensor:
        """[steps, vocab] of greedy decoding, everything computed again at every step."""
        ids, found = batch.ids, []
        assert batch.pixels is not None
        self.prompt, self.pixels = ids.shape[1], batch.pixels
        self.image = torch.where(ids[0] == IMAGE)[0]
        config = self.model.model.language_model.config
        before, config._attn_implementation = config._attn_implementation, "test_reference"
        hooks = [
            layer.register_forward_pre_hook(lambda m, args, kwargs, i=i: self._enter(i, args, kwargs), with_kwargs=True)
            for i, layer in enumerate(self.layers)
        ]
        _running.append(self)
        try:
            for _ in range(steps):
                self.alive = torch.ones(ids.shape[1], dtype=torch.bool)
                self.sequence = torch.arange(ids.shape[1])
                self.places = torch.arange(ids.shape[1])
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

    def _enter(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = args[0]
        if index == 0:
            self.start = hidden
        self.tables = self._tables(hidden)
        if index in self.method.prune_layers:
            if index not in self.decisions:
                self.decisions[index] = self.method.decide(MapPoint(self, index, hidden))
            hidden = self._apply(self.decisions[index], hidden)
            self.tables = self._tables(hidden)
        self.kept[index] = self.alive[self.image]
        kwargs["position_embeddings"] = tuple(table[None] for table in self.tables)
        return (hidden, *args[1:]), kwargs

    def _apply(self, decision: Any, hidden: Tensor) -> Tensor:
        """Put in what the decision merges, drop what it drops, reorder what it reorders."""
        stay, put = decision.keep[0], torch.zeros_like(decision.keep[0])
        if decision.carry is not None:
            stay, put = stay | decision.carry[0], put | decision.carry[0]
        if decision.rewrite is not None:
            put = put | decision.rewrite[0]
        if put.any():
            hidden = hidden.clone()
            hidden[:, self.image[put]] = decision.values[:, put]
        self.alive[self.image] &= stay
        left = [slot for slot in self.image.tolist() if self.alive[slot]]
        if decision.order is not None:
            wanted = dict(zip(self.image.tolist(), decision.order[0].tolist(), strict=True))
            spots = sorted(self.sequence[left].tolist())
            for slot, spot in zip(sorted(left, key=wanted.__getitem__), spots, strict=True):
                self.sequence[slot] = spot
        if self.method.positions == "contiguous":
            living = torch.where(self.alive)[0]
            self.places[living[self.sequence[living].argsort()]] = torch.arange(len(living))
        return hidden

    def _tables(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary tables [L, d] for the tokens' places."""
        cos, sin = self.model.model.language_model.rotary_emb(hidden, position_ids=self.places[None])
        return cos[0], sin[0]


_running: list[Reference] = []


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float, **_: Any) -> Any:
    """Attention of one sample over everything that is alive, written out; leaves its maps in the running Reference."""
    run, share = _running[-1], query.shape[1] // key.shape[1]
    run.keys = key
    key, value, length = key.repeat_interleave(share, 1), value.repeat_interleave(share, 1), query.shape[2]
    logits = query @ key.transpose(2, 3) * scaling
    before = run.sequence[None, :] <= run.sequence[:, None]  # [queries, keys]
    seen = before & run.alive | torch.eye(length, dtype=torch.bool)
    maps = logits.masked_fill(~seen, float("-inf")).softmax(-1)
    run.logits, run.maps = logits[0], maps[0]
    return (maps @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register("test_reference", _attend)
AttentionMaskInterface.register("test_reference", sdpa_mask)
