"""The comparison as a Markdown table. What comes from outside is escaped: it makes neither links nor HTML nor cells."""

from __future__ import annotations

import re

from atp_eval.analysis.comparisons import Tested
from atp_eval.analysis.significance import Interval
from atp_eval.analysis.summary import Summary

ACTIVE = re.compile(r"([\\`*_\[\]|!<>&#~])")  # what Markdown or HTML in it may take for more than text
LONGEST = 500  # characters of one text


def escaped(text: str) -> str:
    """Text that stays text, on one line; an underscore within a word needs no help."""
    line = " ".join(text[:LONGEST].replace("\x00", "\ufffd").split()).encode("utf-8", "replace").decode("utf-8")
    return re.sub(r"(?<=\w)\\_(?=\w)", "_", ACTIVE.sub(r"\\\1", line))


def markdown(summary: Summary) -> str:
    """The comparison table: a row a method, scores with retention below."""
    names = [b.name for b in summary.benchmarks]
    lines = [
        f"| method | tokens | {' | '.join(map(escaped, names))} | retention, % | time ratio |",
        f"|---|--:|{'--:|' * len(names)}--:|--:|",
    ]
    for m in summary.methods:
        scores = [f"{s.score.value:.1f}{starred(s.test)}" if (s := m.scores.get(n)) else "–" for n in names]
        ratio = m.timing.ratio if m.timing else None
        tokens = f"{m.average_tokens:.1f}" if m.tokens else "–"
        cells = [escaped(m.label), tokens, *scores, shown(m.retention) + starred(m.test), shown(ratio, 2)]
        lines.append(f"| {' | '.join(cells)} |")
    units = ", ".join(f"{escaped(b.name)} {b.unit}" for b in summary.benchmarks if b.unit != "%")
    lines += [
        "",
        "tokens: visual tokens that enter a decoder layer, averaged over layers, samples and benchmarks. "
        f"retention: of the upper bound, paired 95 % interval ({summary.resamples:,} bootstrap resamples of images); "
        r"\* differs from it, Holm-adjusted p at most 0.05. "
        f"Scores in per cent{f'; {units}' if units else ''}.",
        *[f"\n> {escaped(w)}" for w in summary.warnings],
    ]
    return "\n".join(lines) + "\n"


def starred(test: Tested | None) -> str:
    """A star for what differs from the upper bound beyond chance; escaped for Markdown."""
    return r"\*" if test and test.significant else ""


def shown(interval: Interval | None, digits: int = 1) -> str:
    """`97.1 [96.0, 98.2]`"""
    if interval is None:
        return "–"
    value = f"{interval.value:.{digits}f}"
    return f"{value} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]" if interval.bounded else value
