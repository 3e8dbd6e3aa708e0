"""Build hook: a wheel carries the data folders as `atp_eval/_data/`; an editable install reads them in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class DataFolders(BuildHookInterface):
    """Adds the data folders to a standard wheel only."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before each build; `version` is "standard" or "editable"."""
        if version == "standard":
            for name in ("tasks", "reports", "configs"):
                build_data["force_include"][str(Path(self.root, name))] = f"atp_eval/_data/{name}"
