"""From how many questions about a picture on is it cheaper to read it whole, once, than to prune it by the question?

    python benchmarks/sharing.py                                         # LLaVA-1.5-7B, by closed forms: a second
    python benchmarks/sharing.py --docs docs/speed.md --figure docs/speed
    python benchmarks/sharing.py --model llava-hf/llava-1.5-13b-hf --after 30 --methods fastv@192 visionzip@64

Counted, not measured: FLOPs of the LLM's prefill, choosing included, for prompts about one picture that are read
together (`atp_eval/cost/sharing.py`, equal to torch's count of the engine). Vision tower and decoding are left out:
they are the same for all, or nearly. A method whose counts depend on the data is given as a schedule, such as
4:126,14:88,24:20; atp@144 and atp@88 stand for the paper's (Tab. 2).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from targets import fill

from atp_eval.bench.untrained import paper_stages
from atp_eval.cost import KNOWN, ModelGeometry
from atp_eval.cost.sharing import Reader, sharing_wins_from
from atp_eval.errors import UserError, unknown
from atp_eval.flops import Asked, parse_schedule, reader
from atp_eval.methods import get_method
from atp_eval.plotting import PAGE, Chart, Margins, colour, marker, plot_area, write_chart

MARK = "<!-- sharing -->"
UNPRUNED = "upper_bound"
METHODS = (
    "fastv@144", "fastv@88", "atp@144", "atp@88", "sparsevlm@144", "pyramiddrop@144", "visionzip@144",
)  # fmt: skip
MODEL = "llava-hf/llava-1.5-7b-hf"
PAPERS = {  # ATP-LLaVA, Table 2: 4:126,14:88,24:20 and 1:98,13:79,25:16
    f"atp@{average}": ",".join(f"{a}:{b}" for a, b in zip(*paper_stages(average, KNOWN[MODEL]), strict=True))
    for average in (144, 88)
}
COUNTS = (1, 2, 4, 8, 16, 32)
T = 1e12


class Row(NamedTuple):
    """name: in the table; apart: as in Reader; wins: the questions from which unpruned sharing costs no more; each:
    FLOPs a question for COUNTS questions."""

    name: str
    apart: int | None
    wins: int | None
    each: tuple[float, ...]


def found(names: Sequence[str], geometry: ModelGeometry, before: int, after: int) -> list[Row]:
    """The unpruned model, then what was asked for. Raises UserError for a method that cannot be counted."""

    def read(name: str) -> Reader:
        plan = PAPERS.get(name, name)
        asked = parse_schedule(plan, "atp") if plan[0].isdigit() else Asked(name, get_method(name))
        return reader(asked, geometry, before, after)

    unpruned = read(UNPRUNED)
    rows = []
    for name in (UNPRUNED, *names):
        one = read(name)
        each = tuple(one.total(count) / count for count in COUNTS)
        rows.append(Row(name, one.apart, None if name == UNPRUNED else sharing_wins_from(unpruned, one), each))
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """A line a method."""
    counts = " | ".join(f"{count}" for count in COUNTS)
    lines = [
        f"| TFLOP a question, by questions about the picture | shared before layer | {counts} | unpruned wins from |",
        "|---" + "|--:" * (len(COUNTS) + 2) + "|",
    ]
    for row in rows:
        shared = "all" if row.apart is None else str(row.apart)
        each = " | ".join(f"{flops / T:.3f}" for flops in row.each)
        wins = "" if row.name == UNPRUNED else "never" if row.wins is None else f"{row.wins} questions"
        lines.append(f"| `{row.name}` | {shared} | {each} | {wins} |")
    return "\n".join(lines) + "\n"


def chart(rows: Sequence[Row]) -> Chart:
    """FLOPs a question against questions about the picture."""
    data = pd.DataFrame(
        [
            {"method": row.name, "questions": count, "tflop_a_question": flops / T}
            for row in rows
            for count, flops in zip(COUNTS, row.each, strict=True)
        ]
    )

    def draw(figure: Figure) -> None:
        axes = plot_area(figure, Margins(right=1.7))
        for series, row in enumerate(rows):
            style = {"color": colour(series), "marker": marker(series), "linestyle": "--" if row.apart is None else "-"}
            axes.plot(COUNTS, [flops / T for flops in row.each], label=row.name, **style)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
        axes.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        axes.minorticks_off()
        axes.set_xlabel("questions about one picture, read together")
        axes.set_ylabel("TFLOP of prefill a question")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="dashed: shares all layers")

    said = "; ".join(f"{row.name}: from {row.wins}" for row in rows if row.wins is not None)
    alt = f"FLOPs of prefill a question by questions about one picture. Unpruned sharing costs less, {said}."
    return Chart("sharing", alt, data, draw, (PAGE, 3.4))


TICKS = (1, 2, 4, 8)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or put it into a document; draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL, help=" or ".join(KNOWN))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="specs, or schedules with ATP's scorer")
    parser.add_argument("--before", type=int, default=5, help="text tokens in front of the image")
    parser.add_argument("--after", type=int, default=59, help="text tokens behind it, those of the question")
    parser.add_argument("--docs", type=Path, metavar="FILE", help=f"put the table there, between two {MARK}")
    parser.add_argument("--figure", type=Path, metavar="FOLDER", help="write sharing.png and .csv there")
    options = parser.parse_args(arguments)
    if options.before < 0 or options.after < 1:
        parser.error("--before must be at least 0, --after at least 1")
    try:
        if options.model not in KNOWN:
            raise unknown("model", options.model, KNOWN)
        rows = found(options.methods, KNOWN[options.model], options.before, options.after)
        if options.docs:
            text = fill(options.docs.read_text(encoding="utf-8"), markdown(rows), options.docs, MARK)
            options.docs.write_text(text, encoding="utf-8")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(rows), end="")
    if options.figure:
        print(*write_chart(chart(rows), options.figure, ("png",)), sep="\n", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
