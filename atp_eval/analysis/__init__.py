"""From run folders to numbers: retention, tokens, time, failures. Neither torch nor lmms-eval is imported here."""

from __future__ import annotations

from atp_eval.analysis.adaptivity import Adaptivity, measure_adaptivity
from atp_eval.analysis.agreement import Agreement, Compared, Overlap, Place, measure_agreement
from atp_eval.analysis.export import write_summary
from atp_eval.analysis.fairness import Cost, Fairness, compare_budgets
from atp_eval.analysis.hindsight import Hindsight, measure_hindsight
from atp_eval.analysis.measure import summarise
from atp_eval.analysis.reading import protocol_differences
from atp_eval.analysis.significance import Interval
from atp_eval.analysis.summary import BenchmarkRow, Contrast, MethodSummary, Score, Summary

__all__ = [
    "Adaptivity",
    "Agreement",
    "BenchmarkRow",
    "Compared",
    "Contrast",
    "Cost",
    "Fairness",
    "Hindsight",
    "Interval",
    "MethodSummary",
    "Overlap",
    "Place",
    "Score",
    "Summary",
    "compare_budgets",
    "measure_adaptivity",
    "measure_agreement",
    "measure_hindsight",
    "protocol_differences",
    "summarise",
    "write_summary",
]
