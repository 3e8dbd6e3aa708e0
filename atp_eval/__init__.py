"""Visual-token pruning for vision-language models, evaluated through lmms-eval.

>>> from atp_eval import load_model, prune
>>> bundle = load_model("tiny")
>>> with prune(bundle.model, "fastv@144") as pruned:
...     bundle.model.generate(**inputs)
>>> pruned.trace
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["KeepTrace", "__version__", "get_method", "load_model", "prune"]

_HOMES = {
    "KeepTrace": "atp_eval.trace",
    "get_method": "atp_eval.methods",
    "load_model": "atp_eval.models",
    "prune": "atp_eval.engine",
}


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'atp_eval' has no attribute {name!r}")
