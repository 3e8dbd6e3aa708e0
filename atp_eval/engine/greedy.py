"""Plain greedy answers: what is asked for, and the rows of a batch as tokens are added to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig

READ = ("max_new_tokens", "eos_token_id", "pad_token_id", "logits_processor", "stopping_criteria")
UNREAD = ("temperature", "top_p", "top_k", "max_length", "bos_token_id", "transformers_version", "_from_model_config")
"""What a checkpoint may have among its defaults that plain greedy decoding of so many tokens does not look at."""
NEUTRAL = {
    "do_sample": False,
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "use_cache": True,
    "output_attentions": False,
    "output_hidden_states": False,
}
"""Settings at the values with which they change nothing."""


class Greedy(NamedTuple):
    """What to generate: at most `new_tokens`, until each row had a token of `eos` or a criterion ended it.

    pad: follows where a row has ended, if there is an `eos`. processors and criteria: as `generate` calls them.
    """

    new_tokens: int
    eos: Sequence[int] = ()
    pad: int | None = None
    processors: Sequence[Callable[[Any, Any], Tensor]] = ()
    criteria: Sequence[Callable[[Any, Any], Tensor]] = ()

    @classmethod
    def of(cls, defaults: GenerationConfig, options: dict[str, Any]) -> Greedy | None:
        """What `generate(**options)` would do for a model with these defaults; None if that is more than this."""
        given = {**{k: v for k, v in defaults.to_diff_dict().items() if k not in UNREAD}, **options}
        asked = {name: value for name, value in given.items() if name not in READ and value is not None}
        if any(name not in NEUTRAL or value != NEUTRAL[name] for name, value in asked.items()):
            return None
        new_tokens, eos, pad, *calls = (given.get(name) for name in READ)
        if not isinstance(new_tokens, int) or new_tokens < 1:
            return None
        eos = () if eos is None else (eos,) if isinstance(eos, int) else tuple(eos)
        return cls(
            new_tokens,
            eos,
            eos[0] if pad is None and eos else pad,
            *(tuple(call or ()) for call in calls),
        )


class Rows:
    """The rows of a batch as they grow."""

    def __init__(self, input_ids: Tensor, plan: Greedy) -> None:
        batch, self.prompt = input_ids.shape
        self.plan, self.length = plan, self.prompt
        self._ids = torch.cat([input_ids, input_ids.new_zeros(batch, plan.new_tokens)], dim=1)
        self._eos = input_ids.new_tensor(list(plan.eos))
        self._end = input_ids.new_zeros(batch)  # length of the row with which it ended; 0 while it goes on
        self._judged = self.prompt  # length up to which the criteria have been asked
        self.can_end = bool(plan.eos or plan.criteria)

    def add(self, logits: Tensor) -> Tensor:
        """The next token [B] of each row, by its logits [B, vocabulary]."""
        ids = self._ids[:, : self.length]
        scores = logits.to(dtype=torch.float32, copy=True)
        for process in self.plan.processors:
            scores = process(ids, scores)
        tokens = scores.argmax(-1)
        done = self._end > 0
        if self.plan.eos:
            assert self.plan.pad is not None
            tokens = tokens.masked_fill(done, self.plan.pad)
        self._ids[:, self.length] = tokens
        self.length += 1
        if self.plan.eos:
            self._end = torch.where(torch.isin(tokens, self._eos) & ~done, self.length, self._end)
        return tokens

    def ended(self) -> bool:
        """Whether all rows have. Waits for the device.

        Criteria are asked about every length since the last time: they may read what there is, which waits too.
        """
        for length in range(self._judged + 1, self.length + 1) if self.plan.criteria else ():
            for criterion in self.plan.criteria:
                goes_on = (self._end == 0) | (self._end > length)
                ends = criterion(self._ids[:, :length], None)
                self._end = torch.where(ends & goes_on, length, self._end)
        self._judged = self.length
        return bool((self._end > 0).all())

    def ids(self) -> Tensor:
        """[B, L + new] up to the step with which the last row ended. Waits for the device."""
        ids = self._ids[:, : self.length]
        if not self.can_end:
            return ids
        if self.ended():
            ids = ids[:, : int(self._end.max())]
        if self.plan.criteria and self.plan.eos:  # what came before a criterion was asked
            assert self.plan.pad is not None
            behind = torch.arange(ids.shape[1], device=ids.device) >= self._end[:, None]
            ids = ids.masked_fill(behind & (self._end > 0)[:, None], self.plan.pad)
        return ids
