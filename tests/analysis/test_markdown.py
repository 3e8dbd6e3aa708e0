"""The Markdown table: names from outside stay names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import METHODS, write_run

from atp_eval.analysis import summarise
from atp_eval.analysis.markdown import escaped, markdown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fastv@144:layer=2", "fastv@144:layer=2"),
        ("upper_bound", "upper_bound"),
        ("a|b", r"a\|b"),
        ("[x](javascript:alert(1))", r"\[x\](javascript:alert(1))"),
        ("![x](http://x)", r"\!\[x\](http://x)"),
        ("<img src=x>&lt;", r"\<img src=x\>\&lt;"),
        ("*a* _b_ `c` ~~d~~ # e", r"\*a\* \_b\_ \`c\` \~\~d\~\~ \# e"),
        ("line\n\n| row |\r\nx", r"line \| row \| x"),
        ("\\", "\\\\"),
        ("\\_x", "\\\\\\_x"),
    ],
)
def test_names_make_no_markup(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_the_table_keeps_its_columns_whatever_a_name_holds(tmp_path: Path) -> None:
    summary = summarise([write_run(tmp_path / "run", methods=METHODS, benchmarks=["gqa"], documents=12)], resamples=20)
    odd = replace(summary.methods[1], label="a | b\n| c | <b>")
    lines = markdown(replace(summary, methods=(summary.methods[0], odd), warnings=("<i>see</i>\n# x",))).splitlines()
    columns = [line.replace(r"\|", "").count("|") for line in lines if line.startswith("|")]
    assert columns == [6] * 4
    assert r"> \<i\>see\</i\> \# x" in lines
