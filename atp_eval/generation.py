"""From lmms-eval's generation settings to transformers', and from generated tokens to an answer's text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

PASSED = ("max_new_tokens", "num_beams", "do_sample", "temperature", "top_p", "top_k", "repetition_penalty")
DEFAULT_NEW_TOKENS = 128


class Answer(NamedTuple):
    """Text of one row, cut at a stop string, and the number of tokens that were generated for it."""

    text: str
    tokens: int


def generation_options(options: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(keyword arguments of `generate`, stop strings). Greedy unless a temperature above zero asks for sampling.

    The arguments are equal where they mean the same, so that such questions may share a batch.
    """
    until = options.get("until") or ()
    until = (until,) if isinstance(until, str) else tuple(until)
    passed = {k: options[k] for k in PASSED if options.get(k) is not None}
    passed.setdefault("max_new_tokens", options.get("max_gen_toks", DEFAULT_NEW_TOKENS))
    sampling = bool(passed.get("do_sample", False)) and passed.get("temperature", 1.0) > 0
    if not sampling:
        for name in ("temperature", "top_p", "top_k"):
            passed.pop(name, None)
    if passed.get("num_beams") == 1:
        del passed["num_beams"]
    return {**passed, "do_sample": sampling}, until


def new_tokens(
    output: torch.Tensor, tokenizer: PreTrainedTokenizerBase, until: Sequence[Sequence[str]]
) -> list[Answer]:
    """Answers from generated ids [B, new]; until: each row's stop strings."""
    answers = []
    for row, stops in zip(output.tolist(), until, strict=True):
        end = next((i + 1 for i, token in enumerate(row) if token == tokenizer.eos_token_id), len(row))
        text = str(tokenizer.decode(row[:end], skip_special_tokens=True))
        for stop in stops:
            if stop:
                text = text.split(stop)[0]
        answers.append(Answer(text.strip(), sum(token != tokenizer.pad_token_id for token in row[:end])))
    return answers


class FiniteLogits(LogitsProcessor):
    """Watches for NaN and +inf among the logits, without a host sync until `rows` is called."""

    def __init__(self) -> None:
        self.bad: torch.Tensor | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores [B * beams, vocabulary] as they are."""
        bad = (scores.isnan() | scores.isposinf()).any(-1)
        self.bad = bad if self.bad is None else self.bad | bad
        return scores

    def rows(self, batch: int) -> list[bool]:
        """For each sample: was any of its logits not finite?"""
        if self.bad is None:
            return [False] * batch
        return self.bad.view(batch, -1).any(1).tolist()


class FirstScores(LogitsProcessor):
    """Notes the time when the first new token's scores are there: what comes before is prefill, the rest decoding.

    now: tells the time in seconds; on a GPU it waits for the device first. It is asked once a batch, not once a token.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.at: float | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores as they are."""
        if self.at is None:
            self.at = self.now()
        return scores


class StopOnText(StoppingCriteria):
    """Ends a row once its new text holds one of its stop strings. until: those of each of B samples."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, until: Sequence[Sequence[str]], prompt_length: int) -> None:
        self.tokenizer, self.prompt_length = tokenizer, prompt_length
        self.until = [tuple(stop for stop in stops if stop) for stops in until]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.Tensor:
        """[B * beams] bool: rows that are done."""
        texts = self.tokenizer.batch_decode(input_ids[:, self.prompt_length :], skip_special_tokens=True)
        beams = len(texts) // len(self.until)
        done = [any(stop in text for stop in self.until[row // beams]) for row, text in enumerate(texts)]
        return torch.tensor(done, device=input_ids.device)


def until_stops(
    tokenizer: PreTrainedTokenizerBase, until: Sequence[Sequence[str]], prompt_length: int
) -> StoppingCriteriaList:
    """Stopping criteria for the stop strings of each row; empty where there are none."""
    some = any(stop for stops in until for stop in stops)
    return StoppingCriteriaList([StopOnText(tokenizer, until, prompt_length)] if some else [])
