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
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration
from transformers.cache_utils import Cache

from atp_eval.engine.fingerprint import fingerprint, swapped
from atp_eval.engine.geometry import model_geometry, place_of
from atp_eval.engine.given import Given, readable
from atp_eval.engine.layout import Layout, read_prompts
from atp_eval.engine.passage import Passage
from atp_eval.engine.prefill import Prefill
from atp_eval.engine.rope2d import coordinates, rotary_2d
from atp_eval.engine.vision import TowerView, VisionStates, recorded
from atp_eval.errors import UserError
from atp_eval.methods import Method, get_method
from atp_eval.trace import KeepTrace

_pruned_models: WeakKeyDictionary[nn.Module, Pruned] = WeakKeyDictionary()


@contextmanager
def prune(
    model: LlavaForConditionalGeneration,
    method: str | Method,
    *,
    sample_ids: Sequence[str | int] | None = None,
    asked: Sequence[Sequence[int] | None] | None = None,
    vision: VisionStates | None = None,
    relevance: Tensor | None = None,
    pictures: Sequence[str | None] | None = None,
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
    pictures: a name for each sample's picture; equal names say that it is the same. What prompts about one picture
        begin with is then read once for all of them, as far as the method does not look at the question (not with
        beams).
    Set `pruned.sample_ids` and the others for each batch where the block holds several.

    Raises UserError for a method that does not fit the model, a model that is being pruned already, several images in a
    prompt, padding on the right, `use_cache=False` in `generate`, or a cache of fixed size.
    """
    if model in _pruned_models:
        raise UserError("this model is being pruned already; leave that block first, one method at a time")
    method = get_method(method) if isinstance(method, str) else method
    pruned = Pruned(model, method, sample_ids, asked, vision, relevance, pictures)
    with ExitStack() as stack:
        _pruned_models[model] = pruned
        stack.callback(_pruned_models.pop, model)
        pruned._attach(stack)
        yield pruned


def pruning_of(model: nn.Module) -> Pruned | None:
    """What goes on in the block that `model` is in; None outside of one."""
    return _pruned_models.get(model)


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
        pictures: Sequence[str | None] | None = None,
    ) -> None:
        self.model: Any = model
        self.geometry = model_geometry(model.config, place_of(model))
        self.method = method.solve(self.geometry)
        self.method.verify(partial(fingerprint, model))
        self.sample_ids, self.asked, self.pictures = sample_ids, asked, pictures
        self.vision, self.relevance = vision, relevance
        self._text_model: Any = model.model.language_model
        self._beams, self._generating = 1, False
        self._passage = Passage(self._text_model, self.method)
        self._pictures: list[VisionStates] = []
        self._moved: Tensor | None = None
        self._one_asked = False

    @property
    def _prefill(self) -> Prefill | None:
        return self._passage.prefill

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

    def after_prompt(self) -> list[tuple[Layout, Tensor]]:
        """For decoding past the hooks (`decode.py`): for each layer, how the last prompt batch lies in its cache, and
        the position [rows, 1] that the first new token has there. Layers that are alike get the same objects.
        """
        assert self._prefill is not None
        start, moves = self._prefill.start, self.method.positions == "2d" and self._passage.has_images
        after = {id(layout): layout.places[:, -1:] + 1 for layout in (start, *self._prefill.layouts)}
        first = after[id(start)] + self._moved if moves and self._moved is not None else after[id(start)]
        layouts = [self._passage.layout(layer) for layer in range(self.geometry.num_layers)]
        return [(x, after[id(x)] if self.method.positions == "contiguous" else first) for x in layouts]

    def _attach(self, stack: ExitStack) -> None:
        """Hook the model; `stack` takes all of it back."""

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
        self._passage.attach(stack)
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
        self._passage.call(cache is None or cache.get_seq_length() == 0, self._one_asked)
        self._one_asked = False
        if self._passage.reading:
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
        self._passage.start(None)
        input_ids = readable(input_ids, attention_mask, cache)
        given = Given(self.sample_ids, self.asked, self.vision, self.relevance, pictures=self.pictures)
        given.check(len(input_ids) // beams)
        prompts = read_prompts(input_ids, attention_mask, self.model.config.image_token_id, self.geometry.cells)
        tower = partial(TowerView, self.model)
        prefill = Prefill(self.geometry, prompts, beams, input_ids, given, tower, self._text_model.norm)
        self._passage.start(prefill)

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
        self._passage.all_asked = any(
            kwargs.get(name, getattr(config, name)) for name in ("output_hidden_states", "output_attentions")
        )
        prefill = self._prefill
        if self._passage.reading:
            self._look(kwargs["inputs_embeds"])
            if prefill is None or prefill.shared is None:
                return None
            kwargs["position_ids"] = prefill.start.places  # padding not counted: what is shared stands at one place
            return args, kwargs
        if prefill is None or kwargs.get("position_ids") is not None:
            return None
        embeds, fed = kwargs["inputs_embeds"], self._fed(kwargs["past_key_values"])
        if prefill.began_shared:
            kwargs["position_ids"] = prefill.start.places_after(fed, embeds.shape[1])
        else:
            kwargs["position_ids"] = torch.arange(fed, fed + embeds.shape[1], device=embeds.device)[None]
        return args, kwargs

    def _look(self, embeddings: Tensor) -> None:
        """Hand the method what it needs of what was made so far: the LLM's input, and the states of the pictures."""
        if not self._passage.has_images:
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
        if not self._passage.has_images:
            return None
        assert self._prefill is not None
        hidden, positions = args[0], kwargs["position_ids"]
        if self._passage.reading:
            places = coordinates(self._prefill.start, self.geometry.grid)
            self._moved = places[0, :, -1:] - positions[:, -1:]
            return rotary_2d(module.forward, hidden, places)
        return module.forward(hidden, position_ids=positions + self._moved)
