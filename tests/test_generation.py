"""Generation settings of lmms-eval, answers cut at stop strings, and the watch for logits that are not finite."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from atp_eval.generation import FiniteLogits, FirstScores, StopOnText, generation_options, new_tokens

WORDS = ["<pad>", "</s>", "yes", "no", "stop", "here"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="</s>")


@pytest.mark.parametrize(
    ("given", "passed", "until"),
    [
        (
            {"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False},
            {"max_new_tokens": 16, "do_sample": False},
            (),
        ),
        ({"until": "\n\n"}, {"max_new_tokens": 128, "do_sample": False}, ("\n\n",)),
        ({"until": ["a", "b"], "max_gen_toks": 5}, {"max_new_tokens": 5, "do_sample": False}, ("a", "b")),
        (
            {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 4},
            {"max_new_tokens": 4, "do_sample": True, "temperature": 0.7, "top_p": 0.9},
            (),
        ),
        ({"do_sample": True, "temperature": 0.0, "max_new_tokens": 4}, {"max_new_tokens": 4, "do_sample": False}, ()),
    ],
)
def test_settings(given: dict[str, object], passed: dict[str, object], until: tuple[str, ...]) -> None:
    before = dict(given)
    assert generation_options(given) == (passed, until)
    assert given == before  # lmms-eval's cache keys depend on it


def test_answers_end_at_eos_and_stop_strings(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = torch.tensor([[2, 4, 5, 1, 0], [3, 1, 0, 0, 0], [4, 2, 2, 2, 2]])
    answers = new_tokens(rows, tokenizer, [["stop"]] * 3)
    assert [a.text for a in answers] == ["yes", "no", ""]
    assert [a.tokens for a in answers] == [4, 2, 5]


def test_a_row_is_done_once_its_new_text_has_one_of_its_own_stop_strings(tokenizer: PreTrainedTokenizerFast) -> None:
    stop = StopOnText(tokenizer, [["stop"], ["stop", ""], ["here", "no"]], prompt_length=2)
    ids = torch.tensor([[4, 4, 2, 3], [4, 4, 2, 4], [4, 4, 2, 4]])  # "stop" in the prompt counts for nothing
    assert stop(ids, torch.empty(0)).tolist() == [False, True, False]
    beams = ids.repeat_interleave(2, dim=0)
    beams[5, 3] = 3
    assert stop(beams, torch.empty(0)).tolist() == [False, False, True, True, False, True]


def test_answers_are_cut_at_their_own_stop_strings(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = torch.tensor([[2, 4, 5], [2, 4, 5]])
    assert [a.text for a in new_tokens(rows, tokenizer, [["stop"], ["here"]])] == ["yes", "yes stop"]


def test_logits_that_are_not_finite_are_remembered_by_sample() -> None:
    watch = FiniteLogits()
    scores = torch.zeros(4, 3)  # two samples with two beams
    watch(torch.empty(0), scores)
    bad = scores.clone()
    bad[3, 1] = float("nan")
    bad[0, 0] = float("-inf")  # other processors forbid tokens with -inf
    assert watch(torch.empty(0), bad) is bad
    watch(torch.empty(0), scores)
    assert watch.rows(2) == [False, True]
    assert FiniteLogits().rows(3) == [False, False, False]


def test_the_clock_is_read_at_the_first_scores_only_since_it_may_wait_for_the_device() -> None:
    times = iter([3.5])
    watch, scores = FirstScores(lambda: next(times)), torch.randn(2, 6)
    assert watch.at is None
    assert all(watch(torch.zeros(2, 1), scores) is scores for _ in range(3))
    assert watch.at == 3.5
