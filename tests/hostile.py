"""Fifty texts that break pages, and a run folder that has one of them in every place where outside text enters."""

from __future__ import annotations

import json
import os
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from synthetic import METHODS, FakeMethod, plain_picture, write_run

from atp_eval.records import MANIFEST, PARQUET, RESULT, Run, read_run, slug

RUNS = "window.broken=1"
STRINGS = (
    f"<script>{RUNS}</script>",
    f"</script><script>{RUNS}</script>",
    f"</ScRiPt ><img src=x onerror={RUNS}>",
    f'"><img src=x onerror="{RUNS}">',
    f"'><svg onload={RUNS}>",
    f"' onmouseover='{RUNS}' autofocus onfocus='{RUNS}",
    f'" onclick="{RUNS}" style="position:fixed;inset:0',
    f"javascript:{RUNS}",
    f"data:text/html,<script>{RUNS}</script>",
    f'<a href="javascript:{RUNS}">press</a>',
    f'<iframe srcdoc="<script>parent.{RUNS}</script>"></iframe>',
    f'<object data="data:text/html,<script>parent.{RUNS}</script>"></object>',
    f'<svg><script href="data:text/javascript,{RUNS}"/></svg>',
    f'<svg><use href="data:image/svg+xml,<svg id=x onload={RUNS}></svg>#x"/></svg>',
    f'<svg><animate onbegin="{RUNS}" attributeName="x" dur="1s"/></svg>',
    f'<img src="data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9YWxlcnQoMSkvPg==" onload="{RUNS}">',
    f'<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=x onerror={RUNS}&gt;">',
    f'<math><annotation-xml encoding="text/html"><style><img src=x onerror={RUNS}></style>',
    f'<noscript><p title="</noscript><img src=x onerror={RUNS}>">',
    f"<form><math><mtext></form><form><mglyph><style></math><img src onerror={RUNS}>",
    f"<template><script>{RUNS}</script></template>",
    "<textarea><title><xmp><plaintext>",
    "<select><option><keygen></select></main></body></html>",
    f"<!-- --!> <img src=x onerror={RUNS}> -->",
    f"<!--><script>{RUNS}</script>",
    f"]]><script>{RUNS}</script><![CDATA[",
    "<![CDATA[ <? ?> <!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>&e;",
    '<meta http-equiv="refresh" content="0;url=http://outside.invalid/">',
    '<base href="http://outside.invalid/">',
    '<link rel="stylesheet" href="http://outside.invalid/x.css"><link rel="prefetch" href="//outside.invalid">',
    '<img src="http://outside.invalid/x.png"><video poster="//outside.invalid/p"><audio src="//outside.invalid/a">',
    "<style>*{display:none!important} @import url(//outside.invalid/x.css)</style>",
    "</style><style>body{width:9999px;background:url(http://outside.invalid/x)}</style>",
    "color:red;} body{display:none} .x{ expression(alert(1))",
    "{{ 7 * 7 }}{% raw %}{% include 'base.html.j2' %}{# #}${7*7}<%= 7*7 %>",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}{%",
    f'"}}]}}</script><script>{RUNS}</script>',
    '\\"}; \\u003cscript\\u003e \\x3cscript\\x3e \u2028\u2029 \\',
    "`${" + RUNS + "}` '+" + RUNS + "+'",
    "\u202egnp.exe\u202c \u2066isolated\u2069 \u200f\u200e\u061c\u2067 tail",
    "مرحبا بالعالم שלום עולם " * 4,
    "\x00\x01\x07\x08\x0b\x0c\x1b[2J\x1b]0;title\x07\x7f\x85\x9f",
    "\ufffe\uffff\ufeff\u200b\u200d\ufe0f\U000e0041",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349\u035a\u032f\u031e\u0320\u034d"
    * 40,
    "w" * 5000,
    "漢字" * 900,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466" * 200,
    "line\nline\r\nline\rline\u2029line\tx" + "\n" * 300,
    "&lt;script&gt; &#60;script&#62; &amp;lt; &nbsp &notit; &#x0; &#xD800;",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\\input{/etc/passwd}\\write18{touch broken}$\\catcode`\\%=12$ % & # _ ^^5c",
    "| a | b |\n|---|---|\n![x](http://outside.invalid/x.png) [x](javascript:alert(1)) <b>",
    "<b>" * 300_000,
    f"<img src=x onerror={RUNS}>" * 40_000,  # more than a megabyte
    "../../../../etc/passwd%00.webp?x#y",
    f"<x onx={RUNS}>" + "\u00ad" * 2000 + "\u00a0" * 2000,
)
WORDS = tuple(f"harmless {a}{b}" for a in string.ascii_lowercase[:6] for b in string.ascii_lowercase)
BENCHMARKS = ("gqa", "pope")
ROWS = 60
PLACES = ("question", "prompt", "target", "category", "kind", "level", "error", "response")


def text(kind: tuple[str, ...], i: int) -> str:
    """A text by its number; of STRINGS and WORDS, equal numbers are equal texts."""
    return kind[i % len(STRINGS)]


def short(kind: tuple[str, ...], i: int) -> str:
    """As it fits where a name stands, which no program lets be a megabyte."""
    return text(kind, i)[:120]


def labels(kind: tuple[str, ...]) -> tuple[str, ...]:
    """Names of methods."""
    return ("upper_bound", f"fastv@144:{short(kind, 0)}", f"grid@144:{short(kind, 3)}", f"random@144:{short(kind, 40)}")


def broken_run(folder: Path, kind: tuple[str, ...], name: str) -> Run:
    """A finished run with texts of a kind (STRINGS, or WORDS in the same places) wherever the outside may write.

    Both kinds have equal answers, scores, traces and pictures. name: of the run folder.
    """
    skills = [*METHODS.values()]
    methods = {label: FakeMethod(s.skill, s.stages) for label, s in zip(labels(kind), skills, strict=True)}
    # Named alike while answers are drawn, which goes by the name; then renamed.
    plain = {f"m{i}" if i else "upper_bound": method for i, method in enumerate(methods.values())}
    run = write_run(folder / name, methods=plain, benchmarks=BENCHMARKS, documents=ROWS, pictures=plain_picture)
    renamed = dict(zip(plain, labels(kind), strict=True))
    odd = f"pope {short(kind, 4)}".replace("/", "|")  # a benchmark that nobody knows, in a folder of its name
    for m, (old, new) in enumerate(renamed.items()):
        os.rename(run.path / slug(old), run.path / "moved")
        os.rename(run.path / "moved", run.path / slug(new))
        for benchmark, called in zip(BENCHMARKS, ("gqa", odd), strict=True):
            os.rename(run.path / slug(new) / benchmark, run.path / slug(new) / called)
            cell = run.path / slug(new) / called
            rewrite(cell / RESULT, lambda data, new=new, called=called: data | {"method": new, "benchmark": called})
            rows = pd.read_parquet(cell / PARQUET).assign(method=new, benchmark=called)
            rows = fill(rows, kind, m)
            rows.to_parquet(cell / PARQUET, index=False)
    rewrite(run.path / MANIFEST, lambda data: manifest(data, kind, renamed, odd))
    return read_run(run.path)


def fill(rows: pd.DataFrame, kind: tuple[str, ...], m: int) -> pd.DataFrame:
    """Each place of each row has another text; some rows have an error in the place of an answer."""
    count = len(rows)
    for place, column in enumerate(PLACES):
        shift = 7 * place + (11 * m if column in ("response", "error") else 0)
        rows[column] = [writable(text(kind, i + shift)) for i in range(count)]
    failed = [m == 1 and i % 9 == 4 for i in range(count)]
    rows["error"] = rows["error"].where(failed)
    rows["response"] = rows["response"].mask(failed)
    rows["score"] = rows["score"].mask(failed, 0.0)
    pictured = [i % 4 != 3 for i in range(count)]
    rows["image_id"] = rows["image_id"].where(pictured, [writable(text(kind, i)) for i in range(count)])
    return rows


def manifest(data: dict[str, Any], kind: tuple[str, ...], renamed: dict[str, str], odd: str) -> dict[str, Any]:
    """The manifest, with texts of a kind in the place of names and values."""
    said = iter(range(1000))

    def word() -> str:
        return writable(short(kind, next(said)))

    protocol = {"model": word(), "prompt": word(), "weights": word(), "nested": {word(): word()}, "seed": 0}
    infos = dict(zip(("gqa", odd), data["benchmarks"].values(), strict=True))
    return data | {
        "protocol": protocol,
        "versions": {word(): word() for _ in range(6)},
        "model": data["model"] | {"id": word(), word(): {word(): word()}},
        "config": {"tasks": [word()], word().replace("-", "_"): word(), "methods": [word()]},
        "methods": {new: {"spec": word(), word(): [word(), word()]} for new in renamed.values()},
        "benchmarks": {name: info | {"task": word(), "hash": word(), "metric": word()} for name, info in infos.items()},
        "device": word(),
        "created": word(),
        "atp_eval": word(),
        "git_commit": word(),
    }


def writable(text: str) -> str:
    """As a file can hold it."""
    return text.encode("utf-8", "replace").decode("utf-8")


def rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
