"""Sweep files: what they may say, the specs that they stand for, and which of them a model cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest

from atp_eval.cost import Geometry
from atp_eval.errors import UserError
from atp_eval.sweep.settings import Family, load_sweep, methods, sweeps, trials
from sweep.files import FAMILIES, write

TINY = Geometry(8, (24, 24))


def family(**changes: object) -> list[dict[str, object]]:
    """The families of a file, the first of which is changed."""
    return [{**FAMILIES[0], **changes}, *FAMILIES[1:]]


@pytest.mark.parametrize(
    ("given", "specs"),
    [
        ({"spec": "fastv"}, ("fastv@144",)),
        ({"spec": "random:layer=0"}, ("random@144:layer=0",)),
        ({"spec": "random:layer=0", "seeds": [0, 3]}, ("random@144:layer=0,seed=0", "random@144:layer=0,seed=3")),
        ({"spec": "random", "seeds": [7]}, ("random@144:seed=7",)),
    ],
)
def test_a_family_is_a_spec_a_seed_at_a_budget(given: dict[str, object], specs: tuple[str, ...]) -> None:
    assert Family.model_validate({"name": "x", **given}).at(144) == specs


def test_families_are_expanded_over_their_budgets_falling(tmp_path: Path) -> None:
    found = trials(load_sweep(write(tmp_path, budgets=[36, 144])), TINY)
    assert [(t.family.title, t.budget, t.labels) for t in found] == [
        ("grid (before)", 144, ("grid@144:layer=0",)),
        ("grid (before)", 36, ("grid@36:layer=0",)),
        ("random (before)", 144, ("random@144:layer=0", "random@144:layer=0,seed=3")),
        ("random (before)", 36, ("random@36:layer=0", "random@36:layer=0,seed=3")),
        ("FastV (inside)", 144, ("fastv@144",)),
        ("random (inside)", 144, ("random@144",)),
        ("random (inside)", 36, ("random@36",)),
    ]


def test_a_budget_that_the_model_cannot_reach_says_why_and_leaves_the_others(tmp_path: Path) -> None:
    found = {(t.family.title, t.budget): t.refused for t in trials(load_sweep(write(tmp_path)), TINY)}
    refused = found.pop(("random (inside)", 36))
    assert refused is not None
    assert "random@36 is out of reach: the 1 of 8 layers before the prune point see all 576 tokens" in refused
    assert set(found.values()) == {None}


def test_an_adapter_that_does_not_ship_is_out_of_reach(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path, families=[{"name": "ATP", "spec": "atp"}], budgets=[144, 100]))
    at_144, at_100 = trials(sweep, TINY)
    assert at_144.refused is None
    assert at_100.refused is not None and "atp@100: no trained adapter" in at_100.refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"families": None}, "families is missing"),
        ({"families": []}, "families"),
        ({"budgets": [144, 0]}, "budgets"),
        ({"budget": [144]}, "unknown key 'budget'. Did you mean: budgets"),
        ({"families": family(colour="red")}, "unknown key 'families.colour'"),
        ({"families": family(role="best")}, "families.role = 'best'"),
        ({"families": family(seeds=[-1])}, "families.seeds"),
        ({"families": [*FAMILIES, FAMILIES[0]]}, "two families have the name 'grid' in panel 'before'"),
        ({"families": family(role="random")}, "two families have the role 'random' in panel 'before'"),
    ],
)
def test_a_wrong_file_is_refused_by_what_is_wrong(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_sweep(write(tmp_path, **changes))
    assert said in str(caught.value)
    assert "mine.yaml:" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"spec": "gridd"}, "family 'grid': unknown method 'gridd'. Did you mean: grid"),
        ({"spec": "grid:lair=0"}, "family 'grid': unknown parameter of grid 'lair'. Did you mean: layer"),
        ({"spec": "grid@144"}, "family 'grid': spec 'grid@144' names a budget; leave it to `budgets`"),
        ({"spec": "grid", "seeds": [1]}, "family 'grid': unknown parameter of grid 'seed'"),
        ({"spec": "random:seed=1", "seeds": [1]}, "family 'grid': 'random@144:seed=1,seed=1': seed is given twice"),
    ],
)
def test_a_family_that_cannot_be_is_named(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as caught:
        methods(load_sweep(write(tmp_path, families=family(**changes))))
    assert said in str(caught.value)


def test_answers_lie_where_the_file_says_else_under_its_name(tmp_path: Path) -> None:
    assert load_sweep(write(tmp_path)).output == Path("runs/mine")
    assert load_sweep(write(tmp_path, output="elsewhere")).output == Path("elsewhere")


def test_columns_are_all_budgets_falling(tmp_path: Path) -> None:
    assert load_sweep(write(tmp_path, families=family(budgets=[88, 192]))).columns == (192, 144, 88, 36)


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"unknown sweep 'baseline'. Did you mean: baselines"):
        load_sweep("baseline")


@pytest.mark.parametrize("name", sweeps())
def test_shipped_sweeps_hold_together(name: str) -> None:
    sweep = load_sweep(name)
    found = trials(sweep, TINY)
    controls = {family.panel for family in sweep.families if family.role == "random"}
    assert controls == set(sweep.panels), "every panel has a random control"
    for one in sweep.families:
        reached = [t for t in found if t.family in one.points() and t.refused is None]
        assert reached, f"{one.title} reaches no budget: {found[0].refused}"
    drawn = [one for one in sweep.families if one.role == "random"]
    if sweep.figure == "budgets":
        assert all(len(one.seeds) == 5 for one in drawn if "positions=contiguous" not in one.spec), "five draws"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"families": family(grid={"layer": []})}, "families.grid.layer"),
        ({"families": family(grid={"seed": [1]})}, "write seeds: [0, 1, ...], which are averaged, not grid.seed"),
        ({"families": [{**FAMILIES[1], "grid": {"positions": ["1d"]}}]}, "it can have no grid"),
        ({"budgets": None}, "budgets is missing; name average tokens"),
        ({"figure": "layers"}, "figure: layers has no budgets"),
        ({"figure": "pie"}, "figure = 'pie'"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_sweep(write(tmp_path, **changes))
    assert said in str(caught.value)


def test_a_family_with_a_grid_is_a_row_for_each_point_at_each_budget(tmp_path: Path) -> None:
    families = [{"name": "FastV", "spec": "fastv:positions=1d", "grid": {"layer": [1, 2], "rule": ["code", "paper"]}}]
    sweep = load_sweep(write(tmp_path, families=families, budgets=[200]))
    assert [(t.family.label, *t.family.at(t.budget)) for t in methods(sweep)] == [
        ("FastV, layer 1, rule code", "fastv@200:positions=1d,layer=1,rule=code"),
        ("FastV, layer 1, rule paper", "fastv@200:positions=1d,layer=1,rule=paper"),
        ("FastV, layer 2, rule code", "fastv@200:positions=1d,layer=2,rule=code"),
        ("FastV, layer 2, rule paper", "fastv@200:positions=1d,layer=2,rule=paper"),
    ]


def test_a_wrong_parameter_of_a_grid_is_named(tmp_path: Path) -> None:
    families = [{"name": "FastV", "spec": "fastv", "grid": {"lair": [1]}}]
    with pytest.raises(UserError, match=r"family 'FastV': unknown parameter of fastv 'lair'. Did you mean: layer"):
        methods(load_sweep(write(tmp_path, families=families)))
