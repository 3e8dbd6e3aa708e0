"""Attach a pruning method to a stock transformers model for the length of a `with` block.

Pre-hooks on the decoder layers shorten what enters them: hidden states, rotary tables and mask. Everything else is the
model's own code, so KV is written once a layer, for the tokens that are there, and every attention backend works. Where
method and model allow it, a layer before a prune point drops its rows earlier, behind its attention (`early.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration
from transformers.cache_utils import Cache

from atp_eval.engine import early
from atp_eval.engine.attention import Attention, coming_attention, forget, layer_mask, read_once
from atp_eval.engine.fingerprint import fingerprint, swapped
from atp_eval.engine.geometry import model_geometry, place_of
from atp_eval.engine.given import Given, readable
from atp_eval.engine.layout import Layout, read_prompts
from atp_eval.engine.prefill import Prefill
from atp_eval.engine.rope2d import coordinates, rotary_2d
from atp_eval.engine.vision import TowerView, VisionStates, recorded
from atp_eval.errors import UserError
from atp_eval.methods import Method, get_method
from atp_eval.trace import KeepTrace

_pruned_models: WeakSet[nn.Module] = WeakSet()


@contextmanager
def prune(
    model: LlavaForConditionalGeneration,
    method: str | Method,
    *,
    sample_ids: Sequence[str | int] | None = None,
    asked: Sequence[Sequence[int] | None] | None = None,
    vision: VisionStates | None = None,
    relevance: Tensor | None = None,
) -> Iterator[Pruned]:
    """Prune visual tokens in every prompt that `model` reads inside the block, by `method` ("fastv@144" or a Method).

    Works for calls of the model and for `generate` (greedy, sampling, beams; left-padded batches; prompts with and
    without an image mixed). Pruning happens once, when the prompt is read; how the tokens that stay are numbered is the
    method's (`Method.positions`).

    sample_ids: names of the batch's samples; methods with randomness draw by them, so that a sample's tokens do not
        depend on its batch. Default: a hash of the prompt's token ids, so the same question draws the same cells on
        every image.
    asked: for methods that read ground truth, the grid cells of what each sample's question is about.
    vision: for methods that look at the vision tower, where the model is not given pixels (`Bundle.generate`).
    relevance: [samples with a picture, V], for methods that compare patches with questions (`models.clip.ClipText`).
    Set `pruned.sample_ids` and the others for each batch where the block holds several.

    Raises UserError for a method that does not fit the model, a model that is being pruned already, several images in a
    prompt, padding on the right, `use_cache=False` in `generate`, or a cache of fixed size.
    """
    if model in _pruned_models:
        raise UserError("this model is being pruned already; leave that block first, one method at a time")
    method = get_method(method) if isinstance(method, str) else method
    pruned = Pruned(model, method, sample_ids, asked, vision, relevance)
    with ExitStack() as stack:
        _pruned_models.add(model)
        stack.callback(_pruned_models.discard, model)
        pruned._attach(stack)
        yield pruned


class Pruned:
    """A model under pruning. `method` is the solved method; `traces` are of the last prompt batch that was read."""

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        method: Method,
        sample_ids: Sequence[str | int] | None = None,
        asked: Sequence[Sequence[int] | None] | None = None,
        vision: VisionStates | None = None,
        relevance: Tensor | None = None,
    ) -> None:
        self.model: Any = model
        self.geometry = model_geometry(model.config, place_of(model))
        self.method = method.solve(self.geometry)
        self.method.verify(partial(fingerprint, model))
        self.sample_ids, self.asked, self.vision, self.relevance = sample_ids, asked, vision, relevance
        self._text_model: Any = model.model.language_model
        self._beams, self._generating, self._reading = 1, False, False
        self._prefill: Prefill | None = None
        self._cache: Cache | None = None
        self._attention: Attention | None = None
        self._masks: dict[int, Any] = {}
        self._rotaries: dict[int, tuple[Tensor, ...]] = {}
        self._pictures: list[VisionStates] = []
        self._moved: Tensor | None = None
        self._one_asked, self._last_only, self._all_asked = False, False, False

    @property
    def traces(self) -> list[KeepTrace]:
        """What stayed, one trace per sample of the last prompt batch (beams of a sample share one)."""
        if self._prefill is None:
            raise UserError("nothing was read yet: call the model inside the block first")
        return self._prefill.traces()

    @property
    def trace(self) -> KeepTrace:
        """The trace of a batch of one; UserError for a larger one."""
        traces = self.traces
        if len(traces) != 1:
            raise UserError(f"the last batch had {len(traces)} samples; take them from .traces")
        return traces[0]

    def _attach(self, stack: ExitStack) -> None:
        """Hook the model; `stack` takes all of it back."""
        layers, first = self._text_model.layers, min(self.method.prune_layers, default=len(self._text_model.layers))

        def hook(module: nn.Module, function: Any) -> None:
            stack.callback(module.register_forward_pre_hook(function, with_kwargs=True).remove)

        if self.method.language_model is not None:
            stack.enter_context(swapped(self.model, self.method.language_model))
        if self.method.positions == "2d":
            stack.callback(self._text_model.rotary_emb.register_forward_hook(self._rotate, with_kwargs=True).remove)
        if "vision" in self.method.needs:
            self._pictures = stack.enter_context(recorded(self.model))
        hook(self.model, self._enter_all)
        hook(self.model.model, self._enter_model)
        hook(self._text_model, self._enter_text_model)
        for index, layer in enumerate(layers):
            if index >= first:
                hook(layer, partial(self._enter_layer, index))
            if index + 1 in self.method.prune_layers:
                hook(layer.self_attn, self._enter_attention)
                stack.callback(forget, layer.self_attn)
                if self.method.early and early.known(layer, early.LAYERS):
                    layer.forward = partial(self._run_deciding_layer, index, layer, layer.forward)
                    stack.callback(delattr, layer, "forward")
        if first < len(layers) and early.known(layers[-1], early.LAST_LAYERS):
            layers[-1].forward = partial(self._run_last_layer, layers[-1], layers[-1].forward)
            stack.callback(delattr, layers[-1], "forward")
        self.model._expand_inputs_for_generation = partial(
            self._expand_inputs, self.model._expand_inputs_for_generation
        )
        stack.callback(delattr, self.model, "_expand_inputs_for_generation")

    def _expand_inputs(self, expand: Callable[..., Any], expand_size: int = 1, **kwargs: Any) -> Any:
        """Called by `generate` to repeat a prompt for its beams: the only place that tells beams from samples."""
        self._beams, self._generating = expand_size, True
        return expand(expand_size=expand_size, **kwargs)

    def _enter_all(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before everything: whether the caller asks for the next word alone, as `generate` does."""
        kept = kwargs.get("logits_to_keep", 0)
        self._one_asked = isinstance(kept, int) and kept == 1

    def _enter_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before the vision-language model: a new batch of prompts, or more tokens of the last one."""
        cache = kwargs.get("past_key_values")
        self._masks, self._rotaries = {}, {}
        self._last_only, self._one_asked = self._one_asked, False
        self._reading = cache is None or cache.get_seq_length() == 0
        if self._reading:
            self._start(args[0] if args else kwargs.get("input_ids"), kwargs.get("attention_mask"), cache)
            if self._generating and not kwargs.get("use_cache", True):
                raise UserError(
                    "generate(use_cache=False) reads the prompt again for every token; pruning needs the cache"
                )
            self._generating = False
        elif self._prefill is not None and cache is not None:
            return self._continue(args, kwargs, cache)
        return None

    def _start(self, input_ids: Tensor | None, attention_mask: Tensor | None, cache: Cache | None) -> None:
        beams, self._beams = self._beams, 1
        self._prefill, self._attention = None, None
        input_ids = readable(input_ids, attention_mask, cache)
        given = Given(self.sample_ids, self.asked, self.vision, self.relevance)
        given.check(len(input_ids) // beams)
        prompts = read_prompts(input_ids, attention_mask, self.model.config.image_token_id, self.geometry.cells)
        tower = partial(TowerView, self.model)
        self._prefill = Prefill(self.geometry, prompts, beams, input_ids, given, tower, self._text_model.norm)

    def _continue(self, args: tuple[Any, ...], kwargs: dict[str, Any], cache: Cache) -> Any:
        """Feed what is new only: `generate` counts the prompt by layer 0, which is short if it was pruned."""
        assert self._prefill is not None
        input_ids = args[0] if args else kwargs["input_ids"]
        if input_ids.shape[1] == 1:
            return None
        mask: Tensor | None = kwargs.get("attention_mask")
        positions: Any = kwargs.get("position_ids")
        if mask is not None or positions is not None:  # either tells the length of the whole text
            total = mask.shape[1] if mask is not None else int(positions[..., -1].max()) + 1
            new = total - self._fed(cache)
            input_ids = input_ids[:, -new:]
            kwargs["position_ids"] = None if positions is None else positions[..., -new:]
        if bool((input_ids == self.model.config.image_token_id).any()):
            raise UserError("an image in a later turn cannot be pruned; start a new prompt")
        return ((input_ids, *args[1:]), kwargs) if args else ((), {**kwargs, "input_ids": input_ids})

    def _fed(self, cache: Cache) -> int:
        """Tokens fed so far, padding and pruned ones included."""
        assert self._prefill is not None
        first = self._prefill.start
        if 0 in self.method.prune_layers and self._prefill.layouts:
            first = self._prefill.layouts[0]
        return cache.get_seq_length() - first.valid.shape[1] + self._prefill.start.valid.shape[1]

    def _enter_text_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Positions of later tokens go on from the unpruned prompt; transformers would count the cache of layer 0."""
        config = self._text_model.config
        self._all_asked = any(
            kwargs.get(name, getattr(config, name)) for name in ("output_hidden_states", "output_attentions")
        )
        if self._reading:
            self._look(kwargs["inputs_embeds"])
        if self._reading or self._prefill is None or kwargs.get("position_ids") is not None:
            return None
        embeds, fed = kwargs["inputs_embeds"], self._fed(kwargs["past_key_values"])
        kwargs["position_ids"] = torch.arange(fed, fed + embeds.shape[1], device=embeds.device)[None]
        return args, kwargs

    def _look(self, embeddings: Tensor) -> None:
        """Hand the method what it needs of what was made so far: the LLM's input, and the states of the pictures."""
        if not self._has_images():
            return
        assert self._prefill is not None
        given, needs = self._prefill.given, self.method.needs
        if "embeddings" in needs:
            given.embeddings = embeddings
        if "vision" not in needs or given.vision is not None:
            return
        if not self._pictures:
            raise UserError(
                f"{self.method.label} looks at the vision tower: give pixel_values, or the pictures' states as vision="
            )
        given.vision = self._pictures[-1].of(sum(self._prefill.has_image))
        self._pictures.clear()

    def _rotate(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """After the rotary embedding: the image by rows and columns; later tokens move as the prompt's last one did.

        Without given positions transformers counts padding too, in the prompt and afterwards.
        """
        if not self._has_images():
            return None
        assert self._prefill is not None
        hidden, positions = args[0], kwargs["position_ids"]
        if self._reading:
            places = coordinates(self._prefill.start, self.geometry.grid)
            self._moved = places[0, :, -1:] - positions[:, -1:]
            return rotary_2d(module.forward, hidden, places)
        return module.forward(hidden, position_ids=positions + self._moved)

    def _enter_attention(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the attention of the layer that a prune point scores from."""
        if self._reading and self._has_images():
            read_once(module, self._remember)

    def _remember(self, attention: Attention) -> None:
        self._attention = attention

    def _has_images(self) -> bool:
        return self._prefill is not None and any(self._prefill.has_image)

    def _enter_layer(self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before a decoder layer at or after the first prune point."""
        if not self._has_images():
            return None
        assert self._prefill is not None
        prefill, (hidden, *rest) = self._prefill, args
        cache = kwargs.get("past_key_values")
        if self._reading:
            self._cache = cache
            self._take_rotary(hidden, kwargs)
            if index in self.method.prune_layers and self._stage_of(index) == len(prefill.layouts):
                coming = partial(coming_attention, module)
                hidden = prefill.prune(self.method, index, hidden, self._attention, coming)
                self._leave_point(hidden)
            kwargs["position_embeddings"] = prefill.rotary
        elif cache is not self._cache or len(hidden) != len(prefill.start.lengths):
            raise UserError(
                "this cache is not of the last prompt batch; go on with a batch before reading the next one"
            )
        elif self.method.positions == "contiguous":
            kwargs["position_embeddings"] = self._rotary(index, hidden, cache)
        kwargs["position_ids"] = None  # FlashAttention reads the gaps of pruned positions as packed sequences
        kwargs["attention_mask"] = self._mask(index, hidden, cache)
        return (hidden, *rest), kwargs

    def _take_rotary(self, hidden: Tensor, kwargs: dict[str, Any]) -> None:
        """Once a prompt: the rotary tables of the model itself, for each row."""
        assert self._prefill is not None
        if self._prefill.rotary is None:
            self._prefill.rotary = tuple(t.expand(len(hidden), -1, -1) for t in kwargs["position_embeddings"])

    def _leave_point(self, like: Tensor) -> None:
        """Behind a prune point: its attention is no longer needed, and gaps in positions may have to be closed."""
        assert self._prefill is not None
        prefill, self._attention = self._prefill, None
        if self.method.positions == "contiguous":
            prefill.rotary = self._text_model.rotary_emb(like, position_ids=prefill.layout.places)

    def _run_deciding_layer(
        self, index: int, layer: nn.Module, own: Callable[..., Tensor], hidden: Tensor, **kwargs: Any
    ) -> Tensor:
        """The forward of a layer before a prune point of an early method: tokens leave behind its attention."""
        if not self._reading or self._all_asked or not self._has_images():
            return own(hidden, **kwargs)
        self._take_rotary(hidden, kwargs)

        def decide() -> Tensor:
            assert self._prefill is not None and self._attention is not None
            rows = self._prefill.prune_early(self.method, index + 1, self._attention)
            self._leave_point(hidden)
            return rows

        return early.surviving_rows(layer, hidden, decide, **kwargs)

    def _run_last_layer(self, layer: nn.Module, own: Callable[..., Tensor], hidden: Tensor, **kwargs: Any) -> Tensor:
        """The forward of the last layer: one row goes through it where one is asked for.

        Not where nothing was dropped: one row alone is rounded otherwise than among others, and that answer is to be
        the untouched model's to the bit.
        """
        prefill, mask = self._prefill, kwargs.pop("attention_mask", None)
        if (
            prefill is None
            or not (self._reading and self._last_only)
            or self._all_asked
            or layer.training  # attention drops out there
            or list(prefill.layout.lengths) == list(prefill.start.lengths)
        ):
            return own(hidden, attention_mask=mask, **kwargs)
        length = hidden.shape[1]
        mask = layer_mask(self._text_model.config, prefill.layout, 1, length - 1, hidden)
        return early.last_row(layer, hidden, mask, **kwargs)

    def _rotary(self, index: int, hidden: Tensor, cache: Any) -> tuple[Tensor, ...]:
        """Rotary tables of later tokens, which go on from what is in the layer's cache; the same in all of a stage."""
        stage, layout = self._stage(index)
        if stage not in self._rotaries:
            places = layout.places_after(cache.get_seq_length(index), hidden.shape[1])
            self._rotaries[stage] = self._text_model.rotary_emb(hidden, position_ids=places)
        return self._rotaries[stage]

    def _mask(self, index: int, hidden: Tensor, cache: Cache | None) -> Any:
        """One mask for all layers of a stage."""
        stage, layout = self._stage(index)
        if stage not in self._masks:
            past = 0 if self._reading or cache is None else cache.get_seq_length(index)
            self._masks[stage] = layer_mask(self._text_model.config, layout, hidden.shape[1], past, hidden)
        return self._masks[stage]

    def _stage(self, index: int) -> tuple[int, Layout]:
        """The last prune point at or before a layer, counted from 0, and the prompt's layout from there on."""
        assert self._prefill is not None
        stage = self._stage_of(index)
        return stage, self._prefill.layouts[stage]

    def _stage_of(self, index: int) -> int:
        return sum(layer <= index for layer in self.method.prune_layers) - 1
