"""`atp@144`, `atp:adapter=...` and what is refused, with and without adapters that ship."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine.small import small_llava

import atp_eval.methods.atp.method
from atp_eval.engine import model_geometry, prune
from atp_eval.errors import UserError
from atp_eval.methods import Geometry, get_method
from atp_eval.methods.atp import ATP
from methods.adapters import random_adapter

SMALL, LLAVA = Geometry(5, (6, 6)), Geometry(32, (24, 24))


@pytest.fixture(scope="module")
def model() -> Any:
    return small_llava()


@pytest.fixture(autouse=True)
def shipped(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Adapters that ship: for averages of 14 and 20, and two that are known by name only."""
    folders = {}
    named = (("s14", 14, False), ("s20", 20, False), ("s9-lm", None, True), ("plain", None, False))
    for name, budget, trained in named:
        adapter = random_adapter(model)
        config = adapter.config.model_copy(update={"budget": budget, "language_model": trained})
        replace(adapter, config=config, language_model={} if trained else None).save(tmp_path / name)
        folders[name] = tmp_path / name
    monkeypatch.setattr(atp_eval.methods.atp.method, "shipped", lambda: folders)
    return folders


def test_a_budget_means_the_adapter_that_ships_for_it(model: Any) -> None:
    method = get_method("atp@14")
    assert method == ATP(average=14) and method.label == "atp@14"
    solved = method.solve(model_geometry(model.config))
    assert (solved.label, str(solved)) == ("atp@14", "atp:adapter=s14,layers=1-3")
    assert solved.prune_layers == (1, 3) and solved.positions == "1d" and solved.language_model is None
    again = get_method(str(solved)).solve(SMALL)
    assert again == solved == solved.solve(SMALL)
    with prune(model, "atp@20:control=static") as pruned:
        assert pruned.method.label == "atp@20:control=static"
        assert str(pruned.method) == "atp:adapter=s20,layers=1-3,control=static"


def test_parameters_are_read(shipped: dict[str, Path]) -> None:
    spec = f"atp : adapter = {shipped['plain']} , layers = 1-3, control=shuffled"
    method = get_method(spec)
    assert method == ATP(adapter=str(shipped["plain"]), layers=(1, 3), control="shuffled")
    assert method.solve(SMALL).prune_layers == (1, 3)
    fixed = get_method("atp:adapter=plain,control=fixed,scale=1/2")
    assert fixed == ATP(adapter="plain", control="fixed", scale=0.5)
    assert fixed.label == "atp:adapter=plain,control=fixed,scale=0.5"
    assert get_method("atp:adapter=s9-lm").solve(SMALL).language_model == {}
    assert get_method("atp:adapter=plain,control=none").label == "atp:adapter=plain"


@pytest.mark.parametrize(("spec", "message"), [
    ("atp", "atp needs an adapter: write atp@144 where one ships, or atp:adapter=FOLDER"),
    ("atp:control=static", "atp needs an adapter"),
    ("atp:layers=1-3", "atp needs an adapter"),
    ("atp@144:adapter=x", "atp: give a budget (@144) or adapter=x, not both"),
    ("atp@0", "atp@0: the budget is an average of visual tokens, at least 1"),
    ("atp@x", "atp: the budget after '@' must be a whole number, not 'x'"),
    ("atp:adapter=", "atp: adapter is empty"),
    ("atp:adaptor=x", "unknown parameter of atp 'adaptor'. Did you mean: adapter?"),
    ("atp:adapter=x,control=staic", "unknown value of control for atp 'staic'. Did you mean: static?"),
    ("atp@144:scale=2", "atp: scale=2 is for fixed counts; add control=fixed or leave scale= out"),
    ("atp@144:control=static,scale=1/2", "atp: scale=0.5 is for fixed counts; add control=fixed or leave scale= out"),
    ("atp@144:control=fixed,scale=0", "atp: scale=0 must be above 0"),
    ("atp@144:control=fixed,scale=-1", "atp: scale=-1 must be above 0"),
    ("atp@144:control=fixed,scale=x", "atp: scale must be a number, not 'x'"),
    ("atp:adapter=x,layers=a", "atp: layers must be whole numbers such as 1-3-6, not 'a'"),
    ("atp:adapter=x,trained=y", "unknown parameter of atp 'trained'"),
    ("atp:adapter=x,asked=y", "unknown parameter of atp 'asked'"),
])  # fmt: skip
def test_wrong_specs_are_one_clear_line(spec: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_method(spec)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("spec", "geometry", "message"), [
    ("atp@15", SMALL, "atp@15: no trained adapter; there are atp@14, atp@20. Train one: atp-eval train, then adapter="),
    ("atp@9", SMALL, "atp@9: no trained adapter; there are atp@14, atp@20."),
    ("atp@14", LLAVA, "atp@14: no trained adapter; none ships for this model."),
    ("atp:adapter=s14", LLAVA, "the adapter is for small with 5 layers and 6 x 6 visual tokens; this model has 32 and "
     "24 x 24"),
    ("atp:adapter=nowhere", SMALL, "no adapter at 'nowhere': it holds no config.json. `atp-eval train` makes one"),
    ("atp:adapter=s14,layers=1-4", SMALL, "atp: layers=1-4, but the adapter prunes before 1-3; leave layers= out"),
    ("atp@14:layers=2", SMALL, "atp: layers=2, but the adapter prunes before 1-3"),
])  # fmt: skip
def test_what_does_not_fit_is_one_clear_line(spec: str, geometry: Geometry, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_method(spec).solve(geometry)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_where_nothing_ships_a_budget_is_refused(shipped: dict[str, Path]) -> None:
    shipped.clear()
    with pytest.raises(UserError, match=r"atp@144: no trained adapter; none ships for this model\. Train one"):
        get_method("atp@144").solve(SMALL)
