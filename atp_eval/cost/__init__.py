"""What tokens cost, in closed form: averages, bytes of the KV cache, FLOPs. Plain Python, so that everyone may ask."""

from atp_eval.cost.geometry import KNOWN, Geometry, ModelGeometry, Place, VisionGeometry
from atp_eval.cost.tokens import Averages, averages, tokens_per_layer

__all__ = [
    "KNOWN",
    "Averages",
    "Geometry",
    "ModelGeometry",
    "Place",
    "VisionGeometry",
    "averages",
    "tokens_per_layer",
]
