"""Closed forms of costs: the paper's figures, and torch's own count of what a model runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine.small import answer, make_batch, small_llava
from models.siglip import siglip_config
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlavaForConditionalGeneration

from atp_eval.cost import KNOWN, Geometry, averages, tokens_per_layer
from atp_eval.cost.flops import (
    decode,
    decoder_layer,
    engine_layers,
    engine_prefill,
    kv_bytes,
    paper_layer,
    paper_macs,
    paper_reduction,
    prefill,
    projector,
    vision_tower,
)
from atp_eval.engine import model_geometry, prune
from atp_eval.paper import printed_row
from atp_eval.training.geometries import known_config

LLAVA = KNOWN["llava-hf/llava-1.5-7b-hf"]
ATP_144, ATP_88 = ((4, 14, 24), (126, 88, 20)), ((1, 13, 25), (98, 79, 16))


def counted(run: Callable[[], Any]) -> int:
    """FLOPs by torch's count; less the rotary tables, which some versions of transformers make by a matrix product."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    by_module = counter.get_flop_counts()
    rotary = sum(sum(ops.values()) for name, ops in by_module.items() if name.endswith("rotary_emb"))
    return counter.get_total_flops() - rotary


# ------------------------------------------------------------------ as printed


def test_the_papers_equation_at_576_tokens() -> None:
    d, m = 4096, 11008
    assert paper_layer(LLAVA, 576) == 4 * 576 * d**2 + 2 * 576**2 * d + 2 * 576 * d * m
    assert paper_macs(LLAVA, [576] * 32) == 2_986_076_012_544


@pytest.mark.parametrize(("stages", "share"), [(ATP_144, 75.3), (ATP_88, 85.0)])
def test_what_the_papers_schedules_save(stages: tuple[tuple[int, ...], tuple[int, ...]], share: float) -> None:
    full = paper_macs(LLAVA, [576] * 32)
    saved = paper_reduction(LLAVA, 576, *stages)
    assert saved == full - paper_macs(LLAVA, tokens_per_layer(LLAVA, *stages))
    assert round(100 * saved / full, 1) == share


def test_kv_bytes_are_those_of_table_6_in_units_of_1_05_mb() -> None:
    for tokens, megabytes in ((576, 302.0), (144, 75.5), (88, 46.1)):
        found = kv_bytes(LLAVA, [tokens] * 32) / 1e6
        assert round(found, 1) == megabytes
        methods = {576: "upper_bound", 144: "atp", 88: "atp"}
        printed = printed_row("efficiency", method=methods[tokens], tokens=tokens).values["kv_mb"]
        assert printed is not None and abs(printed / found - 1) < 0.002
    assert kv_bytes(LLAVA, [100] * 32, number=4) == 2 * kv_bytes(LLAVA, [100] * 32)


def test_averages_by_each_convention() -> None:
    geometry = Geometry(5, (2, 3))
    tokens = tokens_per_layer(geometry, (1, 3), (4, 2))
    assert tokens == [6, 4, 4, 2, 2]
    assert averages(tokens) == (18 / 5, 14 / 5, 2)
    assert tokens_per_layer(geometry, (0,), (1,)) == [1] * 5
    assert tokens_per_layer(geometry, (), ()) == [6] * 5


SMALL = replace(LLAVA, num_layers=2, hidden=2, heads=2, kv_heads=1, head_dim=4, intermediate=3)
QUERY, KEY_VALUE, BEHIND = 2 * 2 * 8, 2 * 2 * 2 * 4, 2 * 8 * 2 + 3 * 2 * 2 * 3  # FLOPs of a row


def test_a_layer_by_hand() -> None:
    """Two query heads of 4, one key head, states of 2; an output projection of 8 x 2, three matrices of 2 x 3."""
    assert decoder_layer(SMALL, 7, 7) == 7 * (KEY_VALUE + QUERY + BEHIND) + 2 * 2 * 7 * 7 * 8
    some = decoder_layer(SMALL, 7, 9, queries=2, leaving=3)
    assert some == 7 * KEY_VALUE + 2 * QUERY + 2 * 2 * 2 * 9 * 8 + 3 * BEHIND


