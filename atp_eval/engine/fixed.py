"""Decoding at fixed shapes: the step of one new token as one piece of work, compiled or recorded once and run again.

A step of a 7B model is several hundred small kernels; in half precision starting them takes a GPU's host longer than
running them takes the GPU. Where no shape and no address changes from step to step, a CUDA graph starts them all at
once. Each layer's keys lie in a buffer of a fixed capacity of its own; how far it is filled is a tensor, and so is the
mask of the slots that count. A batch of the same size whose prompts fit in uses the same buffers and the same graph.

The buffers and masks are held equal to plain decoding by tests on the CPU, where a step runs eagerly or through
`torch.compile`; the recording of CUDA graphs has not been run yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, StaticLayer

from atp_eval.engine.decode import Prompt, Stage, stages_of
from atp_eval.errors import UserError

Mode = Literal["graph", "compiled"]
BLOCK = 64
"""Capacities are multiples of this, so that batches of about the same length share their buffers."""
WARM_UP = 3
"""Steps before a graph is recorded, in which libraries choose their kernels and take their memory."""
COMPILE: dict[str, Any] = {"mode": "reduce-overhead", "fullgraph": True}
"""How `torch.compile` is called for "compiled"; this mode records CUDA graphs where there is a GPU."""


class Shape(NamedTuple):
    """What has to be alike for a recorded step to be used again. capacities: of each stage; positions: which stages
    count tokens alike; layers: in each stage."""

    mode: Mode
    batch: int
    capacities: tuple[int, ...]
    positions: tuple[int, ...]
    layers: tuple[int, ...]


_last: WeakKeyDictionary[nn.Module, FixedDecoder] = WeakKeyDictionary()


def fixed_decoder(model: Any, cache: Cache, prompts: Sequence[Prompt], room: int, mode: Mode) -> FixedDecoder:
    """What decodes `room` more tokens behind prompts that lie in `cache`, which it empties: the model's last one, if
    the prompts fit into that.

    mode: "graph" records the step as a CUDA graph (on a CPU the step runs as it is), "compiled" gives it to
    `torch.compile`. Raises UserError for an attention other than SDPA.
    """
    attention = model.model.language_model.config._attn_implementation
    if attention != "sdpa":
        raise UserError(f"decoding at fixed shapes takes attention sdpa, and this model has {attention}")
    stages = stages_of(model, prompts)
    counts = list(dict.fromkeys(id(stage.prompt.position) for stage in stages))
    shape = Shape(
        mode,
        len(prompts[0].position),
        tuple(capacity(cache.get_seq_length(stage.ways[0].index), room) for stage in stages),
        tuple(counts.index(id(stage.prompt.position)) for stage in stages),
        tuple(len(stage.ways) for stage in stages),
    )
    decoder = _last.get(model)
    if decoder is None or decoder.shape != shape:
        _last.pop(model, None)  # its memory, before new is taken
        decoder = _last[model] = FixedDecoder(model, stages, shape, cache)
    decoder.load(cache, [stage.prompt for stage in stages])
    return decoder


def capacity(length: int, room: int) -> int:
    """Slots for a prompt and what comes behind it, warming up included."""
    return -(-(length + max(room, WARM_UP)) // BLOCK) * BLOCK


class FixedDecoder:
    """The way of one new token a row, with all that changes in tensors that stay where they are.

    It holds the model's parts and not the model, so that it goes when the model goes.
    """

    def __init__(self, model: Any, stages: Sequence[Stage], shape: Shape, like: Cache) -> None:
        """like: a cache with keys and values of the sizes, precision and places of what will come."""
        self.shape, self._stages = shape, stages
        text, device = model.model.language_model, model.device
        self._embed, self._rotary, self._norm, self._head = text.embed_tokens, text.rotary_emb, text.norm, model.lm_head
        layers = [StaticLayer(slots) for stage, slots in zip(stages, shape.capacities, strict=True) for _ in stage.ways]
        for layer, old in zip(layers, like.layers, strict=True):
            layer.lazy_initialization(old.keys[:, :, :0], old.values[:, :, :0])  # type: ignore[union-attr,index]
        self._cache: Any = Cache(layers=layers)  # type: ignore[arg-type]
        self._tokens = torch.zeros(shape.batch, 1, dtype=torch.long, device=device)
        self._positions = [torch.zeros_like(self._tokens) for _ in set(shape.positions)]
        self._masks = [
            torch.zeros(shape.batch, 1, 1, slots, dtype=torch.bool, device=device) for slots in shape.capacities
        ]
        for buffer in (self._tokens, *self._positions, *self._masks):
            torch._dynamo.mark_static_address(buffer)
        self._run: Callable[[], Tensor] = self._through
        if shape.mode == "compiled":
            self._run = torch.compile(self._through, **COMPILE)
        elif device.type == "cuda":
            self._run = recorded_graph(self._through)

    def load(self, cache: Cache, prompts: Sequence[Prompt]) -> None:
        """Take over the prompts of a batch, layer by layer, and empty the cache that they came in.

        Slots behind them are set to zero: what is not looked at is still multiplied by a weight of zero, and an
        earlier batch may have left something there that is not finite.
        """
        for stage, prompt, mask, group in zip(self._stages, prompts, self._masks, self.shape.positions, strict=True):
            mask.zero_()
            mask[:, 0, 0, : prompt.layout.valid.shape[1]] = prompt.layout.valid
            self._positions[group].copy_(prompt.position)
            for way in stage.ways:
                old, new = cache.layers[way.index], self._cache.layers[way.index]
                length = old.get_seq_length()  # type: ignore[union-attr]
                for source, buffer in ((old.keys, new.keys), (old.values, new.values)):  # type: ignore[union-attr]
                    buffer[:, :, :length] = source
                    buffer[:, :, length:].zero_()
                new.cumulative_length.fill_(length)
                old.reset()

    def step(self, tokens: Tensor) -> Tensor:
        """Logits [B, vocabulary] behind tokens [B]; they are good until the next step."""
        self._tokens.copy_(tokens[:, None])
        return self._run()

    def _through(self) -> Tensor:
        """One step on the buffers; nothing here depends on anything but them."""
        hidden = self._embed(self._tokens)
        tables = [self._rotary.forward(hidden, position_ids=position) for position in self._positions]
        for stage, mask, group in zip(self._stages, self._masks, self.shape.positions, strict=True):
            filled = self._cache.layers[stage.ways[0].index].cumulative_length
            mask.index_fill_(3, filled.view(1), True)
            for way in stage.ways:
                hidden = way.through(hidden, tables[group], mask, self._cache)
        for position in self._positions:
            position.add_(1)
        logits: Tensor = self._head(self._norm(hidden))
        return logits[:, -1]


def recorded_graph(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A CUDA graph of `work`, which reads and writes tensors that stay where they are. Runs it WARM_UP times first."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay
