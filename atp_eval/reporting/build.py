"""The comparison page of some runs, and the tables beside it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from atp_eval.analysis import Summary, protocol_differences, summarise, write_summary
from atp_eval.analysis.overlays import interesting_samples
from atp_eval.analysis.reading import distinct, run_names
from atp_eval.errors import UserError
from atp_eval.records import Run
from atp_eval.reporting.adaptive import adaptive_words, objects_panels
from atp_eval.reporting.agreement import agreement_parts
from atp_eval.reporting.fairness import verdict
from atp_eval.reporting.figures import layers_figure, retention_figure
from atp_eval.reporting.gallery import Picture, cards, pictures
from atp_eval.reporting.headline import headline
from atp_eval.reporting.page import render_page
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
    shown = interesting_samples(runs)
    series = numbered(summary)
    kept: dict[Path, Picture] = pictures(shown)
    return render_page(
        "report.html.j2",
        styles=("report.css", "gallery.css"),
        scripts=("gallery.js",),
        filters={"model_name": model_name},
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
    )


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
