"""`atp-eval train` as it is called: what is wrong is one line that names the value and the fix, with the exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from test_cli import call

from atp_eval.training.trainer import AtpTrainer
from atp_eval.training.weights import WEIGHTS
from training.test_recipe import home, settings

__all__ = ["home"]
Capture = pytest.CaptureFixture[str]
CONFIGS = Path(__file__).parents[2] / "configs"
GONE = object()  # a key to leave out


class Command:
    """`atp-eval train` in a folder of its own, from the settings of a training of four steps."""

    def __init__(self, home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
        self.home, self.folder, self.monkeypatch, self.capsys = home, folder, monkeypatch, capsys
        short = {"lm": "frozen", "max_steps": 4, "held_back": 2, "statistics": 2}
        self.good = yaml.safe_load(settings(home, output=folder / "out", **short).to_yaml())
        monkeypatch.chdir(folder)

    def write(self, change: dict[str, Any] | str) -> Path:
        """The settings with some changed (options.* inside `options`), or a text in their place."""
        path = self.folder / "train.yaml"
        if isinstance(change, str):
            path.write_text(change)
            return path
        found = {**self.good, "options": dict(self.good["options"])}
        for name, value in change.items():
            place, _, key = name.rpartition(".")
            (found[place] if place else found)[key] = value
        path.write_text(yaml.safe_dump({k: v for k, v in found.items() if v is not GONE}))
        return path

    def __call__(self, change: dict[str, Any] | str | None = None, *options: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        path = self.write({} if change is None else change)
        return call(self.monkeypatch, self.capsys, "train", str(path), *options)

    def refused(self, change: dict[str, Any] | str | None, message: str, *options: str) -> None:
        """Nothing is begun, and one line says why."""
        code, out, err = self(change, *options)
        assert (code, out) == (2, ""), err
        assert message in err
        assert err.startswith("atp-eval: ") and err.count("\n") == 1


@pytest.fixture
def train(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Command:
    return Command(home, tmp_path, monkeypatch, capsys)


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


# ------------------------------------------------------------------ output and checkpoints


def test_an_output_that_cannot_be_written_is_refused(train: Command, home: Path) -> None:
    train.refused({"output": "/proc/none"}, "output '/proc/none' cannot be written: No such file or directory")
    train.refused({"output": str(home / "data.json")}, "data.json' cannot be written: File exists; choose another")


@pytest.fixture(scope="module")
def finished(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an unbroken training."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command = Command(home, folder, patch, None)  # type: ignore[arg-type]
        from atp_eval.training import recipe
        from atp_eval.training.config import load_train_config

        recipe.train(load_train_config(command.write({})))
    return folder / "out"


def test_what_a_training_says(train: Command) -> None:
    code, out, err = train()
    assert code == 0
    assert out.startswith("4 steps, ") and f"Adapter: {train.folder / 'out' / 'adapter'}\n" in out
    assert [line.split(":")[0] for line in err.splitlines()] == [f"step {i}/4" for i in (1, 2, 3, 4)]


def test_a_training_that_is_there_is_not_written_over(train: Command, finished: Path) -> None:
    shutil.copytree(finished, train.folder / "out")
    train.refused(None, "out holds checkpoint-4 already; add --resume, or choose another output")
    changed = "was trained with another lr_heads, target"
    train.refused({"target": 99, "lr_heads": 1.0}, changed, "--resume")


@pytest.mark.parametrize(
    ("file", "gone"),
    [(name, gone) for name in (WEIGHTS, "optimizer.pt", "scheduler.pt") for gone in (False, True)]
    + [("rng_state.pth", False)],  # another number of processes has other files
)
def test_a_damaged_checkpoint_is_named(train: Command, finished: Path, file: str, gone: bool) -> None:
    torn = train.folder / "out" / "checkpoint-2" / file
    shutil.copytree(finished, train.folder / "out", ignore=shutil.ignore_patterns("checkpoint-4"))
    half = torn.read_bytes()[: torn.stat().st_size // 2]
    torn.unlink() if gone else torn.write_bytes(half)
    train.refused(None, "checkpoint-2' cannot be read (", "--resume")


def test_without_the_damaged_checkpoint_the_one_before_goes_on(train: Command, finished: Path) -> None:
    shutil.copytree(finished, train.folder / "out")
    shutil.rmtree(train.folder / "out" / "checkpoint-4")
    code, _, err = train(None, "--resume")
    assert code == 0, err
    same(finished, train.folder / "out")


def same(one: Path, other: Path) -> None:
    """Both trainings ended with the very same adapter."""
    truth, found = (load_file(output / "adapter" / "modules.safetensors") for output in (one, other))
    for name, value in truth.items():
        assert torch.equal(found[name], value), name


# ------------------------------------------------------------------ failures


def test_a_loss_that_is_no_number_keeps_a_checkpoint_that_goes_on(train: Command, finished: Path) -> None:
    """A fault of the machine, say: once it is gone, the training ends as if it had not been."""
    forward, passes = AtpTrainer._forward, []

    def faulty(self: Any, *args: Any, **kwargs: Any) -> Any:
        passes.append(1)
        found = forward(self, *args, **kwargs)
        return found._replace(loss=found.loss * float("nan")) if len(passes) == 6 else found  # the last of step 3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AtpTrainer, "_forward", faulty)
        code, out, err = train()
    assert (code, out) == (1, "")
    line = err.splitlines()[-1]
    assert line.startswith("atp-eval: the loss is not finite in step 3 (loss_lm nan, ")
    assert f"The last good checkpoint is {train.folder / 'out' / 'checkpoint-2'}, --resume goes on from it. " in line
    assert "lower the learning rates or max_grad_norm, in another output" in line
    kept = load_file(train.folder / "out" / "checkpoint-2" / WEIGHTS)
    assert all(value.isfinite().all() for value in kept.values())
    assert not (train.folder / "out" / "adapter").exists()
    assert train(None, "--resume")[0] == 0
    same(finished, train.folder / "out")


def test_a_gradient_that_is_no_number_stops_by_name(train: Command) -> None:
    code, _, err = train({"lr_biases": 1e38, "lr_heads": 1e38, "lr_z": 1e38, "warmup": 0.5, "max_grad_norm": 1e38})
    assert code == 1
    assert err.splitlines()[-1].startswith("atp-eval: the ") and " is not finite in step " in err


def test_an_interrupted_training_goes_on(train: Command, finished: Path) -> None:
    forward, passes = AtpTrainer._forward, []

    def interrupted(self: Any, *args: Any, **kwargs: Any) -> Any:
        passes.append(1)
        if len(passes) == 6:
            raise KeyboardInterrupt
        return forward(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AtpTrainer, "_forward", interrupted)
        code, _, err = train()
    assert code == 130
    assert err.endswith("atp-eval: interrupted; the same command goes on where it stopped (train: with --resume)\n")
    assert train(None, "--resume")[0] == 0
    same(finished, train.folder / "out")
