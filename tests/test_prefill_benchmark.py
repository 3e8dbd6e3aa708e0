"""The prefill benchmark on a narrow model: what it counts and computes, not how long anything takes."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from atp_eval.errors import UserError

LAYERS = 16
NARROW = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 32064}
WRITTEN, ALL_ROWS = "fastv@144, as its authors wrote it", "fastv@144, all rows"


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """The files of the benchmark, and the model made narrow."""
    names = ("prefill", "prefill_tables", "stopwatch", "targets", "random_llava", "fastv_eager", "subjects")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        found = {name: importlib.import_module(name) for name in names}
        for name in ("prefill", "random_llava"):
            patch.setattr(found[name], "SIZES", NARROW)
        yield found


def measure(modules: dict[str, ModuleType], methods: list[str], **changed: Any) -> dict[str, Any]:
    options = argparse.Namespace(
        layers=LAYERS, distinct=2, methods=methods, text=20, batch=1, repeats=6, device="cpu", dtype="float32",
        attention="sdpa", threads=0, clock="wall",
    )  # fmt: skip
    vars(options).update(changed)
    found: dict[str, Any] = modules["prefill"].measure(options, Console(quiet=True))
    return found


@pytest.fixture(scope="module")
def result(modules: dict[str, ModuleType]) -> dict[str, Any]:
    found = measure(modules, [*modules["prefill"].METHODS, ALL_ROWS])
    found["command"] = "python benchmarks/prefill.py"
    found["targets"] = modules["targets"].to_json(modules["prefill_tables"].target_rows(found))
    return found


def row(result: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in result["rows"] if row["method"] == name)


def test_tokens_are_equal_and_the_papers(result: dict[str, Any]) -> None:
    assert row(result, "atp@144")["visual_tokens_per_layer"] == [576.0] * 2 + [126.0] * 5 + [88.0] * 5 + [20.0] * 4
    assert row(result, "atp@88")["visual_tokens_per_layer"] == [576.0] + [98.0] * 5 + [79.0] * 6 + [16.0] * 4
    for name in ("fastv@144", WRITTEN, ALL_ROWS):
        assert row(result, name)["visual_tokens_per_layer"] == [576.0] + [115.0] * 15
    for found in result["rows"]:
        if found["method"].startswith("upper_bound"):
            continue
        asked = 88 if "@88" in found["method"] else 144
        assert found["at_32"]["average_visual_tokens"] == pytest.approx(asked, abs=0.5)
    assert row(result, "atp@144")["at_32"]["prune_layers"] == [4, 14, 24]
    assert row(result, "atp@88")["at_32"]["prune_layers"] == [1, 13, 25]


def test_fastv_as_its_authors_wrote_it_keeps_the_same_cells(result: dict[str, Any]) -> None:
    assert row(result, WRITTEN)["cells_kept_alike"] == [115, 115]


def test_fastv_as_its_authors_wrote_it_answers_like_ours(modules: dict[str, ModuleType]) -> None:
    """The same tokens at the same places: the same next word's scores, within fp32."""
    from atp_eval.engine import model_geometry, prune
    from atp_eval.models.llava import encoded_already

    found, cpu = modules["random_llava"], torch.device("cpu")
    size = found.Size(6, 2, 1, 20, cpu, torch.float32, "sdpa")
    torch.manual_seed(0)
    model = found.build(size)
    inputs = found.prompts(model_geometry(model.config), size)
    with torch.inference_mode(), encoded_already(model):
        with prune(model, "fastv:layer=2,keep=50"):
            ours = model(**inputs).logits
        with modules["fastv_eager"].fastv_as_written(model, 2, 50, slice(5, 581)):
            theirs = model(**inputs).logits
        whole = model(**inputs).logits
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(ours, whole, atol=1e-3)
    assert model.config.text_config._attn_implementation == "sdpa"
    assert not any(layer._forward_pre_hooks for layer in model.model.language_model.layers)


def test_layers_share_weights_and_nothing_else(modules: dict[str, ModuleType]) -> None:
    found = modules["random_llava"]
    model = found.build(found.Size(5, 2, 1, 20, torch.device("cpu"), torch.float32, "sdpa"))
    layers = model.model.language_model.layers
    assert [layer.self_attn.layer_idx for layer in layers] == list(range(5))
    assert layers[4].mlp.up_proj.weight is layers[0].mlp.up_proj.weight is not layers[1].mlp.up_proj.weight
    assert layers[4].mlp is not layers[0].mlp and layers[4].self_attn.config is layers[0].self_attn.config
    assert model.config.text_config.num_hidden_layers == 5


def test_an_adaptive_method_reads_once_a_prune_point(result: dict[str, Any]) -> None:
    found = {row["method"]: row["reads_a_point"] for row in result["rows"]}
    assert {name: reads for name, reads in found.items() if reads} == {"atp@144": 1, "atp@88": 1}


