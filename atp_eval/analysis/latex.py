r"""The comparison as a LaTeX table for papers. Its only need is `\usepackage{booktabs}`; text is ASCII and escaped."""

from __future__ import annotations

import math
import unicodedata
from itertools import zip_longest

from atp_eval.analysis.label_lines import label_lines
from atp_eval.analysis.significance import Interval
from atp_eval.analysis.standing import AVERAGE, significantly_best
from atp_eval.analysis.summary import BenchmarkRow, MethodSummary, Summary

SPECIAL = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{"-": "{-}", "`": "{`}", "'": "{'}", '"': "{'}{'}"},  # braces: no two become one sign
    **{"\u00a0": "~", "–": "--", "—": "---", "…": r"\ldots{}", "×": r"$\times$", "−": "$-$", "’": "{'}"},
}
LONGEST = 120  # characters of one text
NAME = 18  # characters of a line of a method's name
MANY = 8  # columns from which on a table is set smaller, so that seven benchmarks fit 6.875 inches


def escaped(text: str) -> str:
    """Text as LaTeX prints it: no command, no mathematics, no comment gets through; what ASCII lacks is named."""
    return "".join(SPECIAL.get(c) or letter(c) for c in " ".join(text[:LONGEST].split()))


def letter(c: str) -> str:
    """A character as it is, without its accents, or by its code point."""
    plain = c if c.isascii() else unicodedata.normalize("NFKD", c).encode("ascii", "ignore").decode("ascii")
    if plain.isprintable() and plain:
        return "".join(SPECIAL.get(p, p) for p in plain)
    return f"[U+{ord(c):04X}]"


def latex_table(summary: Summary, protocol: str = "") -> str:
    """A table* environment: a row a method, the upper bound first; below each value its 95 % interval, small.

    protocol: one sentence for the caption. Bold: significantly better than every other method of its budget.
    """
    best = significantly_best(summary)
    columns = 2 + len(summary.benchmarks) + summary.has_retention
    heads = ["Method", "Tokens", *(escaped(b.name) for b in summary.benchmarks)]
    units = ["", "", *(small(escaped(b.unit)) for b in summary.benchmarks)]
    if summary.has_retention:
        heads, units = [*heads, "Retention"], [*units, small(r"\%")]
    ordered = sorted(summary.methods, key=lambda m: not m.is_reference)
    lines = [
        "% Written by atp-eval. In the preamble: \\usepackage{booktabs}",
        r"\begin{table*}[t]",
        r"\centering",
        r"\footnotesize" if columns >= MANY else r"\small",
        rf"\setlength{{\tabcolsep}}{{{3 if columns >= MANY else 4}pt}}\setlength{{\belowcaptionskip}}{{4pt}}",
        rf"\caption{{{caption(summary, protocol)}}}",
        r"\label{tab:comparison}",
        rf"\begin{{tabular}}{{@{{}}l{'r' * (columns - 1)}@{{}}}}",
        r"\toprule",
        f"{' & '.join(heads)} \\\\",
        f"{' & '.join(units)} \\\\",
        r"\midrule",
    ]
    for place, m in enumerate(ordered):
        if place and ordered[place - 1].is_reference and not m.is_reference:
            lines.append(r"\midrule")
        lines += rows(summary, m, best)
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


def rows(summary: Summary, m: MethodSummary, best: dict[str | None, frozenset[str]]) -> list[str]:
    """A method's values, and below them their intervals; a long name goes on beside these."""
    name = label_lines(m.label[:LONGEST], NAME)
    values, below = [number(m.average_tokens)], [""]
    for b in summary.benchmarks:
        score = m.scores.get(b.name)
        values.append(value(score.score if score else None, digits(b), m.label in best[b.name]))
        below.append(bounds(score.score if score else None, digits(b)))
    if summary.has_retention:
        values.append("100" if m.is_reference else value(m.retention, 1, m.label in best[AVERAGE]))
        below.append("" if m.is_reference else bounds(m.retention, 1))
    beside = [values, below] if any(below) else [values]
    empty = [""] * len(values)
    lines = [
        " & ".join([escaped(part), *texts])
        for part, texts in zip_longest(name, [*beside, *[empty] * (len(name) - len(beside))], fillvalue="")
    ]
    return [f"{line} \\\\" for line in lines[:-1]] + [f"{lines[-1]} \\\\{'[2pt]' if len(lines) > 1 else ''}"]


def caption(summary: Summary, protocol: str) -> str:
    """What the numbers are, how they were measured, and what bold means."""
    said = ["Scores by method and benchmark."]
    if protocol:
        said.append(escaped(protocol))
    said.append(r"Tokens: visual tokens that enter a decoder layer, averaged over layers, samples and benchmarks.")
    if summary.has_retention:
        resamples = f"{summary.resamples:,}".replace(",", "{,}")
        said.append(
            "Retention: share of the unpruned model's score on the same documents, mean over benchmarks. Small: "
            rf"95\,\% intervals, paired bootstrap over {resamples} resamples of images."
        )
        said.append(
            r"Bold: better than every other method of its budget (Holm-adjusted $p \le 0.05$); none where chance may "
            "be the reason."
        )
    return " ".join(said)


def small(text: str) -> str:
    """In the size of a script."""
    return rf"{{\scriptsize {text}}}"


def digits(b: BenchmarkRow) -> int:
    """Decimals of a benchmark's scores."""
    return 1 if b.unit == "%" else 0


def value(interval: Interval | None, places: int, bold: bool) -> str:
    """`61.0`, in bold or not."""
    if interval is None or not math.isfinite(interval.value):
        return "--"
    text = f"{interval.value:.{places}f}".replace("-", "$-$")
    return rf"\textbf{{{text}}}" if bold else text


def bounds(interval: Interval | None, places: int) -> str:
    """`58.0--64.0`, small."""
    if interval is None or not interval.bounded:
        return ""
    return small(f"[{interval.low:.{places}f}, {interval.high:.{places}f}]".replace("-", "$-$"))


def number(tokens: float) -> str:
    """Average tokens."""
    return f"{tokens:.{0 if tokens >= 100 else 1}f}" if math.isfinite(tokens) else "--"
