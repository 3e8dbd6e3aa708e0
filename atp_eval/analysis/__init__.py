"""From run folders to numbers: retention, tokens, time, failures. Neither torch nor lmms-eval is imported here."""

from __future__ import annotations

from atp_eval.analysis.export import write_summary
from atp_eval.analysis.measure import summarise
from atp_eval.analysis.reading import protocol_differences
from atp_eval.analysis.significance import Interval
from atp_eval.analysis.summary import BenchmarkRow, Contrast, MethodSummary, Score, Summary

__all__ = [
    "BenchmarkRow",
    "Contrast",
    "Interval",
    "MethodSummary",
    "Score",
    "Summary",
    "protocol_differences",
    "summarise",
    "write_summary",
]
