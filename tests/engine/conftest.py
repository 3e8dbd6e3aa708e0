"""What tests of the engine have alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from methods.adapters import write_adapters

from engine.small import small_llava


@pytest.fixture(scope="module")
def model() -> Any:
    """A small random LLaVA in fp64."""
    return small_llava()


@pytest.fixture(scope="module")
def adapters(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with adapters of ATP for it, as `methods.matrix` names them."""
    folder = tmp_path_factory.mktemp("adapters")
    write_adapters(model, folder)
    return folder