def test_shares_add_up(result: dict[str, Any]) -> None:
    for found in result["rows"]:
        rounds, points = found["rounds"], len(found["prune_layers"])
        assert len(found["point_seconds"]) == points
        for total, before, inside, choosing in zip(*rounds.values(), strict=True):
            assert len(before) == len(inside) == LAYERS
            assert sum(before) + sum(inside) < total
            assert (0 < choosing < sum(before[layer] for layer in found["prune_layers"])) if points else choosing == 0
        assert found["at_32"]["choosing_share"][0] <= found["at_32"]["pruning_share"][0] < 1
    assert row(result, "upper_bound")["speedup"] == [1, 1, 1]


def test_operations_are_the_closed_forms(result: dict[str, Any]) -> None:
    """One layer of FastV's 30 has pruned rows; as written, none leaves early and the last layer runs whole."""
    d, m, words = 64, 128, 32064

    def layer(entering: int, asked: int, leaving: int) -> int:
        return entering * 4 * d * d + asked * 2 * d * d + 4 * asked * entering * d + leaving * (2 * d * d + 6 * d * m)

    head, whole, after = 2 * d * words, 596, 115 + 20
    full = 32 * layer(whole, whole, whole) + head
    written = 2 * layer(whole, whole, whole) + 30 * layer(after, after, after) + head
    ours = layer(whole, whole, whole) + layer(whole, whole, after) + 29 * layer(after, after, after)
    ours += layer(after, 1, 1) + head
    assert row(result, "fastv@144")["at_32"]["by_operations"] == pytest.approx(full / ours, rel=1e-12)
    for name in (WRITTEN, ALL_ROWS):
        assert row(result, name)["at_32"]["by_operations"] == pytest.approx(full / written, rel=1e-12)


def test_another_depth_is_computed_stage_by_stage(modules: dict[str, ModuleType]) -> None:
    stopwatch = modules["stopwatch"]
    times = stopwatch.Times(total=[40.0], inside=[[5.0, 3.0, 1.0, 2.0]])
    deep = stopwatch.at_depth(times, (1, 2), (3, 7), 9)
    assert deep.tolist() == [29 + 3 * 5.0 + 4 * 3.0 + 2 * 1.5]
    assert stopwatch.at_depth(times, (1, 2), (1, 2), 4).tolist() == times.total
    assert stopwatch.at_depth(times, (0,), (0,), 8).tolist() == [29 + 8 * 2.75]


def test_layers_with_dead_rows_count_once(modules: dict[str, ModuleType]) -> None:
    stopwatch = modules["stopwatch"]
    times = stopwatch.Times(total=[40.0], inside=[[5.0, 3.0, 1.0, 2.0]], alone={0, 3})
    deep = stopwatch.at_depth(times, (1,), (3,), 9, np.array([6.0]))
    assert deep.tolist() == [29 + (2 * 6.0 + 5.0) + (5 * 2.0 + 2.0)]


def test_which_layers_have_dead_rows_is_seen(result: dict[str, Any]) -> None:
    found = {row["method"]: row["layers_with_dead_rows"] for row in result["rows"]}
    assert found == {
        "upper_bound": [], "fastv@144": [0, 15], "atp@144": [1, 6, 11, 15], "fastv@88": [0, 15],
        "atp@88": [0, 5, 11, 15], "sparsevlm@144, no recycling": [15], WRITTEN: [], ALL_ROWS: [],
        "upper_bound, oneDNN": [],
    }  # fmt: skip


def test_counting_reads_leaves_nothing_behind(modules: dict[str, ModuleType]) -> None:
    plain = Tensor.item
    with pytest.raises(ZeroDivisionError), modules["stopwatch"].counted_reads() as count:
        assert torch.ones(1).item() == 1
        assert bool(torch.ones(1))
        assert count() == 2
        raise ZeroDivisionError
    assert Tensor.item is plain


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("divprune@144, as its authors wrote it", "only FastV"),
        ("fastv@144, no recycling", "only SparseVLM"),
        ("fastvv@144", "Did you mean: fastv"),
    ],
)
def test_a_wrong_name_is_refused(name: str, said: str, modules: dict[str, ModuleType]) -> None:
    with pytest.raises(UserError, match=said):
        measure(modules, ["upper_bound", name], layers=4)


def test_a_batch_is_none_of_the_authors(modules: dict[str, ModuleType]) -> None:
    with pytest.raises(UserError, match="one prompt at a time"):
        measure(modules, ["upper_bound", WRITTEN], layers=4, batch=2)


# ------------------------------------------------------------------ tables, targets, figure


