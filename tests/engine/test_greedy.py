"""What counts as plain greedy decoding; how its rows end is held against `generate` in test_decode.py."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import GenerationConfig

from atp_eval.engine.greedy import Greedy

DEFAULTS = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0, temperature=0.9, top_p=0.6, max_length=4096)


@pytest.mark.parametrize(
    ("options", "plan"),
    [
        ({"max_new_tokens": 4}, Greedy(4, (2,), 0)),
        ({"max_new_tokens": 4, "do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}, Greedy(4, (2,), 0)),
        ({"max_new_tokens": 4, "eos_token_id": [5, 6], "pad_token_id": 7}, Greedy(4, (5, 6), 7)),
        ({"max_new_tokens": 4, "logits_processor": [len], "stopping_criteria": [max]},
         Greedy(4, (2,), 0, (len,), (max,))),
        ({}, None),
        ({"max_new_tokens": 0}, None),
        ({"max_new_tokens": -1}, None),
        ({"max_new_tokens": 4, "do_sample": True}, None),
        ({"max_new_tokens": 4, "num_beams": 3}, None),
        ({"max_new_tokens": 4, "repetition_penalty": 1.2}, None),
        ({"max_new_tokens": 4, "min_new_tokens": 2}, None),
        ({"max_new_tokens": 4, "return_dict_in_generate": True}, None),
        ({"max_new_tokens": 4, "use_cache": False}, None),
        ({"max_new_tokens": 4, "stop_strings": ["a"]}, None),
    ],
)  # fmt: skip
def test_what_is_plain(options: dict[str, Any], plan: Greedy | None) -> None:
    assert Greedy.of(DEFAULTS, options) == plan


def test_defaults_of_a_checkpoint_count() -> None:
    assert Greedy.of(GenerationConfig(eos_token_id=2), {"max_new_tokens": 4}) == Greedy(4, (2,), 2)
    assert Greedy.of(GenerationConfig(), {"max_new_tokens": 4}) == Greedy(4, (), None)
    assert Greedy.of(GenerationConfig(num_beams=2), {"max_new_tokens": 4}) is None
    assert Greedy.of(GenerationConfig(num_beams=2), {"max_new_tokens": 4, "num_beams": 1}) == Greedy(4)
    assert Greedy.of(GenerationConfig(suppress_tokens=[3]), {"max_new_tokens": 4}) is None
