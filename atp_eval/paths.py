"""Where the data folders `tasks/`, `reports/` and `configs/` lie: inside an installed wheel, or beside the package; and
where what is made here goes."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def data_folder(name: str) -> Path:
    """The folder `tasks`, `reports` or `configs`. Raises FileNotFoundError when the installation lacks it."""
    for folder in (PACKAGE / "_data" / name, PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the data folder {name!r} is missing: install atp-eval again")


def cache_folder() -> Path:
    """Where generated files go: `ATP_EVAL_CACHE`, or `~/.cache/atp_eval`."""
    return Path(os.environ.get("ATP_EVAL_CACHE") or Path.home() / ".cache" / "atp_eval").absolute()
