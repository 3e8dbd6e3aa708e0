"""What votes add up to, and what they are taken from, in sentences and in tables for a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from atp_eval.analysis.reading import UPPER_BOUND
from atp_eval.analysis.significance import Interval
from atp_eval.annotation.ballot import Ballot
from atp_eval.annotation.merge import Preference
from atp_eval.paper import printed_tables

if TYPE_CHECKING:
    from rich.console import Group

PRINTED_PAIR = (UPPER_BOUND, "atp@144")


def verdict(found: Preference) -> str:
    """The result in a sentence or two."""
    p, judges = found.pooled, sum(rates.who in found.judges for rates in found.annotators)
    people = len(found.annotators) - judges
    who = counted(people, "person", "people") if people else counted(judges, "judge")
    shares = f"{found.b} won {percent(p.win.value)}, lost {percent(p.loss.value)} and tied {percent(p.tie.value)}"
    said = f"{counted(p.votes, 'vote')} by {who} on {counted(p.samples, 'sample')}: {shares}."
    half = f"With ties as half it is preferred to {found.a} in {percent(p.half.value)}"
    if not p.half.bounded:
        return f"{said} {half}; too little varies for an interval."
    between = f"(95 % interval {100 * p.half.low:.1f} to {100 * p.half.high:.1f})"
    if p.half.low > 0.5:
        told = f"{found.b} is preferred"
    elif p.half.high < 0.5:
        told = f"{found.a} is preferred"
    else:
        told = "these votes do not tell the two apart"
    return f"{said} {half} {between}: {told}."


def printed() -> dict[str, float]:
    """The paper's own figures (supplement, Tab. 5), in per cent: claims about other samples and another model."""
    return {name: float(value) for name, value in printed_tables()["human_evaluation"].items()}


def notes(found: Preference) -> list[str]:
    """What a reader of the tables has to know."""
    said = []
    if found.overall:
        said.append(
            f"Of {found.answered:,} samples that both answered, {found.identical:,} have the same answer. With those "
            f"as ties {found.b} is preferred in {ranged(found.overall)} of all."
        )
    for rates in found.annotators:
        if rates.samples < found.drawn:
            said.append(f"{rates.who} voted on {rates.samples} of {found.drawn} samples.")
    for who, reasons in found.invalid.items():
        listed = "; ".join(f"{count} × {reason}" for reason, count in reasons.items())
        said.append(f"{who} gave no vote on {counted(sum(reasons.values()), 'sample')}: {listed}.")
    for who, facts in found.judges.items():
        cost = f"{facts.cost:.2f} USD" if facts.cost is not None else "cost unknown: no prices were given"
        unknown = f"; {counted(facts.unknown_usage, 'answer')} came without a count" if facts.unknown_usage else ""
        tokens = f"{facts.prompt_tokens:,} + {facts.completion_tokens:,} tokens"
        said.append(f"{who}: {counted(facts.answers, 'answer')}, {tokens}, {cost}{unknown}.")
    if (found.a, found.b) == PRINTED_PAIR:
        figures = ", ".join(f"{name} {value:.1f}" for name, value in printed().items())
        said.append(
            f"Printed in the paper's supplement, Tab. 5, as win % over the upper bound on 200 other samples of another "
            f"model, without intervals: {figures}. A claim, not comparable with the votes here."
        )
    return said


def to_rich(found: Preference) -> Group:
    """Tables for a terminal."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    def table(title: str, *columns: str) -> Table:
        made = Table(title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
        for i, column in enumerate(columns):
            made.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
        return made

    def add(to: Table, *cells: str) -> None:
        to.add_row(*map(escape, cells))

    wins = table(f"{escape(found.b)} over {escape(found.a)}", "", "votes", "win %", "tie %", "loss %", "ties as half %")
    lines = [*found.annotators, found.pooled] if len(found.annotators) > 1 else list(found.annotators)
    for r in [*lines, *(found.by_benchmark if len(found.by_benchmark) > 1 else ())]:
        add(wins, r.who, str(r.votes), *(ranged(x, "") for x in (r.win, r.tie, r.loss, r.half)))
    places = table(
        "Position", "", "chose left %", "sign test p", "rate on the left %", "rate on the right %", "contradictions %"
    )
    for p in found.positions:
        both = ranged(p.contradictions, "") if p.contradictions else "–"
        add(places, p.who, ranged(p.left, ""), f"{p.p:.3g}", percent(p.b_left, ""), percent(p.b_right, ""), both)
    parts: list[Any] = [wins, "", places]
    if found.agreements:
        alphas = table("Krippendorff's alpha", "", "annotators", "samples", "nominal", "ordinal (loss < tie < win)")
        for x in found.agreements:
            add(alphas, x.whose, str(x.annotators), str(x.samples), number(x.nominal), number(x.ordinal))
        parts += ["", alphas]
    if found.pairs:
        same = table("Chose alike", "", "samples", "%")
        for q in found.pairs:
            add(same, f"{q.first} and {q.second}", str(q.samples), ranged(q.same, ""))
        parts += ["", same]
    parts += ["", *(escape(line) for line in (verdict(found), *notes(found)))]
    return Group(*parts)


def drawn(ballot: Ballot, asked: int) -> dict[str, Any]:
    """What a ballot was drawn from, for programs."""
    return {
        "page": ballot.page,
        "a": ballot.a,
        "b": ballot.b,
        "seed": ballot.seed,
        "asked": asked,
        "samples": len(ballot.items),
        "with_picture": ballot.pictured,
        "pools": {name: pool.model_dump() for name, pool in ballot.pools.items()},
    }


def drawn_words(ballot: Ballot, asked: int) -> list[str]:
    """The same for people: a sentence, and what is not as one might think."""
    pools, count = ballot.pools.values(), len(ballot.items)
    each = ", ".join(f"{name} {pool.drawn}" for name, pool in ballot.pools.items())
    said = [
        f"{counted(count, 'sample')} ({each}) of {sum(p.eligible for p in pools):,} that can be drawn. Both answered "
        f"{sum(p.answered for p in pools):,}, {sum(p.identical for p in pools):,} of them alike."
    ]
    if count < asked:
        said.append(
            f"Fewer than the {asked} asked for: there are no more. A run with a larger --keep-images may have more; "
            "--any-picture and --include-identical allow more."
        )
    if ballot.pictured < count:
        without = counted(count - ballot.pictured, "sample")
        said.append(f"The run kept no picture of {without}: run again with a larger --keep-images to have them shown.")
    return said


def counted(count: int, one: str, many: str | None = None) -> str:
    """`3 votes`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def percent(rate: float, unit: str = " %") -> str:
    """A rate in [0, 1] as `51.0 %`."""
    return f"{100 * rate:.1f}{unit}" if math.isfinite(rate) else "–"


def ranged(rate: Interval, unit: str = " %") -> str:
    """`51.0 % [44.1, 57.8]`."""
    bounds = f" [{100 * rate.low:.1f}, {100 * rate.high:.1f}]" if rate.bounded else ""
    return percent(rate.value, unit) + bounds


def number(value: Interval) -> str:
    """`0.74 [0.61, 0.85]`."""
    if not math.isfinite(value.value):
        return "–"
    return f"{value.value:.2f}" + (f" [{value.low:.2f}, {value.high:.2f}]" if value.bounded else "")
