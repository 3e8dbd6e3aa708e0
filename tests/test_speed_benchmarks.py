"""The benchmarks that compare two ways of doing the same: turns, ratios, and that both ways are the ways they say."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import questions
import ragged
import side_by_side
from side_by_side import Bar, bars, in_turn, shown, times_faster, typed

from atp_eval.engine import packed
from atp_eval.plotting import to_svg


def test_works_take_turns_and_the_first_round_does_not_count() -> None:
    ran: list[str] = []
    ticks = iter(range(100))
    works = {name: (lambda name=name: ran.append(name)) for name in "abc"}
    seconds = in_turn(works, 3, lambda: float(next(ticks)))
    assert ran == list("abcbcacababc")
    assert seconds == {name: [1.0, 1.0, 1.0] for name in "abc"}


def test_ratios_are_taken_within_a_round() -> None:
    seconds = {"slow": [10.0, 30.0, 80.0], "fast": [5.0, 10.0, 80.0]}
    assert times_faster(seconds, "fast", "slow") == [2.0, None, None]
    assert shown([2.0, None, None]) == "2.00"
    assert shown([2.0, 1.5, 2.25]) == "2.00 [1.50, 2.25]"


def test_a_figure_names_each_row_and_its_target() -> None:
    chart = bars("speed", "ratios", [Bar("one", [2.0, 1.5, 2.25], 1.8), Bar("two", [1.0, None, None])], "times")
    assert chart.data["target"].tolist()[0] == 1.8
    svg = to_svg(chart)
    assert "2.00 [1.50, 2.25]" in svg
    assert "two" in svg


@pytest.mark.parametrize("longest", [1.0, 1.1, 2.0, 4.0])
def test_shares_have_the_mean_and_the_longest_that_are_asked_for(longest: float) -> None:
    found = ragged.shares(8, longest)
    assert sum(found) == pytest.approx(8)
    assert max(found) == pytest.approx(longest)
    assert ragged.shares(2, 1.5) == pytest.approx([0.5, 1.5])


def test_inside_the_block_nothing_is_packed() -> None:
    before = packed.WORTH
    with ragged.padded():
        assert packed.WORTH == 0
    assert before == packed.WORTH > 0


@pytest.mark.parametrize(
    ("spec", "aim"),
    [
        ("atp@144", 6.5),
        ("visionzip@88", 7.5),
        ("fastv@100", None),
        ("upper_bound", None),
        ("fastv@kv=25%", None),
    ],
)
def test_targets_follow_the_budget(spec: str, aim: float | None) -> None:
    assert questions.target(spec) == aim


@pytest.mark.parametrize("module", [ragged, questions])
@pytest.mark.parametrize("given", [["--layers", "4"], ["--repeats", "0"], ["--dtype", "int8"]])
def test_wrong_settings_end_with_2(module: Any, given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", *given])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 2


def test_where_results_go_is_no_part_of_the_command() -> None:
    given = ["--json", "a", "--layers", "8", "--figure=b", "--methods", "fastv@144, all rows", "--all"]
    assert typed("x.py", given) == "python benchmarks/x.py --layers 8 --methods 'fastv@144, all rows' --all"


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same benchmarks on a model of a few thousand weights."""
    import random_llava

    monkeypatch.setattr(
        random_llava, "SIZES",
        {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": 32064},
    )  # fmt: skip
    monkeypatch.setattr(random_llava, "TOWER", {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2})


def a_busy_benchmark(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    """The load is 1 before the start, and 9 once something was timed."""
    load, plain = [1.0], module.in_turn
    monkeypatch.setattr(side_by_side.os, "getloadavg", lambda: (load[-1],) * 3)
    monkeypatch.setattr(module, "in_turn", lambda *args: load.append(9.0) or plain(*args))


def test_a_ragged_batch_is_timed_both_ways(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    small(monkeypatch)
    monkeypatch.setattr(side_by_side, "machine_name", lambda device: "a machine")
    a_busy_benchmark(monkeypatch, ragged)
    given = ["--batch", "3", "--repeats", "1", "--dtype", "float32", "--device", "cpu", "--longest", "2"]
    monkeypatch.setattr(
        sys, "argv", ["ragged.py", *given, "--figure", str(tmp_path), "--json", str(tmp_path / "r.json")]
    )
    assert ragged.main() == 0
    assert "| 2 | " in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {
        "r.json",
        "speed-ragged.pdf",
        "speed-ragged.png",
        "speed-ragged.csv",
    }
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["setting"]["load"] == 1
    (target,) = result["targets"]
    assert target["command"] == f"python benchmarks/ragged.py {' '.join(given)}"
    assert target["by_operations"] == result["rows"][0]["by_operations"] > 1


def test_what_packing_leaves_out_are_the_operations_that_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choosing costs about the same both ways, so the difference is that of reading."""
    small(monkeypatch)
    counts: dict[bool, int] = {}

    def counted(works: dict[str, Any], *_: Any) -> dict[str, list[float]]:
        for name, work in works.items():
            with FlopCounterMode(display=False) as counter:
                work()
            counts[name.endswith("packed")] = counter.get_total_flops()
        return {name: [1.0] for name in works}

    found: list[int] = []
    plain = ragged.operations
    monkeypatch.setattr(ragged, "in_turn", counted)
    monkeypatch.setattr(ragged, "operations", lambda *args: found.append(plain(*args)) or found[-1])
    options = argparse.Namespace(
        device="cpu", dtype="float32", layers=8, distinct=2, batch=3, text=20, repeats=1, longest=[2.0]
    )
    with torch.no_grad():
        ragged.measure(options)
    padded, packed = found
    assert padded - packed == pytest.approx(counts[False] - counts[True], rel=1e-3)


def test_questions_about_an_image_are_asked_in_both_ways(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    small(monkeypatch)
    given = ["--questions", "2", "--repeats", "1", "--dtype", "float32", "--device", "cpu", "--new", "2"]
    given += ["--methods", "upper_bound", "atp@88", "visionzip@88", "--json", str(tmp_path / "q.json")]
    a_busy_benchmark(monkeypatch, questions)
    monkeypatch.setattr(sys, "argv", ["questions.py", *given])
    assert questions.main() == 0
    shown = capsys.readouterr().out
    assert "| `visionzip@88` | " in shown
    assert "| 7.5 | all layers |" in shown and "| by operations |" in shown
    assert torch.is_grad_enabled()
    result = json.loads((tmp_path / "q.json").read_text())
    assert result["setting"]["load"] == 1 and "--json" not in result["targets"][0]["command"]
