"""Remove visual tokens between the layers of a stock transformers model, and remember which."""

from atp_eval.engine.geometry import ModelGeometry, VisionGeometry, device_name, model_geometry, place_of
from atp_eval.engine.prune import Pruned, prune
from atp_eval.engine.vision import TowerView, VisionStates, recorded

__all__ = [
    "ModelGeometry",
    "Pruned",
    "TowerView",
    "VisionGeometry",
    "VisionStates",
    "device_name",
    "model_geometry",
    "place_of",
    "prune",
    "recorded",
]
