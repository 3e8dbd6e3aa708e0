"""From numbers to pages and tables. Neither torch nor lmms-eval is imported here."""

from __future__ import annotations

from atp_eval.reporting.build import build_report

__all__ = ["build_report"]
