"""One run by many processes: are the answers those of one, and what is lost when a process or a machine dies?

    python benchmarks/many_processes.py --json many.json      # about six minutes on 2 cores

The embedded model answers two benchmarks with three methods, in turn

- alone, in one process: all others are compared with its records and scores;
- as two ranks of torchrun;
- as two ranks of which one is killed (SIGKILL) in the middle; the same command then goes on with three;
- as actors of a Ray cluster of two nodes (`ray start`, `--ray auto`), of which an actor is killed in the middle;
- the same, of which one node is killed with all that runs on it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from atp_eval.parts import PARTS
from atp_eval.records import SAMPLES, read_run

COMPARED = ["method", "benchmark", "doc_id", "image_id", "response", "error", "new_tokens", "trace", "score"]
Victim = Callable[[Path], int | None]


def arguments(options: argparse.Namespace, folder: Path) -> list[str]:
    """The run."""
    return [
        *("-m", "atp_eval", "run", "--model", options.model, "--suite", "mini", "--tasks", options.tasks),
        *("--methods", options.methods, "--limit", str(options.limit), "--batch-size", "8", "--keep-images", "0"),
        *("--output", str(folder), "--json"),
    ]


def torchrun(ranks: int) -> list[str]:
    """Its start, for so many ranks."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]


def written(folder: Path) -> int:
    """Rows of a run folder and its parts."""
    paths = [*folder.glob(f"*/*/{SAMPLES}"), *(folder / PARTS).glob(f"*/*/*/{SAMPLES}")]
    return sum(path.read_bytes().count(b"\n") for path in paths if path.exists())


def owner(folder: Path, part: str) -> int | None:
    """The process that writes a part in which something is answered."""
    for samples in (folder / PARTS).glob(f"{part}/*/*/{SAMPLES}"):
        lock = samples.parents[2] / ".owner"
        if samples.stat().st_size and lock.exists():
            return int(lock.read_text())
    return None


def start(command: list[str], folder: Path, kill: Victim | None = None, after: int = 0) -> dict[str, Any]:
    """A run to its end: seconds, exit code, its last line on standard error, the rows there when `kill` struck, once
    `after` rows were written, and the rows there in the end."""
    began, left = time.perf_counter(), None
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    log = folder.parent / f"{folder.name}.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
        while process.poll() is None:
            if kill is not None and left is None and (rows := written(folder)) >= after and (pid := kill(folder)):
                os.kill(pid, signal.SIGKILL)
                left = rows
            time.sleep(0.01)
    said = [line for line in log.read_text(errors="replace").splitlines() if "atp-eval:" in line or " died of " in line]
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "code": process.returncode,
        "killed_after": left,
        "rows": written(folder),
        "said": said[-1] if said else "",
    }


def outcome(folder: Path) -> tuple[pd.DataFrame, list[tuple[str, str, float]]]:
    """What every run must have in common."""
    run = read_run(folder)
    rows = run.samples()[COMPARED].sort_values(COMPARED[:3]).reset_index(drop=True)
    return rows, sorted((r.method, r.benchmark, r.score) for r in run.results())


def same(folder: Path, expected: tuple[pd.DataFrame, list[tuple[str, str, float]]]) -> bool:
    """Whether a run has the records and scores of the first, each row once."""
    rows, scores = outcome(folder)
    return rows.equals(expected[0]) and scores == expected[1] and written(folder) == len(rows)


