"""The decode benchmark on a narrow model: what runs and what is left out, not how long anything takes."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

NARROW = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 32064}


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        patch.setattr(importlib.import_module("random_llava"), "SIZES", NARROW)
        yield importlib.import_module("decode")


def test_every_row_decodes_and_the_files_tell(benchmark: ModuleType, tmp_path: Path, capsys: Any) -> None:
    plain = nn.Linear.forward
    path = tmp_path / "decode.json"
    arguments = ["--batch", "2", "--repeats", "6", "--json", str(path), "--figure", str(tmp_path)]
    assert benchmark.main(arguments) == 0
    assert nn.Linear.forward is plain
    result = json.loads(path.read_text())
    assert [row["row"] for row in result["rows"]] == [
        "generate", "generate, pruned", "ours, unpruned", "ours, pruned",
    ]  # fmt: skip
    assert result["rows"][0]["ratio"] == [1, 1, 1]
    assert result["setting"]["average_tokens"] == pytest.approx(144, abs=1)
    (target,) = result["targets"]
    assert target["measured"] == result["rows"][3]["ratio"]
    assert target["work"] == "decode after pruning at 144; batch 2, 8 layers, float32"
    assert target["command"] == "python benchmarks/decode.py --batch 2 --repeats 6"
    table = capsys.readouterr().out
    for row in result["rows"]:
        assert f"| {row['row']} | {1000 * row['seconds_a_token'][0]:.1f} [" in table
    assert {"decode.pdf", "decode.csv"} <= {file.name for file in tmp_path.iterdir()}


def test_a_base_is_needed(benchmark: ModuleType, capsys: Any) -> None:
    with pytest.raises(SystemExit) as left:
        benchmark.main(["--rows", "ours, pruned"])
    assert left.value.code == 2
    assert "--rows without 'generate'" in capsys.readouterr().err


def test_answers_take_turns_and_leave(benchmark: ModuleType) -> None:
    steps: list[int] = []

    def answer(turns: Any) -> None:
        for step in range(10):
            turns(None, None)
            steps.append(step)

    turns = benchmark.Turns(answer)
    turns.start()
    assert steps == []
    turns.go_on()
    turns.go_on()
    assert steps == [0, 1]
    turns.leave()
    assert steps == [0, 1]


def test_what_goes_wrong_in_an_answer_is_raised(benchmark: ModuleType) -> None:
    def answer(turns: Any) -> None:
        turns(None, None)
        raise ZeroDivisionError

    turns = benchmark.Turns(answer)
    turns.start()
    with pytest.raises(ZeroDivisionError):
        turns.go_on()


def test_noise_stands_for_long_inputs_only(benchmark: ModuleType) -> None:
    module, long, short = nn.Linear(8, 4), torch.ones(3, 5, 8), torch.ones(3, 1, 8)
    with torch.no_grad():
        true = module(long)
        with benchmark.noise_for_prompts(3):
            assert torch.equal(module(short), true[:, :1])
            noise = module(long)
        assert torch.equal(module(long), true)
    assert noise.shape == true.shape and not torch.equal(noise, true)
