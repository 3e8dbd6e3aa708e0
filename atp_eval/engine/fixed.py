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


KEPT = 8
"""Decoders of a model that are kept: methods that take turns need one each."""

MOST_KINDS = 10_000
"""Compilations of the step before dynamo refuses more."""


class Kind(NamedTuple):
    """What has to be alike for a recorded step to be used again. positions: which stages count tokens alike; layers:
    in each stage; weights: where the decoder's lie, since a graph reads them there."""

    mode: Mode
    batch: int
    positions: tuple[int, ...]
    layers: tuple[int, ...]
    weights: int


_kept: WeakKeyDictionary[nn.Module, dict[Kind, FixedDecoder]] = WeakKeyDictionary()


def fixed_decoder(model: Any, cache: Cache, prompts: Sequence[Prompt], room: int, mode: Mode) -> FixedDecoder:
    """What decodes `room` more tokens behind prompts that lie in `cache`, which it empties: an earlier one of the
    model, if the prompts fit into that.

    mode: "graph" records the step as a CUDA graph (on a CPU the step runs as it is), "compiled" gives it to
    `torch.compile`. Raises UserError for an attention other than SDPA.
    """
    text = model.model.language_model
    if (attention := text.config._attn_implementation) != "sdpa":
        raise UserError(f"decoding at fixed shapes takes attention sdpa, and this model has {attention}")
    stages = stages_of(model, prompts)
    counts = list(dict.fromkeys(id(stage.prompt.position) for stage in stages))
    kind = Kind(
        mode,
        len(prompts[0].position),
        tuple(counts.index(id(stage.prompt.position)) for stage in stages),
        tuple(len(stage.ways) for stage in stages),
        hash(tuple(weight.data_ptr() for part in (text, model.lm_head) for weight in part.parameters())),
    )
    needed = tuple(capacity(cache.get_seq_length(stage.ways[0].index), room) for stage in stages)
    known = _kept.setdefault(model, {})
    decoder = known.pop(kind, None)  # and back again below, as the latest
    if decoder is None or any(has < wants for has, wants in zip(decoder.capacities, needed, strict=True)):
        while len(known) >= KEPT:
            del known[next(iter(known))]
        had = decoder.capacities if decoder else needed
        decoder = None  # its memory, before new is taken
        decoder = FixedDecoder(model, stages, kind, tuple(map(max, had, needed)), cache)
    known[kind] = decoder
    decoder.load(cache, [stage.prompt for stage in stages])
    return decoder


def forget_decoders(model: nn.Module) -> None:
    """Give back the memory of all decoders that are kept."""
    _kept.pop(model, None)


def capacity(length: int, room: int) -> int:
    """Slots for a prompt and what comes behind it, warming up included."""
    return -(-(length + max(room, WARM_UP)) // BLOCK) * BLOCK


class FixedDecoder:
    """A step that was compiled or recorded, and what it works on."""

    def __init__(
        self, model: Any, stages: Sequence[Stage], kind: Kind, capacities: tuple[int, ...], like: Cache
    ) -> None:
        """capacities: slots of each stage. like: a cache with keys and values of the sizes, precision and places of
        what will come."""
        self.kind, self.capacities = kind, capacities
        self.buffers = Buffers(model, stages, kind, capacities, like)
        self._run: Callable[[], Tensor] = self.buffers.through
        if kind.mode == "compiled":
            self._run = compiled(self.buffers.through)
        elif model.device.type == "cuda":
            self._run = recorded_graph(self.buffers.through, model.device)

    def load(self, cache: Cache, prompts: Sequence[Prompt]) -> None:
        """Take over the prompts of a batch, layer by layer, and empty the cache that they came in."""
        self.buffers.load(cache, prompts)

    def step(self, tokens: Tensor) -> Tensor:
        """Logits [B, vocabulary] behind tokens [B]; they are good until the next step."""
        self.buffers.tokens.copy_(tokens[:, None])
        return self._run()


class Buffers:
    """The way of one new token a row, with all that changes in tensors that stay where they are.

    It holds the model's parts and not the model, so that it goes when the model goes.
    """

    def __init__(self, model: Any, stages: Sequence[Stage], kind: Kind, capacities: Sequence[int], like: Cache) -> None:
        text, device = model.model.language_model, model.device
        self._embed, self._rotary, self._norm, self._head = text.embed_tokens, text.rotary_emb, text.norm, model.lm_head
        self._ways, self._groups = [stage.ways for stage in stages], kind.positions
        layers = [StaticLayer(slots) for ways, slots in zip(self._ways, capacities, strict=True) for _ in ways]
        for layer, old in zip(layers, like.layers, strict=True):
            layer.lazy_initialization(old.keys[:, :, :0], old.values[:, :, :0])  # type: ignore[union-attr,index]
        self.cache: Any = Cache(layers=layers)  # type: ignore[arg-type]
        self.tokens = torch.zeros(kind.batch, 1, dtype=torch.long, device=device)
        self._positions = [torch.zeros_like(self.tokens) for _ in set(kind.positions)]
        self._masks = [torch.zeros(kind.batch, 1, 1, slots, dtype=torch.bool, device=device) for slots in capacities]
        for buffer in (self.tokens, *self._positions, *self._masks):
            torch._dynamo.mark_static_address(buffer, guard=False)

    def load(self, cache: Cache, prompts: Sequence[Prompt]) -> None:
        """Take over prompts from the cache in which they were read, and empty that.

        Slots behind them are set to zero: what is not looked at is still multiplied by a weight of zero, and an
        earlier batch may have left something there that is not finite.
        """
        for ways, prompt, mask, group in zip(self._ways, prompts, self._masks, self._groups, strict=True):
            mask.zero_()
            mask[:, 0, 0, : prompt.layout.valid.shape[1]] = prompt.layout.valid
            self._positions[group].copy_(prompt.position)
            for way in ways:
                old, new = cache.layers[way.index], self.cache.layers[way.index]
                length = old.get_seq_length()  # type: ignore[union-attr]
                for source, buffer in ((old.keys, new.keys), (old.values, new.values)):  # type: ignore[union-attr]
                    buffer[:, :, :length] = source
                    buffer[:, :, length:].zero_()
                new.cumulative_length.fill_(length)
                old.reset()

    def through(self) -> Tensor:
        """One step on the buffers; nothing here depends on anything but them."""
        hidden = self._embed(self.tokens)
        tables = [self._rotary.forward(hidden, position_ids=position) for position in self._positions]
        for ways, mask, group in zip(self._ways, self._masks, self._groups, strict=True):
            filled = self.cache.layers[ways[0].index].cumulative_length
            mask.index_fill_(3, filled.view(1), True)
            for way in ways:
                hidden = way.through(hidden, tables[group], mask, self.cache)
        for position in self._positions:
            position.add_(1)
        logits: Tensor = self._head(self._norm(hidden))
        return logits[:, -1]


def compiled(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """`torch.compile` of `work`, which shares its code with other decoders: dynamo counts their compilations together,
    and would give up after a few."""
    fast = torch.compile(work, **COMPILE)

    def run() -> Tensor:
        with torch._dynamo.config.patch(recompile_limit=MOST_KINDS, accumulated_recompile_limit=MOST_KINDS):
            return fast()

    return run


def recorded_graph(work: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """A CUDA graph of `work`, which reads and writes tensors of a device that stay where they are. Runs it WARM_UP
    times first."""
    with torch.cuda.device(device):  # streams and graphs are of the current one
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
        with torch.cuda.device(device):
            graph.replay()
        return result

    return replay
