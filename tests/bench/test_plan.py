"""Plans: cells, budgets at any depth and grid, memory that is asked for beforehand, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from atp_eval.bench import planning
from atp_eval.bench.memory import cell_bytes, weights_bytes
from atp_eval.bench.plan import Wanted
from atp_eval.bench.planning import make_plan
from atp_eval.bench.records import Cell
from atp_eval.bench.untrained import paper_stages
from atp_eval.cost import KNOWN, Geometry, averages, tokens_per_layer
from atp_eval.errors import UserError
from bench.small import small_folder, small_plan

GIB = 2**30
SEVEN = {"model": "7b", "random_weights": True, "device": "cpu"}


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with memory for everything."""
    monkeypatch.setattr(planning, "free_memory", lambda device: 10**13)


# ------------------------------------------------------------------ cells


def test_the_issues_command(roomy: None) -> None:
    found = make_plan(
        Wanted(
            **SEVEN, batches=[1, 8], attentions=["sdpa", "eager", "flash"], methods=["fastv@144", "atp@144", "atp@88"]
        )
    )
    cells = found.settings.cells
    assert len(cells) == 4 * 2 * 3 and found.settings.model == "llava-hf/llava-1.5-7b-hf"
    assert cells[0] == Cell(method="upper_bound", batch=1, attention="sdpa", side=24, new=16)
    assert {c.attention for c in cells} == {"sdpa", "eager", "flash_attention_2"}
    assert {cells[i].attention for i in found.refused} == {"flash_attention_2"} and len(found.refused) == 8
    assert all("flash-attn" in why for why in found.refused.values())
    rows = {(r["method"], r["batch"]): r for r in found.estimates() if r["attention"] == "sdpa"}
    assert rows["atp@144", 1]["average_tokens"] == pytest.approx(143.9, abs=0.05)
    assert rows["upper_bound", 1]["kv_bytes"] == 576 * 32 * 2 * 4096 * 2
    assert rows["upper_bound", 8]["flops"] == 8 * rows["upper_bound", 1]["flops"]


def test_the_plan_fits_a_narrow_terminal_and_says_once_why_something_is_left_out(tmp_path: Path) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(small_plan(tmp_path, methods=["fastv@9"], attentions=["sdpa", "flash"]).to_rich())
    text = console.export_text()
    assert "fastv@9 " in text and "fastv@9 *" in text and text.count("not run: flash_attention_2 needs") == 1


def test_growth_varies_one_thing_at_a_time(tmp_path: Path) -> None:
    found = small_plan(
        tmp_path, kind="growth", tokens=[9, 36, 144], batches=[1, 2], news=[2, 4, 8], random_weights=False
    )
    sizes = {(c.side, c.batch, c.new) for c in found.settings.cells}
    assert sizes == {(3, 1, 2), (6, 1, 2), (12, 1, 2), (6, 2, 2), (6, 1, 4), (6, 1, 8)}
    assert found.settings.random_weights and found.geometry(12).cells == 144
    assert {c.method for c in found.settings.cells} == {"upper_bound", "fastv@kv=25%"}


def test_the_same_settings_have_the_same_folder_and_others_another(tmp_path: Path) -> None:
    one, same, other = (small_plan(tmp_path, rounds=n, methods=["grid@9"]).output() for n in (2, 2, 3))
    assert one == same != other and one.parent == Path("runs")


# ------------------------------------------------------------------ budgets


def test_the_papers_own_layers_and_counts() -> None:
    geometry = KNOWN["llava-hf/llava-1.5-7b-hf"]
    assert paper_stages(144, geometry) == ((4, 14, 24), (126, 88, 20))  # Tab. 2
    assert paper_stages(88, geometry) == ((1, 13, 25), (98, 79, 16))


@settings(max_examples=40)
@given(st.integers(4, 48), st.integers(6, 96), st.floats(0.12, 0.6))
def test_a_budget_is_met_at_any_depth_and_grid(layers: int, side: int, share: float) -> None:
    geometry = Geometry(layers, (side, side))
    wanted = share * geometry.cells
    try:
        found = paper_stages(wanted, geometry)
    except UserError as error:
        assert "out of reach" in str(error)
        return
    reached = averages(tokens_per_layer(geometry, found.layers, found.keep)).input
    assert abs(reached - wanted) <= max(1.5, 0.02 * geometry.cells)
    assert list(found.layers) == sorted(set(found.layers)) and found.layers[-1] < layers
    assert list(found.keep) == sorted(found.keep, reverse=True) and found.keep[-1] >= 1


