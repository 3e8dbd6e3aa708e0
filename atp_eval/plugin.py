"""The entry point `lmms_eval.models`: makes `lmms-eval --model atp_eval` find the backend. Kept light on purpose.

lmms-eval swallows an entry point that raises, so nothing heavy is imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """The registration that lmms-eval's model registry reads."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="atp_eval", simple_class_path="atp_eval.backend.AtpEval", aliases=("atp-eval",))
