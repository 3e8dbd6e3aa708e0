"""`atp-eval doctor`: is everything here that a run needs, and if not, how to get it."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.version import Version
from rich.table import Table

GIB = 2**30


class Check(NamedTuple):
    """One thing that was looked at: `fix` says what to do where it is not well."""

    name: str
    found: str
    ok: bool
    fix: str = ""


def checks() -> list[Check]:
    """Everything that a run needs, looked at in the order in which a run needs it."""
    return [python(), *packages(), *devices(), embedded_model(), plugin(), disk(), browser()]


def python() -> Check:
    """The interpreter's version."""
    found = platform.python_version()
    return Check("python", found, (3, 10) <= sys.version_info[:2] < (3, 14), "use Python 3.10 to 3.13")


def packages() -> list[Check]:
    """The direct dependencies against the ranges that this version was tested with."""
    found = []
    try:
        lines = importlib.metadata.requires("atp-eval") or []
    except importlib.metadata.PackageNotFoundError:  # `python cli.py doctor` in a checkout
        return [Check("atp-eval", "not installed", False, "pip install -e .")]
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
            ok = requirement.specifier.contains(Version(version), prereleases=True)
        except importlib.metadata.PackageNotFoundError:
            version, ok = "missing", False
        found.append(Check(requirement.name, version, ok, f"pip install '{requirement.name}{requirement.specifier}'"))
    return found


def devices() -> list[Check]:
    """What torch computes on; a CPU is enough for the embedded model."""
    import torch

    found = [Check("cpu", f"{torch.get_num_threads()} threads", True)]
    for i in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(i)
        found.append(Check(f"cuda:{i}", f"{card.name}, {card.total_memory / GIB:.0f} GiB", True))
    return found


def embedded_model() -> Check:
    """The weights that the package carries."""
    from atp_eval.models import tiny

    weights = tiny.folder() / "model.safetensors"
    found = f"{weights.stat().st_size / 2**20:.1f} MiB" if weights.exists() else "missing"
    return Check("embedded model", found, weights.exists(), "install the package again, or train it: make tiny")


def plugin() -> Check:
    """Whether lmms-eval's own command line finds the backend."""
    names = [point.name for point in importlib.metadata.entry_points(group="lmms_eval.models")]
    ok = "atp_eval" in names
    return Check("lmms-eval plugin", "found" if ok else "missing", ok, "install the package again: pip install -e .")


def disk() -> Check:
    """Room for run folders where the command was started."""
    free = shutil.disk_usage(Path.cwd()).free / GIB
    return Check("free disk", f"{free:.0f} GiB", free > 1, "make room, or choose another disk with --output")


def browser() -> Check:
    """Chromium is needed by the project's own tests only, so its absence is no fault."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    return Check("chromium (tests only)", "found" if found else "not found", True)


def table(found: list[Check]) -> Table:
    """The checks as a table, with the fix beside what is not well."""
    result = Table(title="atp-eval doctor", title_justify="left")
    for column in ("", "what", "found", "fix"):
        result.add_column(column, overflow="fold")
    for check in found:
        mark = "[green]ok[/green]" if check.ok else "[red]no[/red]"
        result.add_row(mark, check.name, check.found, "" if check.ok else check.fix)
    return result
