"""One self-contained page out of some runs: Jinja2 with autoescape, figures inline, script and style by their hash."""

from __future__ import annotations

import base64
import hashlib
import math
import shlex
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import atp_eval
from atp_eval.analysis import Interval, Summary, protocol_differences, summarise, write_summary
from atp_eval.analysis.overlays import interesting_samples
from atp_eval.analysis.reading import distinct, flatten, run_names
from atp_eval.errors import UserError
from atp_eval.paths import data_folder
from atp_eval.records import Run
from atp_eval.reporting.adaptive import adaptive_words, objects_panels, signed
from atp_eval.reporting.agreement import agreement_parts
from atp_eval.reporting.fairness import quantity, verdict
from atp_eval.reporting.figures import layers_figure, retention_figure
from atp_eval.reporting.gallery import Picture, cards, pictures
from atp_eval.reporting.headline import headline
from atp_eval.reporting.svg import breakable, clean, swatch
from atp_eval.writer import write_atomically

TINY = "tiny"  # the embedded model's name
NOT_REPRODUCED = ("output", "resume")  # settings that say where a run lies, not what it is


def build_report(runs: Sequence[Run], output: Path, *, force: bool = False, summary: Summary | None = None) -> Path:
    """Write the page, and summary.json and comparison.* beside it; the page's path.

    summary: `summarise(runs)`, where the caller has it already.
    Raises UserError when the runs' protocols differ (unless forced), nothing is finished, or it cannot be written.
    """
    runs = distinct(runs)
    differences = protocol_differences(runs)
    if differences and not force:
        raise UserError(f"these runs cannot be compared: {differing(differences)}. --force compares them all the same.")
    summary = summary or summarise(runs)
    page = render(runs, summary, differences)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, page)
        write_summary(summary, tables_folder(runs, output))
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}. Choose another file with --output.") from None
    return output


def tables_folder(runs: Sequence[Run], output: Path) -> Path:
    """Where the tables go: a single run's own folder; for several, a folder named after the page."""
    return runs[0].path if len(runs) == 1 else output.with_name(f"{output.stem}_tables")


def differing(differences: dict[str, list[Any]]) -> str:
    """`prompt ('hf' and 'vicuna_v1'), dtype (...)`"""
    named = [f"{key} ({' and '.join(dict.fromkeys(map(repr, v)))})" for key, v in differences.items()]
    return f"{', '.join(named)} differ{'s' if len(named) == 1 else ''}"


def render(runs: Sequence[Run], summary: Summary, differences: dict[str, list[Any]]) -> str:
    """The page's HTML."""
    folder = data_folder("reports")
    style, script = (read_inline(folder / name) for name in ("report.css", "report.js"))
    shown = interesting_samples(runs)
    series = numbered(summary)
    kept: dict[Path, Picture] = pictures(shown)
    page = (
        environment(folder)
        .get_template("report.html.j2")
        .render(
            summary=summary,
            runs=runs,
            run_names=run_names(runs),
            differences=differing(differences) if differences else None,
            headline=headline(summary),
            series=series,
            figure_retention=retention_figure(summary, series),
            figure_layers=layers_figure(summary, series),
            adaptive_words=adaptive_words(summary.adaptivity, summary.hindsight),
            panels=objects_panels(summary.adaptivity, series),
            fairness_words=verdict(summary.fairness),
            agreement=agreement_parts(summary.agreement, summary.fairness, series),
            cards=cards(shown, kept),
            pictures=list(kept.values()),
            layers=max((len(m.tokens.mean) for m in summary.methods if m.tokens), default=0),
            is_tiny=any(run.manifest.protocol.get("model") == TINY for run in runs),
            is_mini=any(run.manifest.protocol.get("suite") == "mini" for run in runs),
            parameters=parameters(runs, summary),
            hashes={name: info.hash for run in reversed(runs) for name, info in run.manifest.benchmarks.items()},
            commands=[command(run) for run in runs],
            report_command=report_command(runs),
            style=style,
            style_hash=content_hash(style),
            script=script,
            script_hash=content_hash(script),
            version=atp_eval.__version__,
        )
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def environment(folder: Path) -> Environment:
    """Jinja2 that fails on unknown names, escapes everything and cleans every text that it prints."""
    found = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda v: clean(v) if isinstance(v, str) and not isinstance(v, Markup) else v,
    )
    found.filters |= {
        "num": num,
        "bounds": bounds,
        "signed": lambda interval, digits=1: signed(Interval(interval.value), digits),
        "rate": rate,
        "quantity": quantity,
        "heat": heat,
        "breakable": breakable,
        "swatch": swatch,
        "flat": flatten,
        "seconds": seconds,
        "moment": moment,
        "model_name": model_name,
    }
    return found


