"""What tests of the bench have alike."""

from __future__ import annotations

import pytest

from atp_eval.bench import machine


@pytest.fixture(autouse=True)
def quick_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its peak is not measured for seconds."""
    monkeypatch.setattr(machine, "SIDES", {"cpu": 64})
    monkeypatch.setattr(machine, "BYTES", 2**16)
