"""What choosing costs, in closed form: equal to torch's count, for every method of the shared matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine.small import answer, make_batch, small_llava
from methods.adapters import write_adapters
from methods.matrix import MATRIX
from test_flops import counted

from atp_eval.cost.flops import decode, engine_prefill, projector, vision_tower
from atp_eval.cost.scorer import Prompt
from atp_eval.engine import model_geometry, prune
from atp_eval.methods import get_method, method_names

SPECS = [spec for row in MATRIX for spec in (*row.pruning, *row.keep_all)]
ASKED = [[3, 4, 9]]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of the model with as many key heads as query heads; fingerprints do not depend on the run."""
    folder = tmp_path_factory.mktemp("adapters")
    for heads in (1, 2, 4):
        write_adapters(small_llava(kv_heads=heads), folder / str(heads))
    return folder


def whole(spec: str, heads: int, text: tuple[int, int], steps: int = 1) -> tuple[int, int, int | None]:
    """(what torch counts, the closed form of all but the scorer, the scorer's) of an answer."""
    model: Any = small_llava(kv_heads=heads)
    geometry = model_geometry(model.config)
    with prune(model, spec, asked=ASKED) as pruned:
        found = counted(lambda: answer(model, make_batch(text), steps=steps))
        tokens = tuple(int(t) for t in pruned.trace.tokens_per_layer())
    prompt = Prompt(geometry, tokens, *text)
    read = engine_prefill(geometry, prompt.lengths, prompt.full, pruned.method.early).total
    rest = read + decode(geometry, prompt.lengths, steps)
    return found, rest + vision_tower(geometry) + projector(geometry), pruned.method.scorer_flops(prompt)


@pytest.mark.parametrize("spec", SPECS)
def test_the_scorers_closed_form_is_what_torch_counts(spec: str, adapters: Path) -> None:
    found, rest, scorer = whole(spec.format(adapters=adapters / "2"), 2, (5, 9), steps=2)
    assert found - rest == scorer


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("text", [(1, 2), (7, 16)])
@pytest.mark.parametrize(
    "spec",
    [
        "fastv:layer=2,keep=7",
        "fastv:layer=2,keep=7,rule=paper",
        "schedule:layers=1-3,keep=20-7,score=redundant",
        "schedule:layers=1-3,keep=20-7,score=cross",
        "pyramiddrop:layers=1-2-4,keep=30-12-2",
        "sparsevlm:layers=1-2-4,keep=20-15-9",
        "dart:layer=2,keep=17",
        "cdpruner:keep=7,relevance=llm",
        "atp:adapter={adapters}/plain",
        "atp:adapter={adapters}/causal",
    ],
)
def test_with_other_key_heads_and_texts(spec: str, heads: int, text: tuple[int, int], adapters: Path) -> None:
    found, rest, scorer = whole(spec.format(adapters=adapters / str(heads)), heads, text)
    assert found - rest == scorer


def test_every_method_of_the_registry_is_counted_but_for_one_that_brings_another_model() -> None:
    assert {row.name for row in MATRIX} == set(method_names())
    geometry = model_geometry(small_llava().config)
    clip = get_method("cdpruner:keep=7").solve(geometry)
    assert clip.scorer_flops(Prompt(geometry, (7,) * 5, 5, 9)) is None
