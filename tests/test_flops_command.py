"""`atp-eval flops`: what it counts, what it refuses, the paper's Table 6, and fvcore beside."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import typed
from engine.small import small_llava
from test_flops import counted
from transformers import LlavaForConditionalGeneration
from typed import call

import atp_eval.engine  # noqa: F401  the module below hides behind a function of its name
from atp_eval.analysis.table6 import table_6
from atp_eval.cost import KNOWN
from atp_eval.cost.breakdown import breakdown
from atp_eval.cost.flops import engine_prefill, prefill
from atp_eval.cost.scorer import Prompt
from atp_eval.engine import prune
from atp_eval.flops import Asked, count, parse_schedule
from atp_eval.flops_commands import FLOPS_EPILOG
from atp_eval.manifest import method_info
from atp_eval.methods import get_method
from atp_eval.training.geometries import known_config

NAME = "llava-hf/llava-1.5-7b-hf"
LLAVA = KNOWN[NAME]
BEFORE, AFTER = 5, 59
Tell = Callable[..., dict[str, Any]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tell:
    """What the command tells programs."""
    return partial(typed.told, monkeypatch, capsys, "flops")


@pytest.fixture(scope="module")
def unweighted() -> Iterator[Any]:
    """LLaVA-1.5-7B without weights, which torch can count but not compute. Prompts are read from ids with values."""
    engine: Any = sys.modules["atp_eval.engine.prune"]
    config = known_config(NAME)
    with torch.device("meta"):
        model: Any = LlavaForConditionalGeneration._from_config(config)
    ids = torch.tensor([[1] * BEFORE + [32000] * LLAVA.cells + [2] * AFTER])
    read = engine.read_prompts

    def read_values(input_ids: torch.Tensor, mask: Any, image: int, cells: int) -> Any:
        found = read(ids, None, image, cells)
        layout = replace(found.layout, valid=found.layout.valid.to("meta"), cell=found.layout.cell.to("meta"))
        return found._replace(layout=layout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "read_prompts", read_values)
        patch.setattr(
            model.model,
            "get_placeholder_mask",
            lambda ids, inputs_embeds, **_: torch.empty_like(inputs_embeds, dtype=torch.bool),
        )
        yield model.eval()


@pytest.mark.parametrize(
    "asked",
    [
        Asked("upper_bound", get_method("upper_bound")),
        parse_schedule("4:126,14:88,24:20", "redundant"),
        parse_schedule("1:98,13:79,25:16", "none"),
        *(Asked(spec, get_method(spec)) for spec in ("fastv@144", "sparsevlm@144", "pyramiddrop@144", "visionzip@64")),
        *(Asked(spec, get_method(spec)) for spec in ("dart@144", "divprune@64", "vispruner@64", "prumerge_plus@144")),
    ],
    ids=lambda asked: asked.name,
)
def test_a_pruned_prefill_of_the_7b_model_is_counted_to_the_operation(asked: Asked, unweighted: Any) -> None:
    ids = torch.empty(1, BEFORE + LLAVA.cells + AFTER, dtype=torch.long, device="meta")
    pixels = torch.empty(1, 3, 336, 336, device="meta")
    with prune(unweighted, asked.method, sample_ids=["one"]) as pruned:
        found = counted(lambda: unweighted(input_ids=ids, pixel_values=pixels, logits_to_keep=1))
    told = count(asked, LLAVA, BEFORE, AFTER, new=1)
    assert told.parts.total == found
    assert (told.parts.prefill < prefill(LLAVA, [n + 64 for n in told.tokens]).total) == bool(pruned.method.counts())


def test_parts_add_up(told: Tell) -> None:
    found = told("--model", NAME, "--schedule", "4:126,14:88,24:20", "--new-tokens", "3")
    full, pruned = found["columns"]
    assert (full["name"], pruned["name"]) == ("upper_bound", "4:126,14:88,24:20 (atp)")
    assert pruned["averages"] == {"input": 143.875, "output": 126.5, "final": 20.0}
    assert full["kv_bytes"] == 301_989_888 and pruned["kv_bytes"] == 75_431_936
    assert full["paper"] == {"macs": 2_986_076_012_544, "saved_macs": 0}
    assert pruned["paper"]["saved_macs"] == full["paper"]["macs"] - pruned["paper"]["macs"]
    for column in (full, pruned):
        parts = column["exact_flops"]
        assert (
            parts["prefill"]
            == sum(parts["layers"]) + parts["lm_head"]
            == engine_prefill(LLAVA, [tokens + 64 for tokens in column["tokens"]], 640, early=True).total
        )
        assert parts["total"] == sum(
            parts[name] for name in ("vision_tower", "projector", "prefill", "scorer", "decode")
        )
    assert full["exact_flops"]["scorer"] == 0 and pruned["exact_flops"]["decode"] > 0


def test_atps_scorer_is_both_scores_and_its_modules() -> None:
    """Both scores of the tokens before each of 4, 14 and 24, and three modules of 1152 x 256 and two heads."""
    scores, atp = (
        count(parse_schedule("4:126,14:88,24:20", name), LLAVA, BEFORE, AFTER, 1).parts.scorer
        for name in ("redundant", "atp")
    )
    assert scores is not None and atp is not None
    lengths = (576 + 64, 126 + 64, 88 + 64)
    assert scores == sum(2 * n * 4096 * 2 + 59 * (2 * n * 4096 + 2 * n) for n in lengths)
    assert atp - scores == 3 * (2 * 1152 * 256 + 2 * 2 * 256)


def test_a_manifest_says_what_the_count_needs() -> None:
    known = {spec: method_info(get_method(spec).solve(LLAVA)) for spec in ("fastv@144", "visionzip@144")}
    assert {spec: info["early"] for spec, info in known.items()} == {"fastv@144": True, "visionzip@144": False}


def test_what_depends_on_the_data_is_said_to(told: Tell) -> None:
    _, found = told("--method", "atp@144")["columns"]
    assert found["counts_depend_on_data"] and found["tokens"] == [144] * 8
    prompt = Prompt(LLAVA, (144,) * 32, 5, 59)
    assert breakdown(prompt, None).total == breakdown(prompt, 0).total  # not counted adds nothing


def test_what_nobody_counted_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    code, out, _ = call(monkeypatch, capsys, "flops", "--model", NAME, "--method", "cdpruner@144")
    assert code == 0 and "not counted" in out and "another model" in out


def test_a_folder_and_several_methods_at_once(told: Tell, tmp_path: Path) -> None:
    small_llava().config.save_pretrained(tmp_path / "small")
    specs = "random:layer=2,keep=9,random@20:seed=1"
    found = told("--model", str(tmp_path / "small"), "--method", specs, "--schedule", "0:9", "--scorer", "none")
    assert [c["name"] for c in found["columns"]] == [
        "upper_bound", "0:9 (no scorer)", "random:layer=2,keep=9", "random@20:seed=1",
    ]  # fmt: skip
    assert found["columns"][2]["tokens"] == [36, 36, 9, 9, 9]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--schedule", "4:126,14"), "'14' must be a layer and a count, such as 4:126,14:88,24:20"),
        (("--schedule", "14:126,4:88"), "layers=14-4 must rise"),
        (("--schedule", "4:600"), "keep=600 is out of range; an image has 1 to 576"),
        (("--schedule", "40:10"), "it has layers 0 to 31"),
        (("--schedule", "0:10"), "layers start at 1"),
        (("--schedule", "4:10", "--scorer", "atq"), "unknown scorer 'atq'. Did you mean: atp"),
        (("--method", "fastvv@144"), "Did you mean: fastv?"),
        (("--method", "prumerge"), "depends on the data"),
        (("--before", "64"), "one text token must follow the image"),
        (("--new-tokens", "0"), "--new-tokens 0: at least 1"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    args: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(monkeypatch, capsys, "flops", "--model", NAME, *args)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1


# ------------------------------------------------------------------ Table 6 and fvcore


def test_table_6_kv_is_bytes_and_its_flops_follow_from_no_count(told: Tell) -> None:
    found = table_6()
    for printed, ours, mib in zip(found.kv, found.kv_mb, found.kv_mib, strict=True):
        assert abs(printed.value / ours - 1) < 0.002
        assert round(1.05 * mib, 1) == printed.value
    assert [round(v, 3) for v in found.countings[0].values] == [2.986, 0.730, 0.737, 0.447]
    assert [round(f, 1) for f in found.countings[0].factors(found.tflops)] == [3.2, 2.7, 2.8, 3.4]
    assert not any(counting.explains(found.tflops) for counting in found.countings)
    thirds = found.countings[0]._replace(values=tuple(f.value / 3 for f in found.tflops))
    assert thirds.explains(found.tflops)  # so that a factor would be seen if there were one
    said = told("--table6")
    assert said["printed_tflops"] == [9.6, 2.0, 2.1, 1.5] and len(said["countings"]) == 5


def test_the_figures_in_the_help_are_those_of_the_table() -> None:
    found = table_6()
    text = " ".join(FLOPS_EPILOG.split())
    for counting, name in ((found.countings[0], "Eq. 15 gives"), (found.countings[3], "text tokens")):
        values = [f"{v:.2f}" for v in counting.values]
        assert f"{name} {', '.join(values[:3])} and {values[3]} T" in text
    assert f"{', '.join(f'{mb:.1f}' for mb in found.kv_mb[:2])} and {found.kv_mb[3]:.1f} MB" in text


def test_fvcore_misses_fused_attention_and_nothing_else_that_multiplies(told: Tell) -> None:
    sdpa, eager = told("--model", NAME, "--fvcore")["fvcore"]
    assert sdpa["unsupported"]["aten::scaled_dot_product_attention"] == 32
    attention = 4 * 640 * 640 * 4096 * 32
    assert sdpa["exact"] - 2 * sdpa["macs"] == attention
    assert 2 * eager["macs"] / eager["exact"] == pytest.approx(1, abs=1e-5)  # but for the rotary tables' product
