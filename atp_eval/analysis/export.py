"""The comparison as files: summary.json, a table for Markdown and for LaTeX, one row a method and benchmark as CSV and
parquet; tests of methods, other metrics of a benchmark than its own, what each method's tokens cost, what they go with
where they vary, and which of them methods have in common, as CSV."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from atp_eval.analysis.agreement import Agreement
from atp_eval.analysis.comparisons import Tested
from atp_eval.analysis.histograms import tokens_frame
from atp_eval.analysis.keepmap import keep_frame
from atp_eval.analysis.latex import latex_table
from atp_eval.analysis.markdown import markdown
from atp_eval.analysis.significance import Interval
from atp_eval.analysis.summary import Summary
from atp_eval.spreadsheet import csv_text
from atp_eval.writer import write_atomically

CONTRASTS, METRICS = "contrasts.csv", "metrics.csv"
FAIRNESS, ADAPTIVITY, AGREEMENT = "fairness.csv", "adaptivity.csv", "agreement.csv"
TOKENS, KEEP_RATE = "tokens.csv", "keep_rate.csv"
NAMES = ("summary.json", "comparison.md", "comparison.csv", "comparison.parquet", "comparison.tex")


def write_summary(
    summary: Summary, folder: Path, *, protocol: str = "", besides: Mapping[str, pd.DataFrame] | None = None
) -> list[Path]:
    """Write NAMES into a folder, CONTRASTS where several methods have a retention, METRICS where a benchmark has others
    than its own, FAIRNESS and TOKENS where tokens are known, ADAPTIVITY where some method's counts vary between
    samples, AGREEMENT and KEEP_RATE where some method prunes; their paths. A file of before that has no rows now is
    deleted.

    protocol: a sentence for LaTeX's caption. besides: more tables by the CSV files' names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    frame = comparison_frame(summary)
    write_atomically(folder / NAMES[0], json.dumps(summary.to_json(), indent=1) + "\n")
    write_atomically(folder / NAMES[1], markdown(summary))
    write_atomically(folder / NAMES[2], csv_text(frame))
    frame.to_parquet(folder / NAMES[3], index=False)
    write_atomically(folder / NAMES[4], latex_table(summary, protocol))
    written = [folder / name for name in NAMES]
    more = {
        CONTRASTS: contrasts_frame(summary),
        METRICS: metrics_frame(summary),
        FAIRNESS: fairness_frame(summary),
        ADAPTIVITY: adaptivity_frame(summary),
        AGREEMENT: agreement_frame(summary.agreement),
        TOKENS: tokens_frame(summary.token_use),
        KEEP_RATE: keep_frame(summary.agreement.maps if summary.agreement else ()),
        **(besides or {}),
    }
    for name, table in more.items():
        if table.empty:
            (folder / name).unlink(missing_ok=True)
        else:
            written.append(folder / name)
            write_atomically(written[-1], csv_text(table))
    return written


def comparison_frame(summary: Summary) -> pd.DataFrame:
    """One row a method and benchmark, and one a method for the average; intervals have _low and _high columns."""
    rows: list[dict[str, Any]] = []
    for m in summary.methods:
        for b in summary.benchmarks:
            if (s := m.scores.get(b.name)) is None:
                continue
            tokens = s.tokens.averages if s.tokens else None
            rows.append(
                {
                    **{"method": m.label, "benchmark": b.name, "metric": b.metric, "unit": b.unit},
                    **spread("score", s.score),
                    **spread("retention", s.retention),
                    **tested(s.test),
                    **{"pictures": s.pictures, "differing_pictures": s.differing},
                    **{"tokens": tokens and tokens.input, "tokens_output": tokens and tokens.output},
                    **{"tokens_final": tokens and tokens.final, "samples": s.samples},
                    **spread("invalid", s.invalid),
                    **spread("errors", s.errors),
                    "seconds": s.timing and s.timing.llm,
                    **spread("time_ratio", s.timing.ratio if s.timing else None),
                }
            )
        averages = m.tokens.averages if m.tokens else None
        rows.append(
            {
                **{"method": m.label, "benchmark": "average", "metric": None, "unit": None},
                **spread("retention", m.retention),
                **tested(m.test),
                **{"tokens": averages and averages.input, "tokens_output": averages and averages.output},
                **{"tokens_final": averages and averages.final, "samples": m.samples},
                **spread("invalid", m.invalid),
                **spread("errors", m.errors),
                "seconds": m.timing and m.timing.llm,
                **spread("time_ratio", m.timing.ratio if m.timing else None),
            }
        )
    return pd.DataFrame(rows)


