"""What a trace costs in the record of a sample."""

from __future__ import annotations

import json

import pytest

from atp_eval.engine import prune
from atp_eval.trace import KeepTrace
from engine.small import answer, make_batch, small_llava


@pytest.mark.parametrize(("spec", "limit"), [
    ("upper_bound", 50),
    ("fastv:layer=1,keep=115", 170),
    ("pool@144", 170),
    ("schedule:layers=1-2-4,keep=126-88-20,score=redundant", 410),
])  # fmt: skip
def test_a_trace_is_small_and_comes_back(spec: str, limit: int) -> None:
    """In bytes of JSON, on LLaVA-1.5's grid of 24 x 24: about 40, and 112 more for each prune point."""
    model = small_llava(grid=24)
    model.config.text_config.max_position_embeddings = 1024
    with prune(model, spec) as pruned:
        answer(model, make_batch((5, 9), grid=24), steps=1)
    text = json.dumps(pruned.trace.to_json())
    assert len(text) <= limit
    back = KeepTrace.from_json(json.loads(text))
    assert back.to_json() == pruned.trace.to_json()
    assert back.average_input == pruned.trace.average_input
