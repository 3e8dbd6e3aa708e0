"""`atp-eval budget`: what it prints, what it measures, what it refuses; and the numbers of docs/budgets.md."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typed
from engine.small import small_llava
from typed import call

from atp_eval import calibrate

LLAVA = ("--model", "llava-hf/llava-1.5-7b-hf")
DOCS = Path(__file__).parents[1] / "docs" / "budgets.md"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Times that were measured on this machine belong to no test; the commands' settings are those of a terminal."""
    monkeypatch.setenv("ATP_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "cache"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """What the command tells programs."""
    return partial(typed.told, monkeypatch, capsys, "budget")


@pytest.fixture
def small(tmp_path: Path) -> str:
    """A folder with the configuration of a small model, and no weights."""
    small_llava().config.save_pretrained(tmp_path / "small")
    return str(tmp_path / "small")


# ------------------------------------------------------------------ the documentation


def rows(columns: int) -> list[list[str]]:
    """Cells of the rows of docs/budgets.md in tables of so many columns, without heads."""
    lines = re.findall(r"^\|(.*)\|$", DOCS.read_text(encoding="utf-8"), re.M)
    found = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [cells for cells in found if len(cells) == columns and any("`" in cell for cell in cells)]


def same(printed: str, value: float, digits: int = 2) -> bool:
    """Whether a number is rounded to what is printed, emphasis aside."""
    return float(printed.strip("*")) == round(value, digits)


def test_every_convention_in_the_documentation_is_what_the_command_says(told: Any) -> None:
    printed = rows(7)
    assert len(printed) >= 16
    specs = list(dict.fromkeys(cells[3].strip("`") for cells in printed))
    found = {row["method"]: row["averages"] for row in told(*specs, *LLAVA)["methods"]}
    for cells in printed:
        for text, name in zip(cells[4:], ("input", "output", "final"), strict=True):
            assert same(text, found[cells[3].strip("`")][name]), (cells, name, found[cells[3].strip("`")])


def test_every_budget_in_the_documentation_is_what_the_command_says(told: Any) -> None:
    examples = [cells for cells in rows(4) if "@" in cells[0] and "fastv:" in cells[2]]
    assert len(examples) == 5
    for cells, row in zip(examples, told(*(c[0].strip("`") for c in examples), *LLAVA)["methods"], strict=True):
        assert row["method"] == cells[0].strip("`") and row["solved"] == cells[2].strip("`")
        assert same(cells[3], row["average"]), (cells, row["average"])


def test_every_cost_in_the_documentation_is_what_the_command_says(told: Any) -> None:
    costs = [cells for cells in rows(4) if re.fullmatch(r"[0-9.]+", cells[3]) and "fastv:" not in cells[2]]
    assert len(costs) == 5
    data = told(*(c[0].strip("`") for c in costs), *LLAVA)
    for cells, row in zip(costs, data["methods"], strict=True):
        scaled = (row["costs"]["kv_bytes"] / 1e6, row["costs"]["paper_macs"] / 1e12, row["costs"]["exact_flops"] / 1e12)
        digits = zip(cells[1:], scaled, (1, 3, 3), strict=True)
        assert all(same(text, value, places) for text, value, places in digits), (cells, scaled)
    text, full, atp = DOCS.read_text(encoding="utf-8"), data["unpruned"], data["methods"][2]["costs"]
    assert same("0.41", (full["vision_tower_flops"] + full["projector_flops"]) / 1e12) and "take 0.41 TFLOP" in text
    assert f"144 tokens save {100 * (1 - atp['exact_flops'] / full['exact_flops']):.1f} %" in text


# ------------------------------------------------------------------ the table


def test_a_methods_row(told: Any) -> None:
    data = told("fastv@144", "random@144:seed=1", *LLAVA, "--text-tokens", "100")
    row = data["methods"][0]
    assert row["solved"] == "fastv:layer=2,keep=115" and row["exact"] is True
    assert row["tokens"] == [576] * 2 + [115] * 30
    assert row["averages"] == {"input": 143.8125, "output": 129.40625, "final": 115}
    assert row["costs"]["kv_bytes"] == 4602 * 16384 and row["costs"]["seconds"] is None
    assert data["methods"][1]["costs"] == row["costs"]
    assert (data["text_tokens"], data["geometry"]["hidden"], data["prefill_times"]) == (100, 4096, None)
    fewer = told("fastv@144", *LLAVA)
    assert fewer["methods"][0]["costs"]["exact_flops"] < row["costs"]["exact_flops"]
    assert fewer["methods"][0]["costs"]["paper_macs"] == row["costs"]["paper_macs"]


def test_specs_may_be_separated_by_commas_or_left_out(told: Any) -> None:
    found = told("fastv:layer=2,keep=72,random@144", "grid@kv=25%", *LLAVA)["methods"]
    assert [row["method"] for row in found] == ["fastv:layer=2,keep=72", "random@144", "grid@kv=25%"]
    assert [row["method"] for row in told()["methods"]][:2] == ["upper_bound", "atp@144"]
    assert [row["method"] for row in told(*LLAVA)["methods"]][:2] == ["upper_bound", "fastv@144"]


def test_people_see_parameters_tokens_averages_and_shares(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(monkeypatch, capsys, "budget", "fastv@kv=75.6MB", *LLAVA, "--text-tokens", "9")
    assert code == 0 and err == ""
    for part in ("fastv@kv=75.6MB", "fastv:layer=2,keep=115", "2 x 576, 30 x 115", "143.8 input", "129.4 output",
                 "115.0 final", "75.4", "25.0%", "9 text"):  # fmt: skip
        assert part in out
    assert all(len(line) <= 80 for line in out.splitlines()) and "time" not in out
    _, out, _ = call(monkeypatch, capsys, "budget", "fastv@flops=40%", *LLAVA, "--text-tokens", "9")
    assert "met with 64 text tokens" in " ".join(out.split())


def test_counts_that_depend_on_the_data_are_told_apart(
    told: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    by_budget, by_name, fixed = told(
        "atp@kv=0.6MB", "atp:adapter=tiny-144", "atp:adapter=tiny-144,control=fixed", "--model", "tiny"
    )["methods"]
    assert (by_budget["exact"], by_budget["average"], by_budget["tokens"]) == (False, 144, None)
    assert by_budget["costs"]["kv_bytes"] == 144 * 4096
    assert (by_name["exact"], by_name["average"], by_name["costs"]) == (False, None, None)
    assert fixed["exact"] and len(fixed["tokens"]) == 8
    _, out, _ = call(monkeypatch, capsys, "budget", "atp@144")
    assert (
        "~144.0 input" in out and "counts depend on the data" in out and "measured, not exact" in " ".join(out.split())
    )


def test_help_has_examples(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(monkeypatch, capsys, "budget", "--help")
    assert code == 0 and "fastv@kv=75.6MB" in out and "--measure" in out and "docs/budgets.md" in out


@pytest.mark.parametrize(("args", "message"), [
    (("fastvv@144",), "unknown method 'fastvv'. Did you mean: fastv"),
    (("fastv@9999",), "an image has only 576 visual tokens"),
    (("fastv@kv=1MB", *LLAVA), "The nearest is fastv@kv=19.37MB"),
    (("fastv@kv=75mb",), "unknown unit of kv 'mb'. Did you mean: MB?"),
    (("fastv@time=30%", *LLAVA, "--device", "cpu"), "run: atp-eval budget --measure --model MODEL --dtype float32"),
    (("fastv@144", "--model", "nowhere"), "unknown model 'nowhere'"),
    (("fastv@144", "--model", "no/such/model"), "no/such/model"),
    (("fastv@144", "--text-tokens", "0"), "--text-tokens 0"),
    (("--measure", "--rounds", "0"), "--rounds 0"),
    (("fastv@144", "--device", "abacus"), "unknown device 'abacus'"),
    (("fastv@144", "--device", "cuda:7"), "cuda:7"),
    (("fastv@144", "--dtype", "int4"), "unknown dtype 'int4'"),
    (("fastv@144", "--attention", "flash"), "unknown attention 'flash'. Choose from: sdpa"),
])  # fmt: skip
def test_wrong_input_is_one_line(
    args: tuple[str, ...],
    message: str,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = call(monkeypatch, capsys, "budget", *args)
    assert (code, out) == (2, "") and message in err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert not cache.exists()


# ------------------------------------------------------------------ measuring


def test_measured_times_are_kept_and_budgets_of_time_use_them(told: Any, small: str, cache: Path) -> None:
    measured = told("grid@18:layer=0", "--measure", "--rounds", "2", "--model", small, "--device", "cpu")
    times = measured["prefill_times"]
    assert times["tokens"] == [1, 2, 4, 9, 14, 18, 22, 27, 32, 36] and times["rounds"] == 2
    assert all(seconds > 0 for seconds in times["medians"]) and times["place"]["dtype"] == "float32"
    assert measured["methods"][0]["costs"]["seconds"] > 0
    assert len(list(cache.rglob("*.json"))) == 1
    later = told("grid@time=100%:layer=0", "--model", small, "--device", "cpu")
    assert later["prefill_times"] == times and later["methods"][0]["tokens"] == [36] * 5
    assert told("grid@18", "--model", small, "--dtype", "bfloat16")["prefill_times"] is None


def test_every_number_of_tokens_has_its_turn_in_every_round(
    told: Any, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that says how many tokens and which round: medians of rounds 1 to 3, without that which warms up."""
    turns: list[int] = []

    def seconds(model: Any, inputs: Any, count: int, cells: int, device: Any) -> float:
        turns.append(count)
        return 10.0 * count + (len(turns) - 1) // 10

    monkeypatch.setattr(calibrate, "prefill_seconds", seconds)
    times = told("grid@18", "--measure", "--rounds", "3", "--model", small, "--device", "cpu")["prefill_times"]
    assert len(turns) == 40
    assert all(sorted(turns[i : i + 10]) == times["tokens"] for i in range(0, 40, 10))
    assert len({turns[i] for i in range(0, 40, 10)}) == 4  # none always comes first
    assert times["medians"] == [10 * count + 2 for count in times["tokens"]]


def test_a_timed_prefill_has_the_tokens_that_it_is_said_to_have(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = calibrate.find_config(small)
    place = calibrate.find_place(config, "cpu", "float64", "eager")
    device = calibrate.find_device("cpu")
    model = calibrate.language_model(config, device, place)
    seen: list[int] = []
    model.model.language_model.layers[0].self_attn.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["hidden_states"].shape[1]), with_kwargs=True
    )
    for count in (1, 9, 36):
        assert calibrate.prefill_seconds(model, calibrate.prompt(model, device), count, 36, device) > 0
    assert seen == [65, 73, 100]
    assert str(model.dtype) == "torch.float64" and place.attention == "eager"
