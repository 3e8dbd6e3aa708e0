"""CSV: text is never a formula, numbers stay numbers, and what is read back is what was there."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atp_eval.spreadsheet import csv_text, guard

FORMULAS = [
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://x.invalid","y")',
    "+1+1",
    "-1+1",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "  =1",
    "\n=1",
    "\r\n=1",
    "＝1+1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_begins_like_a_formula(text: str) -> None:
    back = pd.read_csv(io.StringIO(csv_text(pd.DataFrame({"a": [text], text: [1]}))))
    assert back.iloc[0, 0].startswith("'") and back.columns[1].startswith("'")


def test_a_carriage_return_begins_no_row_of_its_own() -> None:
    assert csv_text(pd.DataFrame({"a": ["x\r=1+1"], "b": [1]})) == 'a,b\n"x\n=1+1",1\n'


def test_numbers_stay_numbers_and_plain_text_as_it_is() -> None:
    frame = pd.DataFrame({"method": ["fastv@144", "a,b", 'say "x"'], "value": [-1.5, 2.0, None], "count": [-3, 4, 5]})
    text = csv_text(frame)
    assert text.splitlines()[1] == "fastv@144,-1.5,-3"
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(text)), frame, check_dtype=False)


def test_the_table_itself_is_not_changed() -> None:
    frame = pd.DataFrame({"a": ["=1"]})
    csv_text(frame)
    assert frame["a"].tolist() == ["=1"]


def test_missing_text_stays_missing() -> None:
    assert csv_text(pd.DataFrame({"a": [None, "x"], "b": pd.Categorical(["=1", None])})) == "a,b\n,'=1\nx,\n"


@settings(max_examples=60)
@given(st.text())
def test_any_text_is_one_cell_that_can_be_written(text: str) -> None:
    table = csv_text(pd.DataFrame({"a": [text], "b": ["end"]}))
    table.encode("utf-8")
    back = pd.read_csv(io.StringIO(table, newline=""), keep_default_na=False)
    assert back.shape == (1, 2) and back["b"].tolist() == ["end"]
    assert not str(guard(text)).lstrip().startswith(("=", "+", "@"))
