"""A training's settings: a good file arrives, a bad one is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from atp_eval.errors import UserError
from atp_eval.training.config import TrainConfig, load_train_config
from atp_eval.training.trainer import parameter_groups
from training.small import options, pruning_llava

GOOD = """\
data: data.json
images: [pictures, more]
output: out
options:
  layers: [1, 3, 6]
  score_norm: rel
target: 144
lr_lm: 1e-5
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "train.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_settings_survive_their_own_yaml(tmp_path: Path) -> None:
    config = load_train_config(written(tmp_path, GOOD))
    assert (config.lr_lm, config.options.layers, config.images) == (1e-5, (1, 3, 6), (Path("pictures"), Path("more")))
    assert load_train_config(written(tmp_path, config.to_yaml())) == config


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("target: 144", "taget: 144", r":7: unknown key 'taget'. Did you mean: target"),
        ("score_norm: rel", "score_nrom: rel", r":6: unknown key 'options.score_nrom'. Did you mean: score_norm"),
        ("score_norm: rel", "score_norm: log", r":6: options.score_norm = 'log': input should be 'minmax'"),
        ("target: 144", "", r":1: target is missing\."),
        ("target: 144", "target: -3", r":7: target = -3: input should be greater than 0\."),
        ("target: 144", "target: many", r":7: target = 'many': input should be a valid number"),
        ("layers: [1, 3, 6]", "layers: [3, 1]", r":4: layers 3-1 must rise and start at 1 or later"),
        ("layers: [1, 3, 6]", "layers: []", r":5: options.layers = \[\]: "),
        ("target: 144", "target: 144\nbatch_size: 10", r"batch_size 10 is no multiple of micro_batch 8\."),
        ("score_norm: rel", "positions: 2d", "options.positions=2d renumbers the image, which a frozen lm never"),
        ("target: 144", "target: [", r":9 is not YAML"),
        (GOOD, "- a\n", "must hold `key: value` lines"),
        (GOOD, "", "data is missing"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(UserError, match=message):
        load_train_config(written(tmp_path, GOOD.replace(old, new)))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read settings .*none\.yaml"):
        load_train_config(tmp_path / "none.yaml")


def test_accumulation_is_what_is_left_of_the_batch() -> None:
    config = TrainConfig(data="d", output="o", options=options(), target=9, batch_size=128, micro_batch=8)  # type: ignore[arg-type]
    assert [config.shares(processes).accumulation for processes in (1, 2, 4, 16)] == [16, 8, 4, 1]


def test_micro_batches_shrink_where_processes_are_many() -> None:
    """So that a file for one process can be started in several."""
    config = TrainConfig(data="d", output="o", options=options(), target=9, batch_size=16, micro_batch=16)  # type: ignore[arg-type]
    assert [config.shares(processes) for processes in (1, 2, 8)] == [(16, 1), (8, 1), (2, 1)]
    for processes in (3, 32):
        with pytest.raises(UserError, match=f"batch_size 16 cannot be shared out to {processes} processes"):
            config.shares(processes)


def test_each_group_of_parameters_has_its_learning_rate() -> None:
    rates = {"lr_z": 1.0, "lr_heads": 2.0, "lr_biases": 3.0, "lr_lm": 4.0}
    config = TrainConfig(data="d", output="o", options=options(), target=9, lm="trainable", **rates)  # type: ignore[arg-type]
    pruning = pruning_llava(options(learned_mix=True), trainable=True)
    groups = parameter_groups(pruning, config)
    found = {group["lr"]: {id(p) for p in group["params"]} for group in groups}
    modules = list(pruning.thresholds)
    assert found[1.0] == {id(m.z.weight) for m in modules}
    assert found[2.0] == {id(head.weight) for m in modules for head in (m.head_r, m.head_s)}
    assert found[3.0] == {id(p) for m in modules for p in (m.z.bias, m.head_r.bias, m.head_s.bias, m.mix_logit)}
    trained = {id(p) for p in pruning.parameters() if p.requires_grad}
    assert found[4.0] == trained - found[1.0] - found[2.0] - found[3.0]
    assert sum(len(group["params"]) for group in groups) == len(trained)
    assert all(isinstance(p, torch.nn.Parameter) for group in groups for p in group["params"])
