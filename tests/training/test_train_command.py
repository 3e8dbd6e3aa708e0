"""What `atp-eval train` refuses: one line that names the value and the fix, exit code 2, and nothing begun."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typed import call

from training.command import GONE, Command, home, train

__all__ = ["home", "train"]
CONFIGS = Path(__file__).parents[2] / "configs"

# ------------------------------------------------------------------ settings

SETTINGS: list[tuple[dict[str, Any] | str, str]] = [
    ("model: [\n", "train.yaml:2 is not YAML"),
    ("- model\n", "must hold `key: value` lines, such as `model: tiny`"),
    ({"lamda_atp": 1}, "unknown key 'lamda_atp'. Did you mean: lambda_atp"),
    ({"options.layer": [1]}, "unknown key 'options.layer'. Did you mean: layers"),
    ({"batch_size": "four"}, "batch_size = 'four': input should be a valid integer"),
    ({"options.layers": "1-2"}, "options.layers = '1-2': input should be a list, such as [a, b]"),
    ({"images": "pictures"}, "images = 'pictures': input should be a list, such as [a, b]"),
    ({"options": 7}, "options = 7: input should be keys with values, such as `layers: [1, 3]`"),
    ({"data": GONE}, "data is missing"),
    ({"target": -1}, "target = -1: input should be greater than 0"),
    ({"target": 600}, "target 600: an image has 576 visual tokens; choose fewer"),
    ({"budget": 577}, "budget 577: an image has 576 visual tokens; choose fewer"),
    ({"options.layers": [2, 1]}, "layers 2-1 must rise and start at 1 or later"),
    ({"options.layers": [0, 1]}, "layers 0-1 must rise and start at 1 or later"),
    ({"options.layers": [1, 4]}, "options.layers 1-4: "),
    ({"options.lambda_sample": 0}, "options.lambda_sample = 0: input should be greater than 0"),
    ({"options.strides": [0, 2]}, "strides (0, 2) must be 1 or more"),
    ({"options.score_norm": "log"}, "options.score_norm = 'log': input should be 'minmax', 'rel'"),
    ({"options.positions": "2d"}, "options.positions=2d renumbers the image, which a frozen lm never learned; use 1d"),
    ({"micro_batch": 3}, "batch_size 4 is no multiple of micro_batch 3"),
    ({"lr_heads": float("inf")}, "lr_heads = inf: input should be a finite number"),
    ({"max_length": 100}, "max_length 100 is too short for an image and an answer; at least"),
    ({"report_to": ["mlflow"]}, "report_to = 'mlflow': input should be 'tensorboard' or 'wandb'"),
    (
        {"model": "tinny"},
        "unknown model 'tinny': no folder of that name, and not a hub id (owner/name). Did you mean: ",
    ),
    ({"model": "nobody/nothing"}, "model 'nobody/nothing' is not in the local Hugging Face cache"),
]


@pytest.mark.parametrize(("change", "message"), SETTINGS)
def test_settings_that_cannot_work_are_refused(train: Command, change: dict[str, Any] | str, message: str) -> None:
    train.refused(change, message)
    if not isinstance(change, dict) or "max_length" not in change:
        assert not (train.folder / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dry-run", "--processes", "0"), "0 processes cannot train; give 1 or more"),
        (("--dry-run", "--processes", "3"), "batch_size 4 cannot be shared out to 3 processes in micro-batches of 1"),
        (("--processes", "2"), "to train in several: torchrun --nproc_per_node 2 -m atp_eval train "),
        (("--seed", "-1"), "seed = -1: input should be greater than or equal to 0"),
    ],
)
def test_options_that_cannot_work_are_refused(train: Command, options: tuple[str, ...], message: str) -> None:
    train.refused(None, message, *options)


def test_a_file_that_is_not_there_is_named(
    train: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(monkeypatch, capsys, "train", "none.yaml")
    assert (code, err) == (2, "atp-eval: cannot read settings none.yaml: No such file or directory.\n")


def test_another_kind_of_model_is_refused(train: Command) -> None:
    (train.folder / "llama").mkdir()
    (train.folder / "llama" / "config.json").write_text('{"model_type": "llama"}')
    train.refused({"model": "llama"}, "'llama' is a llama model; only llava models (LLaVA-1.5) are supported")


def test_a_reporter_that_is_not_installed_is_named(train: Command) -> None:
    train.monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    train.refused({"report_to": ["wandb"]}, "report_to: wandb is not installed; pip install wandb")


# ------------------------------------------------------------------ data


def written(folder: Path, name: str, rows: Any) -> str:
    (folder / name).write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return str(folder / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hello", "is not a JSON list; lines of JSON belong in a .jsonl file"),
        ('[{"id": 1}, {"id"', "is not JSON in the row at byte 12; the file may be cut off"),
        ("", "is empty; give a .json list or .jsonl lines"),
        ("[]", "no row can be used. 0 rows"),
        (
            "malformed",
            "10.0% of the rows cannot be used, more than max_bad_share 0.01; repair them or raise it. 20 rows",
        ),
    ],
)
def test_data_that_is_none_is_refused(train: Command, home: Path, content: str, message: str) -> None:
    good = json.loads((home / "data.json").read_text())
    rows = [*good, {"id": "x"}, {"id": "y", "conversations": []}] if content == "malformed" else content
    train.refused({"data": written(train.folder, "rows.json", rows)}, message)


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_files_that_are_not_there_are_named(train: Command, options: tuple[str, ...]) -> None:
    train.refused({"data": "none.json"}, "training data 'none.json' does not exist; paths start at", *options)
    train.refused({"images": ["none"]}, "image folder 'none' does not exist; paths start at", *options)
    assert not (train.folder / "out").exists()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("tiny/*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_settings_say_how_to_draw_their_data(train: Command, path: Path) -> None:
    message = "does not exist; draw it: python -m atp_eval.scenes.instructions --folder build/atp/data\n"
    train.refused(path.read_text(), message)


def test_pictures_that_are_missing_or_broken_are_counted(train: Command, home: Path) -> None:
    (train.folder / "none").mkdir()
    missing = "12 x image not found (1, 2, 4). Pictures are looked for in none"
    train.refused({"images": ["none"]}, missing)
    for picture in home.glob("*.png"):
        (train.folder / "none" / picture.name).write_bytes(b"no picture")
    train.refused({"images": ["none"]}, "1 unusable: 1 x image cannot be read (")


def test_text_alone_leaves_nothing_to_prune(train: Command, home: Path) -> None:
    rows = [row for row in json.loads((home / "data.json").read_text()) if "image" not in row]
    train.refused({"data": written(train.folder, "text.json", rows)}, "there is nothing to prune")


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_more_held_back_than_there_is_is_refused(train: Command, options: tuple[str, ...]) -> None:
    train.refused({"held_back": 18}, "held_back 18 leaves nothing to train on: the data has 18 samples", *options)
