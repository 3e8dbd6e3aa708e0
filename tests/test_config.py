"""Settings from options and YAML: good ones arrive, bad ones are named with the line or the option."""

from __future__ import annotations

from pathlib import Path

import pytest

from atp_eval.config import RunConfig, load_config, make_config
from atp_eval.errors import UserError
from atp_eval.terminal import split_methods, split_names


def test_a_config_survives_its_own_yaml(tmp_path: Path) -> None:
    config = make_config(tasks=["gqa"], methods=["fastv:layer=2,keep=72"], limit=7, output=tmp_path / "out")
    path = tmp_path / "run.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert RunConfig.model_validate(load_config(path)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: tiny\nmethdos: [a]\n", r":2: unknown key 'methdos'. Did you mean: methods\?"),
        ("model: tiny\nlimit: -1\n", r":2: limit = -1: input should be greater than or equal to 1"),
        ("dtype: float8\n", r":1: dtype = 'float8': input should be 'auto', 'float32'"),
        ("tasks: gqa\n", r":1: tasks = 'gqa': input should be a list, such as"),
        ("- gqa\n", "must hold `key: value` lines"),
        ("a: [1\n", r":2 is not YAML"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read settings .*No such file"):
        load_config(tmp_path / "none.yaml")


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes("model: caf\u00e9".encode("latin-1"))
    with pytest.raises(UserError, match=r"run\.yaml: it is not UTF-8 text"):
        load_config(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": -3}, "--limit = -3: input should be greater than or equal to 1"),
        ({"batch_size": 0}, "--batch-size = 0: input should be greater than or equal to 1"),
        ({"batch_size": "many"}, "--batch-size = 'many': input should be a whole number of at least 1, or auto"),
        ({"image": "stretch"}, "--image = 'stretch': input should be 'pad' or 'crop'"),
        ({"tasks": []}, "--tasks"),
    ],
)
def test_a_bad_option_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_config(**settings)


def test_the_same_protocol_has_the_same_folder_whatever_is_asked() -> None:
    base = make_config()
    assert make_config(tasks=["gqa"], limit=3, methods=["grid@88"], batch_size=2).run_folder() == base.run_folder()
    for other in ({"seed": 1}, {"image": "crop"}, {"dtype": "bfloat16"}, {"suite": "real"}):
        assert make_config(**other).run_folder() != base.run_folder()


def test_the_suite_follows_the_model() -> None:
    assert make_config().resolved_suite == "mini"
    assert make_config(model="llava-hf/llava-1.5-7b-hf").resolved_suite == "real"
    assert make_config(model="llava-hf/llava-1.5-7b-hf", suite="mini").resolved_suite == "mini"


def test_commas_within_a_method_spec_belong_to_it() -> None:
    text = "upper_bound, fastv:layer=2,keep=72,random@144:seed=1,schedule:layers=1-3-6,keep=9-8-7,score=self,grid@88"
    assert split_methods(text) == [
        "upper_bound",
        "fastv:layer=2,keep=72",
        "random@144:seed=1",
        "schedule:layers=1-3-6,keep=9-8-7,score=self",
        "grid@88",
    ]
    assert split_names(" gqa, mmb,") == ["gqa", "mmb"]


def test_atp_is_a_default_method_where_its_adapter_ships() -> None:
    assert "atp@144" in make_config().methods
    assert "atp@144" not in make_config(model="llava-hf/llava-1.5-7b-hf").methods
    assert make_config(methods=["fastv@88"]).methods == ["fastv@88"]
