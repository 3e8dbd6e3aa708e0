"""`atp-eval train` as it is called, on a small random model; fixtures for the tests of what it refuses and reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typed import call

from training.test_recipe import home, settings

__all__ = ["home"]
Capture = pytest.CaptureFixture[str]
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
