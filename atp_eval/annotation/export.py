"""What votes add up to, as JSON and CSV."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from atp_eval.analysis.significance import Interval
from atp_eval.annotation.merge import Preference
from atp_eval.annotation.words import PRINTED_PAIR, notes, printed, verdict
from atp_eval.errors import UserError
from atp_eval.spreadsheet import csv_text


def to_json(found: Preference) -> dict[str, Any]:
    """Everything, with the paper's figures apart; rates in [0, 1], None for what is undefined."""
    data = asdict(found) | {"judges": {who: facts.model_dump() for who, facts in found.judges.items()}}
    data |= {"verdict": verdict(found), "notes": notes(found)}
    claims = printed() if (found.a, found.b) == PRINTED_PAIR else None
    return {name: plain(value) for name, value in data.items()} | {"printed_in_the_paper": claims}


def plain(data: Any) -> Any:
    """Data that JSON can hold: intervals with named bounds, None for what is not finite."""
    if isinstance(data, Interval):
        return {name: plain(value) for name, value in data._asdict().items()}
    if isinstance(data, dict):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def to_csv(found: Preference) -> str:
    """A line a figure: who, quantity, value, low, high, n; rates in [0, 1]."""
    rows: list[tuple[Any, ...]] = []
    groups = [*found.annotators, found.pooled, *(replace(r, who=f"benchmark {r.who}") for r in found.by_benchmark)]
    for r in groups:
        shares = {"win": r.win, "tie": r.tie, "loss": r.loss, "ties as half": r.half}
        rows += [(r.who, name, *interval, r.votes) for name, interval in shares.items()]
    if found.overall:
        rows.append((found.pooled.who, "ties as half, over all answered", *found.overall, found.answered))
    for p in found.positions:
        rows.append((p.who, "chose left", *p.left, p.looks))
        rows.append((p.who, "sign test p", p.p, None, None, p.looks))
        if p.contradictions:
            rows.append((p.who, "contradictions", *p.contradictions, None))
    for a in found.agreements:
        rows.append((a.whose, "alpha, nominal", *a.nominal, a.samples))
        rows.append((a.whose, "alpha, ordinal", *a.ordinal, a.samples))
    rows += [(f"{q.first} and {q.second}", "chose alike", *q.same, q.samples) for q in found.pairs]
    frame = pd.DataFrame(rows, columns=["who", "quantity", "value", "low", "high", "n"])
    return csv_text(frame.astype({"n": "Int64"}))


def write_result(found: Preference, path: Path) -> None:
    """As CSV or JSON, by the file's ending. Raises UserError for another ending or where it cannot be written."""
    makers = {".csv": to_csv, ".json": lambda f: json.dumps(to_json(f), indent=1) + "\n"}
    if path.suffix.lower() not in makers:
        raise UserError(f"--output {path}: with --merge it ends in .csv or .json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(makers[path.suffix.lower()](found), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}. Name another file with --output.") from None
