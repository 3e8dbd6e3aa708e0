"""The manifest of a run: what was run on what, and whether a folder's earlier run followed the same protocol."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import atp_eval
from atp_eval import driver
from atp_eval.benchmarks import Benchmark, whole_groups
from atp_eval.config import RunConfig
from atp_eval.errors import UserError
from atp_eval.methods import Method
from atp_eval.models import Bundle
from atp_eval.records import MANIFEST, BenchmarkInfo, Manifest, read_run

if TYPE_CHECKING:
    from lmms_eval.api.task import Task

PACKAGES = ("lmms-eval", "torch", "transformers", "datasets", "numpy", "pillow")


def make_manifest(
    config: RunConfig,
    bundle: Bundle,
    methods: dict[str, Method],
    benchmarks: list[Benchmark],
    tasks: dict[str, Task],
    folder: Path,
) -> Manifest:
    """The manifest of a run, together with what the folder holds already.

    Raises UserError when the folder was made under another protocol, and names what differs.
    """
    protocol = {
        **config.protocol_options(),
        "model": bundle.model_id,
        "weights": bundle.weight_hash,
        "dtype": str(bundle.dtype).removeprefix("torch."),
    }
    infos = {
        b.name: BenchmarkInfo(
            task=b.task(config.resolved_suite),
            hash=driver.task_hash(tasks[b.name]),
            documents=driver.documents(tasks[b.name], whole_groups(b, config.limit)),
            metric=b.metric,
            scale=b.scale_of(config.resolved_suite),
            aggregation=b.aggregation,
        )
        for b in benchmarks
    }
    manifest = Manifest(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        atp_eval=atp_eval.__version__,
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
        model={"id": bundle.model_id, "weights": bundle.weight_hash, "geometry": asdict(bundle.geometry)},
        protocol=protocol,
        config=config.model_dump(mode="json"),
        benchmarks=infos,
        methods={label: method_info(m) for label, m in methods.items()},
        device=device_name(bundle),
        git_commit=git_commit(),
    )
    if not (folder / MANIFEST).exists():
        return manifest
    old = read_run(folder).manifest
    changed = [k for k in protocol if old.protocol.get(k) != protocol[k]]
    changed += [
        f"{k} (its data or prompts)" for k in infos if k in old.benchmarks and old.benchmarks[k].hash != infos[k].hash
    ]
    changed += [
        f"{label} (its adapter)"
        for label, info in manifest.methods.items()
        if label in old.methods and old.methods[label].get("weights") != info.get("weights")
    ]
    if changed:
        raise UserError(
            f"{folder} holds a run of another protocol: {', '.join(changed)} differ. "
            "Choose another folder with --output, or delete that one."
        )
    return manifest.model_copy(
        update={
            "created": old.created,
            "benchmarks": {**old.benchmarks, **infos},
            "methods": {**old.methods, **manifest.methods},
            "seconds": old.seconds,
        }
    )


def method_info(method: Method) -> dict[str, Any]:
    """A solved method for people and for the manifest."""
    info = {"solved": str(method), "prune_layers": list(method.prune_layers), "early": method.early}
    return info if method.weights is None else {**info, "weights": method.weights}


def device_name(bundle: Bundle) -> str:
    """The device with the name of the card or processor."""
    if bundle.device.type == "cuda":
        return f"{bundle.device} ({torch.cuda.get_device_name(bundle.device)})"
    threads = torch.get_num_threads()
    return f"{bundle.device} ({platform.machine()}, {threads} thread{'s' if threads > 1 else ''})"


def git_commit() -> str | None:
    """The commit of the working folder, when it is a checkout."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
