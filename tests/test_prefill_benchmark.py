"""The prefill benchmark on a narrow model: what it counts and computes, not how long anything takes."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

LAYERS = 16
NARROW = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 32064}


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        module = importlib.import_module("prefill")
        patch.setattr(module, "SIZES", NARROW)
        yield module


@pytest.fixture(scope="module")
def result(benchmark: ModuleType) -> dict[str, Any]:
    options = argparse.Namespace(
        layers=LAYERS, methods=list(benchmark.METHODS), text=20, batch=1, repeats=6, device="cpu", dtype="float32",
        attention="sdpa", threads=0, clock="wall",
    )  # fmt: skip
    found: dict[str, Any] = benchmark.measure(options, Console(quiet=True))
    return found


def row(result: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in result["rows"] if row["method"].startswith(name))


def test_tokens_are_equal_and_the_papers(result: dict[str, Any]) -> None:
    stages = [576.0] * 2 + [126.0] * 5 + [88.0] * 5 + [20.0] * 4
    assert row(result, "atp")["visual_tokens_per_layer"] == stages
    assert row(result, "schedule")["visual_tokens_per_layer"] == stages
    assert row(result, "fastv")["visual_tokens_per_layer"] == [576.0] + [115.0] * 15
    for name in ("atp", "schedule", "fastv"):
        assert row(result, name)["at_32"]["average_visual_tokens"] == pytest.approx(144, abs=0.2)
    assert (
        row(result, "atp")["at_32"]["prune_layers"] == row(result, "schedule")["at_32"]["prune_layers"] == [4, 14, 24]
    )


def test_an_adaptive_method_reads_once_a_prune_point(result: dict[str, Any]) -> None:
    assert {row["method"].split(":")[0]: row["reads_a_point"] for row in result["rows"]} == {
        "upper_bound": 0, "fastv@144": 0, "schedule": 0, "atp@144": 1
    }  # fmt: skip


def test_shares_add_up(result: dict[str, Any]) -> None:
    for found in result["rows"]:
        rounds, points = found["rounds"], len(found["prune_layers"])
        assert len(found["point_seconds"]) == points
        for total, before, inside, choosing in zip(*rounds.values(), strict=True):
            assert len(before) == len(inside) == LAYERS
            assert sum(before) + sum(inside) < total
            assert (0 < choosing < sum(before[layer] for layer in found["prune_layers"])) if points else choosing == 0
        assert found["at_32"]["choosing_share"][0] <= found["at_32"]["pruning_share"][0] < 1
    assert row(result, "upper_bound")["ratio"] == [1, 1, 1]


def test_another_depth_is_computed_stage_by_stage(benchmark: ModuleType) -> None:
    times = benchmark.Times(total=[40.0], inside=[[5.0, 3.0, 1.0, 2.0]])
    deep = benchmark.at_depth(times, (1, 2), (3, 7), 9)
    assert deep.tolist() == [29 + 3 * 5.0 + 4 * 3.0 + 2 * 1.5]
    assert benchmark.at_depth(times, (1, 2), (1, 2), 4).tolist() == times.total
    assert benchmark.at_depth(times, (0,), (0,), 8).tolist() == [29 + 8 * 2.75]


def test_layers_with_dead_rows_count_once(benchmark: ModuleType) -> None:
    times = benchmark.Times(total=[40.0], inside=[[5.0, 3.0, 1.0, 2.0]], alone={0, 3})
    deep = benchmark.at_depth(times, (1,), (3,), 9, np.array([6.0]))
    assert deep.tolist() == [29 + (2 * 6.0 + 5.0) + (5 * 2.0 + 2.0)]


def test_which_layers_have_dead_rows_is_seen(result: dict[str, Any]) -> None:
    found = {row["method"].split(":")[0]: row["layers_with_dead_rows"] for row in result["rows"]}
    assert found == {"upper_bound": [], "fastv@144": [0, 15], "schedule": [1, 6, 11, 15], "atp@144": [1, 6, 11, 15]}


def test_counting_reads_leaves_nothing_behind(benchmark: ModuleType) -> None:
    plain = Tensor.item
    with pytest.raises(ZeroDivisionError), benchmark.counted_reads() as count:
        assert torch.ones(1).item() == 1
        assert bool(torch.ones(1))
        assert count() == 2
        raise ZeroDivisionError
    assert Tensor.item is plain


def test_the_table_has_a_row_a_method(benchmark: ModuleType, result: dict[str, Any]) -> None:
    table, _, note = benchmark.markdown(result).partition("\n\n")
    head, rule, *rows = table.splitlines()
    assert {line.count("|") for line in (head, rule, *rows)} == {head.count("|")}
    assert [line.split("`")[1] for line in rows] == list(benchmark.METHODS)
    assert f"{LAYERS} layers" in note