def test_atp_takes_a_share_of_kv_too(tmp_path: Path) -> None:
    found = small_plan(tmp_path, methods=["atp@kv=50%", "atp@18"])
    by_share, by_count = (found.ways[name, 6].stages for name in ("atp@kv=50%", "atp@18"))
    assert by_share == by_count is not None


# ------------------------------------------------------------------ memory


def test_too_large_a_model_is_named_with_what_it_needs_what_there_is_and_the_fix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planning, "free_memory", lambda device: 16 * GIB)
    with pytest.raises(UserError) as caught:
        make_plan(Wanted(**SEVEN, methods=["fastv@144"]))
    text = str(caught.value)
    assert "needs about 29.1 GB" in text and "17.2 GB free" in text and "--dtype bfloat16" in text and "\n" not in text
    layers = int(text.split("--layers ")[1].split()[0])
    assert make_plan(Wanted(**SEVEN, methods=["fastv@144"], layers=layers)).refused == {}
    with pytest.raises(UserError, match="free"):
        make_plan(Wanted(**SEVEN, methods=["fastv@144"], layers=layers + 1))


def test_a_cell_that_does_not_fit_is_left_out_and_the_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "free_memory", lambda device: 32 * 10**9)
    found = make_plan(Wanted(**SEVEN, methods=["fastv@144"], batches=[1, 64]))
    cells = found.settings.cells
    assert [cells[i].batch for i in found.refused] == [64, 64] and "smaller batch" in next(iter(found.refused.values()))


def test_weights_are_those_of_the_published_model(roomy: None) -> None:
    found = make_plan(Wanted(**SEVEN, methods=["grid@144"]))
    assert found.weights == 4 * 7_063_427_072  # parameters of llava-1.5-7b-hf
    assert weights_bytes(found.config, 2) == found.weights // 2


def test_eager_attention_needs_its_maps() -> None:
    geometry = KNOWN["llava-hf/llava-1.5-7b-hf"]
    sdpa, eager = (
        cell_bytes(geometry, Cell(method="x", batch=2, attention=name, side=24, new=8), 64, 2)
        for name in ("sdpa", "eager")
    )
    assert eager - sdpa == pytest.approx(2 * 32 * 640**2 * 8, rel=0.3)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"batches": [0]}, "--batch 0: at least 1"),
        ({"batches": []}, "--batch is empty"),
        ({"attentions": []}, "--attention is empty"),
        ({"rounds": 0}, "--rounds 0"),
        ({"text": 5}, "--text-tokens 5"),
        ({"attentions": ["flsh"]}, "unknown attention 'flsh'. Did you mean: flash"),
        ({"tokens": [36]}, "--tokens is for `atp-eval bench growth`"),
        ({"kind": "growth", "tokens": [37]}, "square grid, such as 36"),
        ({"news": [2, 3]}, "--new-tokens: one number"),
        ({"layers": 9}, "--layers 9: "),
        ({"layers": 2, "random_weights": False}, "add --random-weights"),
        ({"layers": 2, "methods": ["fastv@9"]}, "the 2 layers of --layers; take more"),
        ({"methods": ["fastvv@9"]}, "Did you mean: fastv"),
        ({"methods": ["atp@18:control=static"]}, "have no trained modules"),
        ({"methods": ["atp:adapter=x"]}, "have no trained modules"),
        ({"methods": ["atp@500"]}, "only 36 visual tokens"),
        ({"methods": ["atp@1"]}, "out of reach"),
        ({"methods": ["atp@time=10%"]}, "a share of KV"),
        ({"methods": ["oracle@9"]}, "reads ground truth"),
        ({"methods": ["cdpruner@9"]}, "text tower"),
        ({"attentions": ["flash"]}, "nothing can be measured: flash_attention_2 needs"),
        ({"device": "cuda"}, "no CUDA device"),
    ],
)
def test_what_cannot_be_measured_is_one_line_before_anything_is_loaded(
    wanted: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        small_plan(tmp_path, **{"methods": ["grid@9"], **wanted})
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_without_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="13b"):
        make_plan(Wanted(model="13bb", random_weights=True))
    assert make_plan(Wanted(model=small_folder(tmp_path / "s"), methods=["grid@9"])).settings.random_weights is False