def test_the_table_has_a_row_a_method_and_a_target(modules: dict[str, ModuleType], result: dict[str, Any]) -> None:
    table, note, targets, *commands = modules["prefill_tables"].markdown(result).split("\n\n")
    head, rule, *rows = table.splitlines()
    assert {line.count("|") for line in (head, rule, *rows)} == {head.count("|")}
    assert [line.split("`")[1] for line in rows] == [row["method"] for row in result["rows"]]
    assert f"{LAYERS} layers" in note and "kept 115 of the 115 cells" in note
    head, rule, *rows = targets.splitlines()
    assert {line.count("|") for line in (head, rule, *rows)} == {head.count("|")} and len(rows) == 4 + 1 + 5
    assert commands == ["`python benchmarks/prefill.py`\n"]


def test_targets_hold_what_the_rows_say(result: dict[str, Any]) -> None:
    by_work = {(t["work"].split("`")[1], t["unit"]): t for t in result["targets"] if "authors" not in t["against"]}
    for name, aim in (("fastv@144", 3.4), ("atp@144", 3.4), ("fastv@88", 4.3), ("atp@88", 4.3)):
        found, deep = by_work[name, "x"], row(result, name)["at_32"]
        assert (found["aim"], found["measured"], found["by_operations"]) == (
            aim, deep["speedup"], deep["by_operations"],
        )  # fmt: skip
        assert by_work[name, "%"]["measured"][0] == pytest.approx(100 * deep["choosing_share"][0])
    (ratio,) = (t for t in result["targets"] if "authors" in t["against"])
    seconds = [np.array(row(result, name)["at_32"]["seconds"]) for name in (WRITTEN, "fastv@144")]
    assert ratio["measured"][0] == pytest.approx(np.median(seconds[0] / seconds[1]))


def test_reached_is_by_the_median_and_the_sense(modules: dict[str, ModuleType]) -> None:
    target = modules["targets"].Target
    assert target("a", "b", 3.4, (3.4, 3.0, 3.5)).cells()[2:] == ["≥ 3.40x", "3.40x [3.00x, 3.50x]", "", "yes"]
    assert not target("a", "b", 3.4, (3.39, None, None)).reached
    assert target("a", "b", 0.5, (0.5, None, None), "%", "at most").cells()[2:] == ["≤ 0.5 %", "0.5 %", "", "yes"]
    assert not target("a", "b", 0.5, (0.51, None, None), "%", "at most").reached


def test_documents_are_filled_from_json(
    modules: dict[str, ModuleType], result: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets, data, page = modules["targets"], tmp_path / "prefill.json", tmp_path / "speed.md"
    data.write_text(json.dumps(result))
    page.write_text(f"before\n\n{targets.MARK}\nold\n{targets.MARK}\n\nafter\n")
    for _ in range(2):  # again gives the same
        assert targets.main([str(data), "--docs", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert text.count("| prefill, `atp@144`") == 1
    page.write_text("no marks")
    assert targets.main([str(data), "--docs", str(page)]) == 2
    assert targets.main([str(page)]) == 2
    assert "has 0 of the two lines" in capsys.readouterr().err


def test_the_figure_has_a_mark_a_method(modules: dict[str, ModuleType], result: dict[str, Any]) -> None:
    from atp_eval.plotting import to_svg

    chart = modules["prefill_tables"].chart(result)
    assert chart.data["method"].tolist() == [row["method"] for row in result["rows"][1:]]
    assert "fastv@144" in to_svg(chart) and "by operations" in chart.alt


def test_a_target_says_how_many_layers_were_timed(modules: dict[str, ModuleType], result: dict[str, Any]) -> None:
    assert all(f", {LAYERS} layers timed, computed for 32" in target["work"] for target in result["targets"])
    whole = {**result, "geometry": {**result["geometry"], "layers": 32}}
    assert not any("computed" in target.work for target in modules["prefill_tables"].target_rows(whole))


def test_only_speed_ups_over_the_unpruned_model_have_an_aim(
    modules: dict[str, ModuleType], result: dict[str, Any]
) -> None:
    turned = {**result, "rows": result["rows"][::-1]}  # speed-ups are over the first row
    assert not any(target.against.startswith("unpruned") for target in modules["prefill_tables"].target_rows(turned))


def test_too_few_layers_to_tell_about_32_are_refused(
    modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["prefill.py", "--layers", "7"])
    monkeypatch.setattr(modules["prefill"], "measure", lambda *args: pytest.fail("it was measured"))
    with pytest.raises(SystemExit) as ended:
        modules["prefill"].main()
    assert ended.value.code == 2 and "layers at least 8" in capsys.readouterr().err


def test_stamps_are_a_benchs_but_for_processor_seconds(
    modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, asked = modules["stopwatch"].Clock, list[str]()
    event = SimpleNamespace(record=asked.append)
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"of {device}")
    assert clock(torch.device("cuda:1"), "cpu").stamp() is event and asked == ["of cuda:1"]
    monkeypatch.setattr("time.process_time", lambda: 3.0)
    monkeypatch.setattr("time.perf_counter", lambda: 5.0)
    assert [clock(torch.device("cpu"), kind).stamp() for kind in ("cpu", "wall")] == [3.0, 5.0]
