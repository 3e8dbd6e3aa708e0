"""Ablation files: what they may say, which trainings they ask for, and which of the paper's rows they stand beside."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from atp_eval.ablation import ablations, load_ablation, plan
from atp_eval.ablation.settings import specs, trainings
from atp_eval.errors import UserError
from atp_eval.methods import get_method
from atp_eval.paper import printed_row, printed_tables

TRAINING = {"data": "d.json", "output": "out", "target": 20, "budget": 144, "options": {"layers": [1, 2], "hidden": 8}}


def write(folder: Path, **changes: object) -> str:
    """An ablation of two trained rows and one that needs no training."""
    (folder / "training.yaml").write_text(yaml.safe_dump(TRAINING))
    found = {
        "title": "Scores",
        "training": "training.yaml",
        "reference": "both",
        "rows": [
            {"name": "both", "training": {}},
            {"name": "cross", "training": {"options": {"scores": "cross"}, "lambda_atp": 0.3}},
            {"name": "grid", "method": "grid@144"},
        ],
        **changes,
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(found))
    return str(path)


def test_a_row_changes_the_shared_settings_key_by_key(tmp_path: Path) -> None:
    found = trainings(load_ablation(write(tmp_path, seeds=[3, 4])), tmp_path)
    assert set(found) == {"both", "cross"}
    (one, two), (cross, _) = found["both"], found["cross"]
    assert (one.seed, two.seed, one.budget) == (3, 4, None)
    assert cross.options.model_dump() == {**one.options.model_dump(), "scores": "cross"}
    assert (cross.lambda_atp, one.lambda_atp) == (0.3, 0.1)


def test_equal_trainings_share_a_folder_and_others_never(tmp_path: Path) -> None:
    first = trainings(load_ablation(write(tmp_path, seeds=[0, 1])), tmp_path / "a")
    rows = [{"name": "again", "training": {"options": {"scores": "both"}}}, {"name": "new", "training": {"target": 21}}]
    second = trainings(load_ablation(write(tmp_path, rows=rows, reference="new")), tmp_path / "a")
    folders = [config.output for several in (*first.values(), *second.values()) for config in several]
    assert first["both"][0].output == second["again"][0].output
    assert len(set(folders)) == len(folders) - 1


def test_where_things_lie_does_not_change_what_is_trained(tmp_path: Path) -> None:
    load = load_ablation(write(tmp_path))
    before = trainings(load, tmp_path)["both"][0].output
    (tmp_path / "training.yaml").write_text(
        yaml.safe_dump(TRAINING | {"data": "e.json", "images": ["i"], "save_steps": 7, "budget": 88})
    )
    assert trainings(load, tmp_path)["both"][0].output == before


def test_a_trained_row_is_a_spec_a_seed_with_its_parameters(tmp_path: Path) -> None:
    rows = [{"name": "both", "training": {}, "parameters": {"control": "static"}}]
    ablation = load_ablation(write(tmp_path, rows=rows, seeds=[0, 1]))
    configs = trainings(ablation, tmp_path)["both"]
    assert specs(ablation.rows[0], configs) == tuple(f"atp:adapter={c.adapter},control=static" for c in configs)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": [{"name": "a"}]}, "row 'a' needs either a method or a training"),
        ({"rows": [{"name": "a", "method": "grid@1", "training": {}}]}, "row 'a' needs either a method or a training"),
        ({"rows": [{"name": "a", "method": "grid@9", "parameters": {"seed": 1}}]}, "into its method 'grid@9'"),
        ({"rows": [{"name": "both", "training": {}}] * 2}, "rows need different names"),
        ({"reference": "neither"}, "reference 'neither' is none of the rows both, cross, grid"),
        ({"rows": [{"name": "both", "training": {}, "paper": {"self": True}}]}, "`paper` has to name the table"),
        ({"seed": 1}, "mine.yaml:12: unknown key 'seed'. Did you mean: seeds"),
        ({"seeds": []}, "seeds"),
        (
            {"paper": "importance_score", "rows": [{"name": "both", "training": {}, "paper": {"self": True}}]},
            "row 'both': 2 rows of importance_score have {'self': True}",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_what_is_wrong(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_ablation(write(tmp_path, **changes))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"lambda_atp": -1}, "row 'both': lambda_atp = -1"),
        ({"options": "cross"}, "row 'both': options = 'cross' must hold `key: value`"),
        ({"seed": 3}, "row 'both': seed = 3 belongs to the whole file"),
    ],
)
def test_a_row_with_an_impossible_setting_is_named(tmp_path: Path, training: dict[str, object], said: str) -> None:
    ablation = load_ablation(write(tmp_path, rows=[{"name": "both", "training": training}]))
    with pytest.raises(UserError, match=said):
        trainings(ablation, tmp_path)


@pytest.mark.parametrize(
    ("run", "said"), [({"methods": ["grid@144"]}, "run.methods: the rows"), ({"lmit": 3}, "unknown key 'lmit'")]
)
def test_run_settings_that_the_rows_decide_are_refused(tmp_path: Path, run: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan(load_ablation(write(tmp_path, run=run)), tmp_path)


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"unknown ablation 'tab55'. Did you mean: tab5"):
        load_ablation("tab55")


@pytest.mark.parametrize("name", ablations())
def test_shipped_ablations_hold_together(name: str, tmp_path: Path) -> None:
    ablation = load_ablation(name)
    configs = trainings(ablation, tmp_path)
    for row in ablation.rows:
        for spec in specs(row, configs.get(row.name, ())):
            get_method(spec)
    if ablation.paper:
        section = printed_tables()[ablation.paper]
        assert ablation.table
        shown = [row for row in ablation.rows if row.paper]
        pruned = [row for row in section["rows"] if row.get("strategy") != "upper_bound"]
        assert len(shown) == len(pruned), "every row of the paper's table is there"


def test_the_papers_rows_are_found_by_their_keys() -> None:
    row = printed_row("pruning_strategy", strategy="fixed", ratio="2/3")
    assert row.tokens == 144
    assert row.values == {"mmb": 62.7, "gqa": 58.0, "vqav2": 74.6, "seed": 55.7}
    grid = printed_row("hyperparameters", lambda_atp=0.05)
    assert grid == (152, {"average_rate_pct": 98.5})
    with pytest.raises(KeyError):
        printed_row("pruning_strategy", strategy="fixed")
