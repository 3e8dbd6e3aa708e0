"""The paper's claims beside arithmetic and measurement: what the page's section and `atp-eval claims` show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from atp_eval.analysis import Interval, Summary
from atp_eval.analysis.claims import STATUSES, Claim, Status, ledger
from atp_eval.analysis.recomputed import AVERAGE, KEPT
from atp_eval.analysis.table6 import KV_UNIT, Table6, table_6
from atp_eval.paper import Figure
from atp_eval.records import Run

TITLES = {
    "accuracy_pct": "accuracy, %",
    "average_rate_pct": "average rate, %",
    "kv_mb": "KV cache, MB",
    "cuda_ms": "time, ms",
    "tflops": "FLOPs, T",
    "reduction_pct": "reduction, %",
    "seconds": "time, s",
    "h1": "person 1, %",
    "h2": "person 2, %",
    "h3": "person 3, %",
    "human_average": "people, %",
    "gpt4v": "GPT-4V, %",
    AVERAGE: "average, % of upper bound",
}


@dataclass(frozen=True)
class Shown:
    """A claim as it is written.

    where: `Tab. 1`. what: row and column. kept: whether it is a share of the upper bound's score, below that score.
    worked_out: what arithmetic gives; spread: what rounding allows it to be; how: the arithmetic; all empty where
    nothing follows.
    """

    where: str
    what: str
    printed: str
    unit: str
    kept: bool
    contradicted: bool
    worked_out: str
    spread: str
    how: str
    measured: Interval | None
    note: str


@dataclass(frozen=True)
class LedgerRow:
    """A row of a printed table: for each of the table's columns its claims."""

    label: str
    cells: tuple[tuple[Shown, ...], ...]


@dataclass(frozen=True)
class LedgerTable:
    """A printed table. counts: claims by status, those that there are. needs: what would measure what is not measured,
    each said once; what stands between backticks is a command."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[LedgerRow, ...]
    counts: dict[Status, int]
    needs: tuple[str, ...]


@dataclass(frozen=True)
class ClaimsParts:
    """contradictions: in the order of the paper. measured: how many claims these runs measure. table6, printed_kv,
    printed_tflops: the arithmetic of Table 6. kv_unit: what that table calls MB, in MiB."""

    words: tuple[str, ...]
    contradictions: tuple[Shown, ...]
    measured: int
    tables: tuple[LedgerTable, ...]
    table6: Table6
    printed_kv: tuple[str, ...]
    printed_tflops: tuple[str, ...]
    kv_unit: float = KV_UNIT


def claims_parts(runs: Sequence[Run] = (), summary: Summary | None = None) -> ClaimsParts:
    """Of the whole ledger."""
    claims, sixth = ledger(runs, summary), table_6()
    return ClaimsParts(
        words=tuple(_words(claims)),
        contradictions=tuple(shown(c) for c in claims if c.status == "contradicted"),
        measured=sum(c.measured is not None for c in claims),
        tables=tuple(_table(list(group)) for _, group in groupby(claims, key=lambda c: c.key)),
        table6=sixth,
        printed_kv=tuple(map(printed, sixth.kv)),
        printed_tflops=tuple(map(printed, sixth.tflops)),
    )


def counts(claims: Sequence[Claim]) -> dict[Status, int]:
    """Claims by status, in the order of the statuses; those that there are."""
    found = Counter(claim.status for claim in claims)
    return {status: found[status] for status in STATUSES if found[status]}


def title(column: str) -> str:
    """A column as people name it."""
    name = column.removesuffix(KEPT)
    return f"{name}, % of upper bound" if name != column else TITLES.get(name, name)


def printed(figure: Figure) -> str:
    """With the digits that it was printed with."""
    return f"{figure.value:,.{figure.digits}f}"


def shown(claim: Claim) -> Shown:
    """A claim for people: what was worked out has a digit more than what was printed."""
    found, digits, kept = claim.recomputed, claim.printed.digits + 1, claim.column.endswith(KEPT)
    wide = found is not None and found.high - found.low > 1e-9
    return Shown(
        where=claim.table,
        what=", ".join([*([claim.title] if "." in claim.key else []), claim.row, title(claim.column)]),
        printed=printed(claim.printed),
        unit=claim.printed.unit,
        kept=kept,
        contradicted=claim.status == "contradicted",
        worked_out=f"{found.value:,.{digits}f}" if found else "",
        spread=f"[{found.low:,.{digits}f}, {found.high:,.{digits}f}]" if found and wide else "",
        how=found.how if found else "",
        measured=claim.measured,
        note=claim.note,
    )


def _table(claims: Sequence[Claim]) -> LedgerTable:
    columns = tuple(dict.fromkeys(claim.column.removesuffix(KEPT) for claim in claims))
    rows = []
    for label, group in groupby(claims, key=lambda claim: claim.row):
        own = list(group)
        cells = (tuple(shown(c) for c in own if c.column.removesuffix(KEPT) == column) for column in columns)
        rows.append(LedgerRow(label, tuple(cells)))
    return LedgerTable(
        name=claims[0].table,
        title=claims[0].title,
        columns=tuple(map(title, columns)),
        rows=tuple(rows),
        counts=counts(claims),
        needs=tuple(dict.fromkeys(claim.needs for claim in claims if claim.measured is None)),
    )


def _words(claims: Sequence[Claim]) -> Iterator[str]:
    computed = [c for c in claims if c.recomputed]
    wrong = [c for c in claims if c.status == "contradicted"]
    first = sum(c.table == "Tab. 1" for c in wrong)
    yield (
        f"The paper and its supplement print {len(claims)} figures in tables of results. {len(computed)} of them "
        f"follow from other printed figures or from the sizes of the model: {len(computed) - len(wrong)} agree, "
        f"{len(wrong)} do not, {first} of these in Table 1. A figure counts as contradicted only where no numbers that "
        "round to the printed ones give it."
    )
    measured = [c for c in claims if c.measured]
    otherwise = sum(bool(c.note) for c in measured)
    if not measured:
        yield (
            "These runs measure none of them: that takes the published benchmarks, whole, on LLaVA-1.5-7B, with the "
            "paper's padding and prompt. What other models show is never set beside a claim."
        )
    else:
        also = f", {otherwise} of them as another quantity of the same name" if otherwise else ""
        yield f"These runs measure {len(measured)} of them{also}."
