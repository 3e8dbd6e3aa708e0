"""The comparison as files: summary.json, a Markdown table, one row a method and benchmark as CSV and parquet, and one
row a method whose counts vary between samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from atp_eval.analysis.significance import Interval
from atp_eval.analysis.summary import Summary
from atp_eval.writer import write_atomically

ADAPTIVITY = "adaptivity.csv"
NAMES = ("summary.json", "comparison.md", "comparison.csv", "comparison.parquet")


def write_summary(summary: Summary, folder: Path) -> list[Path]:
    """Write NAMES into a folder, and ADAPTIVITY where some method's counts vary between samples; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = comparison_frame(summary)
    write_atomically(folder / NAMES[0], json.dumps(summary.to_json(), indent=1) + "\n")
    write_atomically(folder / NAMES[1], markdown(summary))
    write_atomically(folder / NAMES[2], frame.to_csv(index=False))
    frame.to_parquet(folder / NAMES[3], index=False)
    written = [folder / name for name in NAMES]
    if summary.adaptivity:
        written.append(folder / ADAPTIVITY)
        write_atomically(written[-1], adaptivity_frame(summary).to_csv(index=False))
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
                **{"tokens": averages and averages.input, "tokens_output": averages and averages.output},
                **{"tokens_final": averages and averages.final, "samples": m.samples},
                **spread("invalid", m.invalid),
                **spread("errors", m.errors),
                "seconds": m.timing and m.timing.llm,
                **spread("time_ratio", m.timing.ratio if m.timing else None),
            }
        )
    return pd.DataFrame(rows)


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


def markdown(summary: Summary) -> str:
    """The comparison table: a row a method, scores with retention below."""
    names = [b.name for b in summary.benchmarks]
    lines = [
        f"| method | tokens | {' | '.join(names)} | retention, % | time ratio |",
        f"|---|--:|{'--:|' * len(names)}--:|--:|",
    ]
    for m in summary.methods:
        scores = [f"{s.score.value:.1f}" if (s := m.scores.get(n)) else "–" for n in names]
        ratio = m.timing.ratio if m.timing else None
        tokens = f"{m.average_tokens:.1f}" if m.tokens else "–"
        cells = [m.label.replace("|", "\\|"), tokens, *scores, shown(m.retention), shown(ratio, 2)]
        lines.append(f"| {' | '.join(cells)} |")
    units = ", ".join(f"{b.name} {b.unit}" for b in summary.benchmarks if b.unit != "%")
    lines += [
        "",
        "tokens: visual tokens that enter a decoder layer, averaged over layers, samples and benchmarks. "
        f"retention: of the upper bound, paired 95 % interval ({summary.resamples:,} bootstrap resamples of images). "
        f"Scores in per cent{f'; {units}' if units else ''}.",
        *[f"\n> {w}" for w in summary.warnings],
    ]
    return "\n".join(lines) + "\n"


def shown(interval: Interval | None, digits: int = 1) -> str:
    """`97.1 [96.0, 98.2]`"""
    if interval is None:
        return "–"
    value = f"{interval.value:.{digits}f}"
    return f"{value} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]" if interval.bounded else value
