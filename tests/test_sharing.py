"""Several questions about one picture in closed form: against torch's count, and from how many on sharing wins."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine.small import Batch, make_batch, small_llava
from test_flops import counted

from atp_eval.cost import KNOWN, tokens_per_layer
from atp_eval.cost.flops import engine_prefill, prefill, projector, vision_tower
from atp_eval.cost.scorer import Prompt
from atp_eval.cost.sharing import Reader, sharing_wins_from
from atp_eval.engine import model_geometry, prune
from atp_eval.flops import Asked, reader
from atp_eval.methods import get_method

LLAVA = KNOWN["llava-hf/llava-1.5-7b-hf"]
SMALL = replace(LLAVA, num_layers=3, grid=(2, 2), hidden=2, heads=1, kv_heads=1, head_dim=2, intermediate=3, vocab=7)
KEYS, QUERY, BEHIND, HEAD = 2 * 2 * 4, 2 * 2 * 2, 2 * 2 * 2 + 3 * 2 * 2 * 3, 2 * 2 * 7  # FLOPs of a row
PAIR = 4 * 2


def questions(count: int) -> Batch:
    """Prompts of 5 + 36 + 9 tokens about one picture."""
    batch = make_batch(*[(5, 9)] * count)
    assert batch.pixels is not None
    rows = [torch.cat([batch.rows[0][:41], row[41:]]) for row in batch.rows]
    return Batch(torch.stack(rows), batch.mask, batch.pixels[:1].repeat(count, 1, 1, 1), rows, batch.images)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("spec", [
    "upper_bound", "grid@9:layer=0", "grid:layer=2,keep=9", "pool@9", "divprune@9", "random:layer=2,keep=7",
    "fastv:layer=2,keep=7", "schedule:layers=1-3,keep=20-7,score=redundant", "pyramiddrop:layers=1-2-4,keep=30-12-2",
])  # fmt: skip
def test_reading_together_is_counted_to_the_operation(spec: str, count: int) -> None:
    model: Any = small_llava()
    geometry, batch = model_geometry(model.config), questions(count)
    with prune(model, spec, sample_ids=range(count), pictures=["a"] * count):
        found = counted(lambda: model(**batch.inputs(), logits_to_keep=1))
    around = count * (vision_tower(geometry) + projector(geometry))
    assert reader(Asked(spec, get_method(spec)), geometry, 5, 9).total(count) == found - around


def test_what_is_shared_by_hand() -> None:
    """Two questions of 3 words behind 1 word and 4 cells, 2 of which stay before layer 1 by the question."""
    prompt = Prompt(SMALL, (4, 2, 2), 1, 3)
    first = 11 * (KEYS + QUERY) + (5 * 5 + 2 * 3 * 8) * PAIR  # 5 + 2 x 3 rows
    second = 12 * (KEYS + QUERY + BEHIND) + 2 * 6 * 6 * PAIR
    last = 12 * KEYS + 2 * (QUERY + BEHIND) + 2 * 6 * PAIR + 2 * HEAD
    assert Reader(prompt, early=False, apart=1).total(2) == first + 11 * BEHIND + second + last
    assert Reader(prompt, early=True, apart=1).total(2) == first + 12 * BEHIND + second + last
    assert Reader(prompt, early=True, apart=1, scorer=5).total(2) == first + 12 * BEHIND + second + last + 10


def test_what_the_picture_alone_decides_is_shared_to_the_end_by_hand() -> None:
    prompt = Prompt(SMALL, (2, 2, 2), 1, 3)
    layer = 9 * (KEYS + QUERY + BEHIND) + (3 * 3 + 2 * 3 * 6) * PAIR
    last = 9 * KEYS + 2 * (QUERY + BEHIND) + 2 * 6 * PAIR + 2 * HEAD
    assert Reader(prompt).total(2) == 2 * layer + last


def test_one_question_is_read_as_alone() -> None:
    tokens = tuple(tokens_per_layer(LLAVA, (2,), (115,)))
    prompt = Prompt(LLAVA, tokens, 5, 59)
    assert Reader(prompt, True, 2).total(1) == engine_prefill(LLAVA, prompt.lengths, 640, True).total
    whole = Prompt(LLAVA, (576,) * 32, 5, 59)
    assert Reader(whole).total(1) == prefill(LLAVA, [640] * 32).total


def seven_b(spec: str) -> Reader:
    return reader(Asked(spec, get_method(spec)), LLAVA, 5, 59)


@pytest.mark.parametrize("spec", ["fastv@144", "fastv@88", "schedule:layers=4-14-24,keep=126-88-20,score=redundant"])
def test_sharing_wins_from_where_it_costs_no_more(spec: str) -> None:
    unpruned, pruned = seven_b("upper_bound"), seven_b(spec)
    found = sharing_wins_from(unpruned, pruned)
    assert found is not None and found > 1
    assert unpruned.total(found) <= pruned.total(found) and unpruned.total(found - 1) > pruned.total(found - 1)


def test_the_documentation_has_the_table_that_the_benchmark_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[1]
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    benchmark = importlib.import_module("sharing")
    _, table, after = (root / "docs" / "speed.md").read_text(encoding="utf-8").split(benchmark.MARK)
    rows = benchmark.found(benchmark.METHODS, LLAVA, 5, 59)
    assert table.strip() == benchmark.markdown(rows).strip()
    assert rows[0].name == "upper_bound" and rows[0].each[0] == prefill(LLAVA, [640] * 32).total
    assert "](speed/sharing.png)" in after and (root / "docs" / "speed" / "sharing.png").exists()


def test_dead_rows_in_the_documentation_are_the_closed_forms() -> None:
    text = (Path(__file__).parents[1] / "docs" / "speed.md").read_text(encoding="utf-8")
    lengths = [n + 64 for n in tokens_per_layer(LLAVA, (2,), (115,))]
    every, engine = prefill(LLAVA, lengths), engine_prefill(LLAVA, lengths, 640, True)
    assert f"takes `fastv@144` from {every.total / 1e12:.3f} to {engine.total / 1e12:.3f} TFLOP" in text


def test_sharing_never_wins_over_what_shares_its_pruned_beginning() -> None:
    assert sharing_wins_from(seven_b("upper_bound"), seven_b("visionzip@144")) is None
    assert sharing_wins_from(seven_b("upper_bound"), seven_b("upper_bound")) == 1