@contextmanager
def cluster(folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two nodes of Ray on this machine, each with a core; their processes, the head's first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "1", "--disable-usage-stats"]
    ray += ["--object-store-memory", str(100 * 2**20)]
    head = ["--head", "--port", str(port), "--node-ip-address", "127.0.0.1", "--include-dashboard", "false"]
    nodes: list[subprocess.Popen[bytes]] = []
    os.environ |= {
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    with (folder / "ray.log").open("w") as log:
        try:
            for more in (head, ["--address", f"127.0.0.1:{port}", "--node-ip-address", "127.0.0.1"]):
                nodes.append(subprocess.Popen([*ray, *more], stdout=log, stderr=log, start_new_session=True))
                time.sleep(12)
            yield nodes
        finally:
            for node in reversed(nodes):
                node.terminate()
            for node in nodes:
                try:
                    node.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(node.pid, signal.SIGKILL)


def killed_node(nodes: list[subprocess.Popen[bytes]]) -> Victim:
    """Kills the second node with everything on it, once it works; nothing is left to kill for the caller."""

    def kill(folder: Path) -> int | None:
        busy = {int(path.read_text()) for path in (folder / PARTS).glob("*/.owner") if path.read_text()}
        group = [pid for pid in busy if lives_in(pid, nodes[1].pid)]
        if not group:
            return None
        for pid in descendants(nodes[1].pid):
            os.kill(pid, signal.SIGKILL)
        return nodes[1].pid

    return kill


def parents() -> dict[int, int]:
    """The parent of every process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    return found


def descendants(root: int) -> list[int]:
    """All processes below one."""
    known, found = parents(), [root]
    for pid in found:
        found += [child for child, parent in known.items() if parent == pid]
    return found[1:]


def lives_in(pid: int, root: int) -> bool:
    """Whether a process is below another."""
    return pid in descendants(root)


def measure(options: argparse.Namespace, top: Path) -> dict[str, Any]:
    """All ways, one after the other."""
    python, result = [sys.executable], {}
    one = top / "alone"
    result["one process"] = start([*python, *arguments(options, one)], one)
    expected = outcome(one)
    total = len(expected[0])

    def noted(name: str, folder: Path, found: dict[str, Any]) -> None:
        finished = found["code"] == 0
        result[name] = found | {"identical": same(folder, expected)} if finished else found
        said = [f"{name}: {found['seconds']:.0f} s, exit code {found['code']}"]
        if found["killed_after"] is not None:
            said.append(f"killed after {found['killed_after']} of {total} rows, {found['rows']} there in the end")
        if finished:
            said.append("identical" if result[name]["identical"] else "DIFFERENT")
        print(", ".join(said), *([f"    {found['said']}"] if found["said"] else []), sep="\n", flush=True)

    print(f"one process: {result['one process']['seconds']:.0f} s, {total} rows", flush=True)
    two = top / "two-ranks"
    noted("two ranks", two, start([*torchrun(2), *arguments(options, two)], two))
    torn, half = top / "killed-rank", total // 3
    kill_rank: Victim = lambda folder: owner(folder, "rank-1")  # noqa: E731
    noted("two ranks, one killed", torn, start([*torchrun(2), *arguments(options, torn)], torn, kill_rank, half))
    noted("gone on with three ranks", torn, start([*torchrun(3), *arguments(options, torn)], torn))
    if not options.no_ray:
        for name, node in (("Ray, an actor killed", False), ("Ray, a node killed", True)):
            folder = top / ("killed-node" if node else "killed-actor")
            with cluster(top) as nodes:
                kill = killed_node(nodes) if node else lambda folder: owner(folder, "*")
                run = [*python, *arguments(options, folder), "--ray", "auto", "--workers", "2"]
                noted(name, folder, start(run, folder, kill, half))
    return {"rows": total, "ways": result}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--tasks", default="gqa,mme")
    parser.add_argument("--methods", default="upper_bound,fastv@144,random@144")
    parser.add_argument("--limit", type=int, default=150, help="questions of each benchmark [150]")
    parser.add_argument("--no-ray", action="store_true", help="ranks of torchrun only")
    parser.add_argument("--work", type=Path, help="folder for the runs, kept [a temporary one]")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # with equal threads nothing differs, not even in the last bit
    with tempfile.TemporaryDirectory() as temporary:
        top = (options.work or Path(temporary)).resolve()
        top.mkdir(parents=True, exist_ok=True)
        result = measure(options, top)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return 0 if passed(result["ways"]) else 1


def passed(ways: dict[str, dict[str, Any]]) -> bool:
    """Whether the killed rank was named, and every way that was to end well has the answers of one process."""
    named = re.search(r"rank 1 of 2 .* died", ways["two ranks, one killed"]["said"])
    others = (found for way, found in ways.items() if way not in ("one process", "two ranks, one killed"))
    return bool(named) and all(found.get("identical", False) for found in others)


if __name__ == "__main__":
    sys.exit(main())
