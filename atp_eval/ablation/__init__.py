"""Ablations of the paper's tables on a model that can be trained here: one settings file, one command each."""

from atp_eval.ablation.run import Planned, ablate, plan
from atp_eval.ablation.settings import Ablation, Row, ablations, load_ablation
from atp_eval.ablation.table import Line, Table

__all__ = ["Ablation", "Line", "Planned", "Row", "Table", "ablate", "ablations", "load_ablation", "plan"]
