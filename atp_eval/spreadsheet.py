"""Tables as CSV that a spreadsheet may open: text of models and data sets is never taken for a formula.

Spreadsheets run a cell that begins like a formula, even out of a CSV file (OWASP, "CSV Injection"). Such text gets an
apostrophe in front, as OWASP advises; numbers, negative ones too, stay as they are. Parquet files hold every text as it
was. NUL, which readers stop at, and lone surrogates, which no file can hold, become replacement characters.
"""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")  # the wide forms are formulas to some programs
UNWRITABLE = re.compile("[\x00\ud800-\udfff]")


def csv_text(frame: pd.DataFrame) -> str:
    """The table as CSV with a header and without its index; quoted where needed (RFC 4180), lines end in a newline."""
    texts = frame.select_dtypes(include=["object", "string", "category"]).columns
    guarded = frame.assign(**{name: frame[name].astype(object).map(guard) for name in texts}) if len(texts) else frame
    return guarded.rename(columns=guard).to_csv(index=False, lineterminator="\n")


def guard(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula; whatever is no text as it is."""
    if not isinstance(value, str):
        return value
    # A carriage return alone ends a row to some readers although nothing quotes it: what follows would be a cell.
    shown = UNWRITABLE.sub("\ufffd", value).replace("\r\n", "\n").replace("\r", "\n")
    return f"'{shown}" if FORMULA.match(shown) else shown
