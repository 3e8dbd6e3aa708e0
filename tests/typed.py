"""`atp-eval` as somebody types it, in this process."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from atp_eval import cli


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `atp-eval ARGS`."""
    monkeypatch.setattr(sys, "argv", ["atp-eval", *map(str, args)])
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    """What `atp-eval ARGS --json` tells programs."""
    code, out, err = call(monkeypatch, capsys, *args, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found
