"""The page about what changed between two runs, and its figures as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from atp_eval.analysis.compare import Comparison
from atp_eval.analysis.flips import Flip
from atp_eval.analysis.significance import Interval
from atp_eval.errors import UserError
from atp_eval.reporting.page import render_page
from atp_eval.spreadsheet import csv_text
from atp_eval.writer import write_atomically

CSV = "compare.csv"
LONGEST = 600  # characters of a question or an answer on the page


def write_comparison(comparison: Comparison, output: Path) -> tuple[Path, Path]:
    """The page, and CSV beside it; their paths. Raises UserError where they cannot be written."""
    beside = output.with_name(CSV)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, compare_page(comparison))
        write_atomically(beside, csv_text(compare_frame(comparison)))
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}. Choose another file with --output.") from None
    return output, beside


def compare_page(comparison: Comparison) -> str:
    """The HTML of the page."""
    examples = {
        method: {
            direction: [flip for flip in comparison.flips if flip.method == method and flip.gained is gained]
            for direction, gained in (("lost", False), ("gained", True))
        }
        for method in comparison.methods
    }
    return render_page(
        "compare.html.j2",
        styles=("report.css", "compare.css"),
        scripts=("report.js",),
        filters={"change": change_words, "cut": cut, "verdict": verdict},
        comparison=comparison,
        verdict_lines=verdict_lines(comparison),
        examples={method: found for method, found in examples.items() if found["lost"] or found["gained"]},
        sides=sides(comparison),
        frame=compare_frame(comparison),
    )


def verdict_lines(comparison: Comparison) -> list[str]:
    """What a reader wants to know first, from the figures."""
    a, b = comparison.names
    beyond = comparison.significant
    cells = f"{len(comparison.changes)} scores ({count(len(comparison.methods), 'method')}, "
    cells += f"{count(len(comparison.benchmarks), 'benchmark')})"
    if beyond:
        up = sum(change.difference.value > 0 for change in beyond)
        lines = [f"Of {cells} {len(beyond)} differ between {a} and {b} beyond chance: {up} higher in {b}, "
                 f"{len(beyond) - up} lower."]  # fmt: skip
    else:
        lines = [f"None of {cells} differs between {a} and {b} beyond chance (Holm-adjusted p ≤ 0.05)."]
    asked, changed, gained, lost = (
        sum(getattr(average, name) for average in comparison.averages)
        for name in ("common", "changed", "gained", "lost")
    )
    lines.append(
        f"{changed:,} of {asked:,} answers are not the same; {gained:,} score higher in {b}, {lost:,} lower."
        if changed
        else f"All {asked:,} answers are the same, word for word."
    )
    kept = [average.kept for average in comparison.averages if average.kept]
    if kept:
        differ = sum(interval.value > 0 for interval in kept)
        lines.append(
            f"{count(differ, 'method')} kept other tokens for some questions."
            if differ
            else "All methods kept the same tokens for all questions."
        )
    return lines


def compare_frame(comparison: Comparison) -> pd.DataFrame:
    """One row a method and benchmark, and one a method for the average, with all figures."""
    rows: list[dict[str, Any]] = []
    units = {row.name: row.unit for row in comparison.benchmarks}
    for change in comparison.changes:
        rows.append(
            {
                **{"method": change.method, "benchmark": change.benchmark, "unit": units[change.benchmark]},
                **{"questions": change.common, "only_a": change.only_a, "only_b": change.only_b},
                **_spread("a", change.a),
                **_spread("b", change.b),
                **_spread("difference", change.difference),
                **_spread("b_per_cent_of_a", change.ratio.interval),
                **_rest(change),
            }
        )
    for average in comparison.averages:
        rows.append(
            {
                **{"method": average.method, "benchmark": "average", "unit": "%", "questions": average.common},
                **_spread("b_per_cent_of_a", average.ratio),
                **_rest(average),
            }
        )
    return pd.DataFrame(rows)


def _rest(found: Any) -> dict[str, Any]:
    """What changes and averages have in common."""
    tokens, test = found.tokens, found.test
    return {
        **{"test": test.kind, "p": test.p, "p_holm": test.p_holm, "comparisons": test.comparisons},
        **{"answers_changed": found.changed, "gained": found.gained, "lost": found.lost},
        **_spread("other_tokens_kept", found.kept),
        **{"tokens_a": tokens.a if tokens else None, "tokens_b": tokens.b if tokens else None},
        **_spread("time_ratio", found.time),
    }


def _spread(name: str, interval: Interval | None) -> dict[str, float | None]:
    found = interval or Interval(float("nan"))
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def sides(comparison: Comparison) -> list[tuple[str, str, str, bool]]:
    """Facts of both runs beside each other: what, the first's, the second's, and whether they differ."""
    a, b = (run.manifest for run in comparison.runs)
    facts = [("folder", *(str(run.path) for run in comparison.runs)), ("started", a.created, b.created)]
    facts += [("device", a.device, b.device), ("atp-eval", a.atp_eval, b.atp_eval)]
    facts += [("git commit", a.git_commit or "unknown", b.git_commit or "unknown")]
    facts += [(name, str(a.versions.get(name)), str(b.versions.get(name))) for name in {**a.versions, **b.versions}]
    facts += [(k, str(a.protocol.get(k)), str(b.protocol.get(k))) for k in {**a.protocol, **b.protocol}]
    return [(name, one, two, one != two) for name, one, two in facts]


def change_words(interval: Interval, digits: int = 1) -> str:
    """A difference with its sign: `+1.2`, `−0.4`, `0.0`."""
    return "–" if interval.value != interval.value else signed(interval.value, digits)


def signed(value: float, digits: int = 1) -> str:
    """With a sign, but for what is shown as nothing."""
    text = f"{abs(value):,.{digits}f}"
    return text if float(text.replace(",", "")) == 0 else f"{'+' if value > 0 else '−'}{text}"


def verdict(flip: Flip) -> tuple[str, str]:
    """Each answer's score in words."""
    return _word(flip.score_a), _word(flip.score_b)


def _word(score: float) -> str:
    return "right" if score >= 1 else f"partly right ({score:.2f})" if score > 0 else "wrong"


def cut(text: str) -> str:
    """A long text's beginning, with how much is missing."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text) - LONGEST:,} more characters)"


def count(number: int, thing: str) -> str:
    """`1 method`, `3 methods`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