def test_what_dead_rows_leave_out_by_hand() -> None:
    """Of 7 rows 5 stay before layer 1, behind whose attention one goes on."""
    last = 5 * KEY_VALUE + QUERY + 2 * 2 * 5 * 8 + BEHIND
    whole, seven, five = decoder_layer(SMALL, 7, 7), [7, 5], [5, 5]
    assert engine_layers(SMALL, seven, 7, True) == (whole - 2 * BEHIND, last)
    assert engine_layers(SMALL, seven, 7, False) == (whole, last)
    assert engine_layers(SMALL, five, 7, True) == (decoder_layer(SMALL, 5, 5), last)
    assert engine_prefill(SMALL, five, 5, True) == prefill(SMALL, five)  # nothing was pruned


# ------------------------------------------------------------------ against torch's count


@pytest.mark.parametrize("name", KNOWN)
def test_known_geometries_are_those_of_their_configurations(name: str) -> None:
    assert model_geometry(known_config(name)) == KNOWN[name]


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_exact_flops_of_a_stock_llava_on_the_meta_device(name: str, attention: str) -> None:
    """In two halves, because LLaVA counts the <image> tokens of the prompt, which have no values here."""
    config, geometry, text = known_config(name), KNOWN[name], 64
    with torch.device("meta"):
        model: Any = LlavaForConditionalGeneration._from_config(config, attn_implementation=attention)
        pixels = torch.empty(1, 3, 336, 336)
        embeddings = torch.empty(1, 576 + text, geometry.hidden)
    assert counted(lambda: model.get_image_features(pixel_values=pixels)) == vision_tower(geometry) + projector(
        geometry
    )
    for logits in (1, 640):
        found = prefill(geometry, [576 + text] * geometry.num_layers, logits=logits)
        assert counted(lambda logits=logits: model(inputs_embeds=embeddings, logits_to_keep=logits)) == found.total


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_exact_flops_with_shared_key_heads_and_decoding(heads: int) -> None:
    model, batch = small_llava(kv_heads=heads), make_batch((5, 9))
    geometry = model_geometry(model.config)
    whole = prefill(geometry, [50] * 5).total + vision_tower(geometry) + projector(geometry)
    assert counted(lambda: answer(model, batch, steps=1)) == whole
    assert counted(lambda: answer(model, batch, steps=4)) == whole + decode(geometry, [50] * 5, 4)


def test_exact_flops_of_a_siglip_tower() -> None:
    model: Any = LlavaForConditionalGeneration(siglip_config()).eval()
    geometry = model_geometry(model.config)
    pixels = torch.zeros(1, 3, 48, 48)
    assert counted(lambda: model.get_image_features(pixel_values=pixels)) == vision_tower(geometry) + projector(
        geometry
    )


@pytest.mark.parametrize("spec", [
    "upper_bound",
    "grid@9:layer=0",
    "random:layer=2,keep=7",
    "pool@9",
    "schedule:layers=1-2-4,keep=30-11-3,score=random",
])  # fmt: skip
def test_exact_flops_of_a_pruned_answer(spec: str) -> None:
    """Of methods whose choice takes no matrix product; tokens are those of the trace."""
    model, batch, steps = small_llava(), make_batch((5, 9)), 3
    geometry = model_geometry(model.config)
    with prune(model, spec) as pruned:
        found = counted(lambda: answer(model, batch, steps=steps))
        lengths = [14 + int(tokens) for tokens in pruned.trace.tokens_per_layer()]
    llm = engine_prefill(geometry, lengths, 50, pruned.method.early).total + decode(geometry, lengths, steps)
    assert found == llm + vision_tower(geometry) + projector(geometry)


def test_choosing_by_the_last_row_adds_a_row_of_products() -> None:
    """FastV: one query against every key (2 L d a head), and the mean over that one row (2 L)."""
    model, batch = small_llava(), make_batch((5, 9))
    geometry = model_geometry(model.config)
    with prune(model, "schedule:layers=2,keep=9,score=last_row") as pruned:
        found = counted(lambda: answer(model, batch, steps=1))
        lengths = [14 + int(tokens) for tokens in pruned.trace.tokens_per_layer()]
    llm = engine_prefill(geometry, lengths, 50, True).total
    rest = llm + vision_tower(geometry) + projector(geometry)
    assert found - rest == 2 * 50 * geometry.heads * geometry.head_dim + 2 * 50
