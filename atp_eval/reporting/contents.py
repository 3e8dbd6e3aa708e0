"""What the comparison page shows: its sections in order, and everything that their templates need."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from atp_eval.analysis import Summary
from atp_eval.analysis.data_issues import find_issues
from atp_eval.analysis.export import comparison_frame
from atp_eval.analysis.latex import latex_table
from atp_eval.analysis.markdown import markdown
from atp_eval.analysis.reading import run_names
from atp_eval.analysis.standing import significantly_best
from atp_eval.records import Run
from atp_eval.reporting.adaptive import adaptive_words, objects_panels
from atp_eval.reporting.agreement import agreement_parts
from atp_eval.reporting.bench import bench_sections, find_benches
from atp_eval.reporting.claims import claims_parts
from atp_eval.reporting.efficiency import efficiency_parts
from atp_eval.reporting.exhibits import Exhibits
from atp_eval.reporting.fairness import verdict
from atp_eval.reporting.gallery import gallery_parts
from atp_eval.reporting.headline import headline
from atp_eval.reporting.page import file_address
from atp_eval.reporting.pareto import tradeoff_parts
from atp_eval.reporting.pictures import Pictures
from atp_eval.reporting.tokens import token_parts
from atp_eval.spreadsheet import csv_text

TINY = "tiny"  # the embedded model's name
SAID = ("model", "suite", "prompt", "image", "dtype", "limit")  # of the protocol, in captions
NOT_REPRODUCED = ("output", "resume")  # settings that say where a run lies, not what it is


class Export(NamedTuple):
    """A file that lies in the page."""

    name: str
    title: str
    address: Markup


class Section(NamedTuple):
    """A part of the page. needs: the name in the context that has to hold something for it to be there."""

    id: str
    title: str
    needs: str = "summary"

    @property
    def template(self) -> str:
        """The file in `reports/`."""
        return f"{self.id}.html.j2"


SECTIONS = (
    Section("results", "Results"),
    Section("tradeoff", "Cost", "tradeoff"),
    Section("heat", "Heat map", "has_retention"),
    Section("tokens", "Tokens", "tokens"),
    Section("adaptive", "Adaptivity", "adaptivity"),
    Section("fairness", "Budgets", "budgets"),
    Section("agreement", "Kept cells", "agreement"),
    Section("gallery", "Samples", "gallery"),
    Section("efficiency", "Time", "efficiency"),
    Section("bench", "Bench", "benches"),
    Section("claims", "Claims", "claims"),
    Section("protocol", "Protocol"),
    Section("issues", "Data issues"),
)


def contents(
    runs: Sequence[Run], summary: Summary, differences: str | None, samples: int, benches: Sequence[Path] = ()
) -> dict[str, Any]:
    """The template's context. samples: how many the gallery shows. benches: folders, besides those in the runs."""
    series, pictures = numbered(summary), Pictures()
    found: dict[str, Any] = {
        "summary": summary,
        "runs": runs,
        "run_names": run_names(runs),
        "differences": differences,
        "headline": headline(summary),
        "series": series,
        "best": significantly_best(summary),
        "has_retention": summary.has_retention,
        "budgets": summary.fairness.rows,
        "adaptivity": summary.adaptivity,
        "tradeoff": tradeoff_parts(summary, series),
        "tokens": token_parts(summary, series),
        "adaptive_words": adaptive_words(summary.adaptivity, summary.hindsight),
        "objects": objects_panels(summary.adaptivity, series),
        "fairness_words": verdict(summary.fairness),
        "agreement": agreement_parts(summary.agreement, summary.fairness, series),
        "gallery": gallery_parts(runs, series, pictures, samples) if samples else None,
        "pictures": pictures,
        "exhibits": Exhibits(),
        "efficiency": efficiency_parts(summary),
        "benches": bench_sections(
            find_benches([run.path for run in runs], benches), {m.label: series(m.label) for m in summary.methods}
        ),
        "claims": claims_parts(runs, summary),
        "is_tiny": any(run.manifest.protocol.get("model") == TINY for run in runs),
        "is_mini": any(run.manifest.protocol.get("suite") == "mini" for run in runs),
        "parameters": parameters(runs, summary),
        "hashes": {name: info.hash for run in reversed(runs) for name, info in run.manifest.benchmarks.items()},
        "commands": [command(run) for run in runs],
        "report_command": report_command(runs),
        "issues": find_issues(runs),
        "protocol": protocol_sentence(runs),
        "exports": exports(summary, protocol_sentence(runs)),
    }
    return found | {"sections": [s for s in SECTIONS if found[s.needs]]}


def exports(summary: Summary, protocol: str) -> list[Export]:
    """The comparison table as files that lie in the page."""
    return [
        Export("comparison.csv", "CSV", file_address("text/csv", csv_text(comparison_frame(summary)))),
        Export("comparison.md", "Markdown", file_address("text/markdown", markdown(summary))),
        Export("comparison.tex", "LaTeX", file_address("application/x-tex", latex_table(summary, protocol))),
    ]


def protocol_sentence(runs: Sequence[Run]) -> str:
    """Model, precision and prompt in a sentence, for captions; of several protocols, that there are several."""
    said = {
        ", ".join(f"{key} {value}" for key in SAID if (value := run.manifest.protocol.get(key)) is not None)
        for run in runs
    }
    return f"Protocol: {next(iter(said))}." if len(said) == 1 else "Rows follow different protocols."


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
