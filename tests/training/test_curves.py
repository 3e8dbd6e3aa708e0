"""Training curves: what is read from a log, and that a figure with every panel comes out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from atp_eval.errors import UserError
from atp_eval.training.curves import draw_curves, main, read_log, series

LOG = [
    {"step": 10, "loss_lm": 2.0, "average_tokens": 200.0, "theta_r_1": 0.4, "theta_s_1": 0.8, "grad_norm_modules": 3.0},
    {"step": 15, "eval_loss_lm": 1.7},
    {"step": 20, "loss_lm": 1.5, "average_tokens": 150.0, "theta_r_1": 0.5, "theta_s_1": 0.9},
]


def test_a_series_skips_lines_that_lack_the_number() -> None:
    assert series(LOG, "loss_lm") == ([10, 20], [2.0, 1.5])
    assert series(LOG, "grad_norm_modules") == ([10], [3.0])
    assert series(LOG, "nothing") == ([], [])


def test_every_training_is_drawn(tmp_path: Path) -> None:
    draw_curves({"144": LOG, "88": LOG[2:]}, tmp_path / "new" / "one.png")
    draw_curves({"144": LOG}, tmp_path / "two.png")
    one, two = (
        Image.open(path).convert("L").tobytes() for path in (tmp_path / "new" / "one.png", tmp_path / "two.png")
    )
    assert len(set(one)) > 20
    assert one != two


def test_the_command_names_trainings_and_refuses_a_folder_without_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log.json").write_text(json.dumps(LOG))
    figure = tmp_path / "curves.png"
    monkeypatch.setattr(sys, "argv", ["curves", f"mine={tmp_path}", str(tmp_path), "--figure", str(figure)])
    main()
    assert figure.stat().st_size > 5000
    with pytest.raises(UserError, match=r"log.json is no log of a training"):
        read_log(tmp_path / "elsewhere")
