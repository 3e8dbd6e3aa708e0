"""Remove visual tokens between the layers of a stock transformers model, and remember which."""

from atp_eval.engine.geometry import ModelGeometry, VisionGeometry, model_geometry
from atp_eval.engine.prune import Pruned, prune
from atp_eval.engine.vision import VisionStates, recorded

__all__ = ["ModelGeometry", "Pruned", "VisionGeometry", "VisionStates", "model_geometry", "prune", "recorded"]
