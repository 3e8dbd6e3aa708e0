"""The LaTeX table: its structure, its escaping, and that it compiles."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import METHODS, FakeMethod, write_run

from atp_eval.analysis import Contrast, Interval, Summary, comparisons, summarise
from atp_eval.analysis.latex import escaped, latex_table
from atp_eval.analysis.standing import significantly_best
from atp_eval.analysis.summary import Contrasted
from atp_eval.benchmarks import MAIN

HOSTILE = [
    r"\input{/etc/passwd}",
    r"\write18{touch broken}",
    r"\immediate\write18{id}",
    r"}\end{document}",
    r"$x^2$ \(y\) \[z\]",
    "50% of it # & _ ~ ^",
    r"\catcode`\%=12",
    "^^5cinput{x}",
    "a\nb\n\nc\\par",
    "\x00\x07\x1b[31m",
    "\u202egnp.exe مرحبا 漢字 \U0001f9a9 é ﬁ",
    "\"quoted\" 'single' `back` ?` !` -- --- << >> | <",
    r"\end{tabular}\end{table*}",
    "{" * 50,
    r"\def\x{\x\x}\x",
]


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    run = write_run(tmp_path_factory.mktemp("latex") / "run", methods=METHODS, documents=60)
    return summarise([run], resamples=200)


def cells(line: str) -> list[str]:
    return [c.strip() for c in re.sub(r"\\\\(\[2pt\])?$", "", line).split(" & ")]


def test_it_has_a_row_a_method_the_upper_bound_first_with_intervals_below(summary: Summary) -> None:
    turned = replace(summary, methods=tuple(reversed(summary.methods)))
    lines = latex_table(turned, "Protocol: model tiny.").splitlines()
    rules = [lines.index(rf"\{name}") for name in ("toprule", "midrule", "bottomrule")]
    assert rules == sorted(rules) and lines.count(r"\midrule") == 2
    assert cells(lines[rules[0] + 1]) == ["Method", "Tokens", "gqa", "mme", "pope", "Retention"]
    units = [r"{\scriptsize \%}", r"{\scriptsize of 1200}", r"{\scriptsize \%}", r"{\scriptsize \%}"]
    assert cells(lines[rules[0] + 2]) == ["", "", *units]
    body = [cells(line) for line in lines[rules[1] + 1 : rules[2]] if line != r"\midrule"]
    assert len(body) == 2 * len(summary.methods) and {len(row) for row in body} == {6}
    assert [row[0] for row in body[::2]] == [r"upper\_bound", "grid@144", "random@144", "fastv@144"]
    gqa = summary.method("fastv@144").scores["gqa"].score
    assert re.sub(r"\\textbf\{(.*)\}", r"\1", body[6][2]) == f"{gqa.value:.1f}"
    assert body[7][2] == rf"{{\scriptsize [{gqa.low:.1f}, {gqa.high:.1f}]}}"
    assert body[0][-1] == "100" and body[1][-1] == ""
    assert r"\begin{tabular}{@{}lrrrrr@{}}" in lines


def test_the_caption_tells_protocol_and_intervals(summary: Summary) -> None:
    table = latex_table(summary, "Protocol: model tiny, dtype float32.")
    assert "Protocol: model tiny, dtype float32." in table and "200 resamples of images" in table
    assert "10{,}000 resamples" in latex_table(replace(summary, resamples=10_000))
    assert r"\usepackage{booktabs}" in table.splitlines()[0]


def contrast(first: str, second: str, value: float, p: float) -> Contrast:
    test = comparisons.Tested("bootstrap", p, p_holm=p, comparisons=2)
    points = Interval(value, value - 1, value + 1)
    return Contrast(first, second, points, test, {"gqa": Contrasted(points, test)})


def test_only_what_is_significantly_best_is_bold(summary: Summary) -> None:
    group = replace(summary.fairness, groups=(("fastv@144", "random@144", "grid@144"),))
    clear = (contrast("fastv@144", "random@144", 5, 0.01), contrast("grid@144", "fastv@144", -4, 0.05))
    found = significantly_best(replace(summary, contrasts=clear, fairness=group))
    assert found == {None: {"fastv@144"}, "gqa": {"fastv@144"}, "mme": set(), "pope": set()}
    table = latex_table(replace(summary, contrasts=clear, fairness=group))
    assert table.count(r"\textbf{") == 2
    chance = (clear[0], contrast("grid@144", "fastv@144", -4, 0.051))
    assert not any(significantly_best(replace(summary, contrasts=chance, fairness=group)).values())
    alone = replace(summary.fairness, groups=(("fastv@144",), ("random@144", "grid@144")))
    assert not any(significantly_best(replace(summary, contrasts=clear, fairness=alone)).values())


@pytest.mark.parametrize("text", HOSTILE)
def test_no_command_gets_through(text: str) -> None:
    check(escaped(text))


def test_text_is_one_line_without_accents_and_what_ascii_lacks_is_named() -> None:
    assert escaped("a\nb\n\n c\t d") == "a b c d"  # an empty line would end the caption
    assert escaped("é ﬁ 漢\x07") == "e fi [U+6F22][U+0007]"


@settings(max_examples=200)
@given(st.text())
def test_no_text_is_more_than_text(text: str) -> None:
    check(escaped(text))


def check(shown: str) -> None:
    """What is left are our own commands, balanced braces and printable ASCII."""
    assert shown.isascii() and (shown.isprintable() or not shown)
    names = r"textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|ldots"
    bare = re.sub(rf"\\(?:{names})\{{\}}|\$\\times\$|\$-\$|\\[&%$#_{{}}]|\{{[-'`]\}}", "", shown)
    assert not re.search(r"[\\{}$%&#_^]", bare), bare


def test_poor_summaries_make_a_table_too(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", methods={"a_b": FakeMethod(0.5)}, benchmarks=["gqa"], documents=1)
    table = latex_table(summarise([run], resamples=20))
    assert r"a\_b" in table and "Retention" not in table


def test_a_long_name_goes_on_below_itself(tmp_path: Path) -> None:
    names = ["cdpruner@144:relevance=llm", "schedule@144:layers=1-3-9,keep=288-144-72"]
    run = write_run(tmp_path / "run", methods=dict.fromkeys(["upper_bound", *names], FakeMethod(0.5)), documents=12)
    lines = latex_table(summarise([run], resamples=20)).splitlines()
    body = [cells(line) for line in lines[lines.index(r"\midrule") + 1 :] if " & " in line]
    assert [row[0] for row in body] == [
        *(r"upper\_bound", ""),
        *("cdpruner@144:", "relevance=llm"),
        *("schedule@144:", "layers=1{-}3{-}9,", "keep=288{-}144{-}72"),
    ]
    assert body[3][2].startswith(r"{\scriptsize [") and not any(body[6][1:])
    assert len({len(row) for row in body}) == 1


def compiled(folder: Path, name: str) -> str:
    """What LaTeX says; shell escapes are allowed, so that an injected one would run."""
    if shutil.which("pdflatex") is None:
        pytest.fail("this test needs pdflatex: apt-get install texlive-latex-recommended")
    options = ["-interaction=nonstopmode", "-halt-on-error", "-shell-escape"]
    run = subprocess.run(["pdflatex", *options, name], cwd=folder, capture_output=True, text=True, errors="replace")
    assert run.returncode == 0, run.stdout[-2000:]
    return run.stdout


@pytest.mark.latex
def test_seven_benchmarks_and_long_names_fit_a_page_of_two_columns(tmp_path: Path) -> None:
    methods = {
        "upper_bound": FakeMethod(0.98),
        **dict.fromkeys(
            ["cdpruner@144:relevance=llm", "prumerge_plus@144", "sparsevlm@144:layers=2-6-15"], FakeMethod(0.9)
        ),
    }
    run = write_run(tmp_path / "run", methods=methods, benchmarks=list(MAIN), documents=60)
    found = summarise([run], resamples=100)
    assert len(found.benchmarks) == 7
    head = "\\documentclass[twocolumn]{article}\n\\usepackage{booktabs}\n\\textwidth=6.875in\n\\begin{document}\n"
    (tmp_path / "wide.tex").write_text(head + latex_table(found) + "\\end{document}\n", encoding="utf-8")
    assert "Overfull" not in compiled(tmp_path, "wide")


@pytest.mark.latex
def test_it_compiles_with_booktabs_alone(summary: Summary, tmp_path: Path) -> None:
    """Hostile labels too."""
    methods = [replace(m, label=text) for m, text in zip(summary.methods * 4, HOSTILE, strict=False)]
    benchmarks = tuple(replace(b, name=f"{b.name}{text}") for b, text in zip(summary.benchmarks, HOSTILE, strict=False))
    for name, found, said in (
        ("plain", summary, "Protocol: model tiny."),
        ("hostile", replace(summary, methods=tuple(methods), benchmarks=benchmarks), " ".join(HOSTILE)),
    ):
        head = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        (tmp_path / f"{name}.tex").write_text(head + latex_table(found, said) + "\\end{document}\n", encoding="utf-8")
        said_by_latex = compiled(tmp_path, name)
        assert (tmp_path / f"{name}.pdf").stat().st_size > 1000
        assert "Missing character" not in said_by_latex
    assert not (tmp_path / "broken").exists()