def read_inline(path: Path) -> Markup:
    """A style or script to put into the page as it is."""
    text = path.read_text(encoding="utf-8")
    if "</" in text:
        raise ValueError(f"{path} holds '</', which would end its element")
    return Markup(text)


def content_hash(text: str) -> str:
    """The source expression that lets a Content-Security-Policy allow exactly this text."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def numbered(summary: Summary) -> Callable[[str], int]:
    """A method's series: 0 for an upper bound, then 1, 2, ... in order; the same mark and colour all over the page."""
    numbers: dict[str, int] = {}
    for m in summary.methods:
        numbers[m.label] = 0 if m.is_reference else 1 + sum(1 for n in numbers.values() if n)
    return numbers.__getitem__


def parameters(runs: Sequence[Run], summary: Summary) -> dict[str, dict[str, Any]]:
    """What the manifests say of each method, by its label on the page."""
    names = run_names(runs)
    by_name = {names[run.path]: run for run in runs}
    return {m.label: by_name[m.run].manifest.methods[m.method] for m in summary.methods}


def model_name(run: Run) -> str:
    """The model as a sentence names it."""
    name = str(run.manifest.protocol.get("model", "this model"))
    return "the tiny model" if name == TINY else Path(name).name if Path(name).is_absolute() else name


def command(run: Run) -> str:
    """What runs this run again, as a shell command: all that the folder holds, whichever commands put it there."""
    words = ["atp-eval", "run"]
    whole = {"tasks": list(run.manifest.benchmarks), "methods": list(run.manifest.methods)}
    for key, value in (run.manifest.config | whole).items():
        option = "--" + key.replace("_", "-")
        if value is None or value is False or value == [] or key in NOT_REPRODUCED:
            continue
        if value is True:
            words.append(option)
        else:
            words += [option, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return shlex.join(words)


def report_command(runs: Sequence[Run]) -> str:
    """What builds this page again."""
    here = Path.cwd()
    # A page travels: it names folders below the working one, or their last part, never a whole path of this machine.
    shown = [r.path.resolve() for r in runs]
    return shlex.join(
        ["atp-eval", "report", *(str(p.relative_to(here)) if p.is_relative_to(here) else p.name for p in shown)]
    )


# ------------------------------------------------------------------ how numbers are written


def num(value: float | None, digits: int = 1) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def bounds(interval: Interval | None, digits: int = 1) -> str:
    """`[96.0, 98.2]`, or nothing where there is no interval."""
    if interval is None or not interval.bounded:
        return ""
    return f"[{interval.low:,.{digits}f}, {interval.high:,.{digits}f}]".replace("-", "\u2212")


def rate(interval: Interval) -> str:
    """A rate in [0, 1] as `1.2 % [0.4, 3.1]`."""
    if not math.isfinite(interval.value):
        return "–"
    return f"{100 * interval.value:.1f}\u00a0% {bounds(interval.scaled(100))}"


def seconds(value: float | None) -> str:
    """A time a person can read."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value * 1000:,.1f}\u00a0ms" if value < 1 else f"{value:,.2f}\u00a0s"


def moment(stamp: str) -> str:
    """An ISO time as `2026-11-21 09:00 UTC`; whatever else stays as it is."""
    try:
        return datetime.fromisoformat(stamp).astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return stamp


def heat(retention: float) -> str:
    """The class of a heat-map cell: how much is lost (steps of 2.5 points, 12 at most) or gained."""
    if not math.isfinite(retention):
        return "none"
    if retention > 101.0:
        return f"gain-{min(3, math.ceil((retention - 101.0) / 2.0))}"
    return f"loss-{min(12, max(0, round((100.0 - retention) / 2.5)))}"