def contrasts_frame(summary: Summary) -> pd.DataFrame:
    """One row two methods, for their average retention and, where budgets are equal, for each benchmark."""
    return pd.DataFrame(
        {"benchmark": name, "first": c.first, "second": c.second, **spread("difference", difference), **tested(test)}
        for c in summary.contrasts
        for name, difference, test in [
            ("average", c.difference, c.test),
            *((name, s.difference, s.test) for name, s in c.scores.items()),
        ]
    )


def metrics_frame(summary: Summary) -> pd.DataFrame:
    """One row a method, benchmark and metric that is not the benchmark's own."""
    return pd.DataFrame(
        {
            **{"method": m.label, "benchmark": benchmark, "metric": name},
            **spread("score", extra.score),
            **spread("retention", extra.retention),
        }
        for m in summary.methods
        for benchmark, score in m.scores.items()
        for name, extra in score.extra.items()
    )


def tested(test: Tested | None) -> dict[str, Any]:
    """A test as columns; empty where there is none."""
    names = {"test": "kind", "p": "p", "p_holm": "p_holm", "comparisons": "comparisons"}
    names |= {"gained": "gained", "lost": "lost", "p_questions": "p_questions"}
    values = asdict(test) if test else {}
    return {column: values.get(name) for column, name in names.items()}


def fairness_frame(summary: Summary) -> pd.DataFrame:
    """One row a method: tokens in each convention, quantiles over questions, bytes of the KV cache, prefill's FLOPs."""
    budgets = {label: place for place, group in enumerate(summary.fairness.groups, 1) for label in group}
    return pd.DataFrame(
        {
            "method": r.label,
            "budget_group": budgets.get(r.label),
            **{"tokens": r.tokens.input, "tokens_output": r.tokens.output, "tokens_final": r.tokens.final},
            **{"tokens_q05": r.low, "tokens_q95": r.high, "kv_bytes": r.kv_bytes},
            **{"prefill_flops": r.flops, "prefill_flops_share": r.flops_share},
        }
        for r in summary.fairness.rows
    ).astype({"budget_group": "Int64"} if summary.fairness.rows else {})


def agreement_frame(found: Agreement | None) -> pd.DataFrame:
    """One row a measure, method (or two) and stretch of layers over which nothing changes.

    measure: overlap (Jaccard), asked (share of the cells asked about), row or column (mean place).
    """
    if found is None:
        return pd.DataFrame()
    rows: list[dict[str, Any]] = []
    for o in found.overlaps:
        rows += stretches("overlap", (o.first, o.second), o.samples, found.shape.layers, o.starts, o.values)
    for p in found.places:
        places = {"row": p.row, "column": p.column}
        if p.recall:
            rows += stretches("asked", (p.label, None), p.asked, found.shape.layers, p.starts, p.recall)
        for name, values in places.items():
            plain = [(value, None, None) for value in values]
            rows += stretches(name, (p.label, None), p.samples, found.shape.layers, p.starts, plain)
    return pd.DataFrame(rows)


def stretches(
    measure: str,
    methods: tuple[str, str | None],
    samples: int,
    layers: int,
    starts: Sequence[int],
    values: Sequence[tuple[Interval, float | None, Interval | None]],
) -> list[dict[str, Any]]:
    """Rows of `agreement_frame`, one for each of `starts`; values: with what chance gives, and the difference."""
    ends = [*starts[1:], layers]
    return [
        {
            **{"measure": measure, "method": methods[0], "other": methods[1]},
            **{"first_layer": first, "last_layer": end - 1, "samples": samples},
            **spread("value", value),
            "chance": chance,
            **spread("gain", gain),
        }
        for first, end, (value, chance, gain) in zip(starts, ends, values, strict=True)
    ]


def adaptivity_frame(summary: Summary) -> pd.DataFrame:
    """One row a method whose counts vary between samples; intervals have _low and _high columns."""
    return pd.DataFrame(
        {
            **{"method": a.label, "questions": a.questions, "pictures": a.pictures},
            **spread("tokens", a.tokens.mean),
            **{"tokens_deviation": a.tokens.deviation, "tokens_q05": a.tokens.low, "tokens_q95": a.tokens.high},
            **spread("between_pictures", a.between_pictures),
            **spread("fine_minus_coarse", a.fine_minus_coarse),
            **spread("wrong_minus_right", a.wrong_minus_right),
            **spread("objects_correlation", a.objects),
            **spread("asked_cells_correlation", a.asked_cells),
        }
        for a in summary.adaptivity
    )


def spread(name: str, interval: Interval | None) -> dict[str, float | None]:
    """An interval as three columns."""
    value, low, high = interval or (None, None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}
