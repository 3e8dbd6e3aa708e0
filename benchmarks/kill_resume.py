"""Kill runs with SIGKILL at random moments, resume them, and compare every record with those of an unbroken run.

    python benchmarks/kill_resume.py --times 10 --json kill_resume.json

Each round starts `atp-eval run` in a new folder, kills it between its first and its last answer, runs the same command
again to the end, and compares answers, kept tokens and scores.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from atp_eval.records import SAMPLES, read_run

COMPARED = ["method", "benchmark", "doc_id", "image_id", "response", "error", "new_tokens", "trace", "score"]


def command(options: argparse.Namespace, folder: Path) -> list[str]:
    """The run to be killed."""
    return [
        *(sys.executable, "-m", "atp_eval", "run", "--model", options.model, "--suite", "mini"),
        *("--tasks", options.tasks, "--methods", options.methods, "--limit", str(options.limit)),
        *("--batch-size", "8", "--output", str(folder), "--json"),
    ]


def answers(folder: Path) -> int:
    """Rows on the disk."""
    return sum(path.read_bytes().count(b"\n") for path in folder.glob(f"*/*/{SAMPLES}"))


def outcome(folder: Path) -> pd.DataFrame:
    """What a resumed run must have in common with an unbroken one."""
    return read_run(folder).samples()[COMPARED].sort_values(COMPARED[:3]).reset_index(drop=True)


def kill(options: argparse.Namespace, folder: Path, at: int) -> int:
    """Start a run and kill it once `at` rows are on the disk, plus a random fraction of a batch; rows that it left."""
    process = subprocess.Popen(command(options, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while answers(folder) < at and process.poll() is None:
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    process.wait()
    return answers(folder)


def main() -> None:
    """Run the rounds and say how many ended with identical records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--tasks", default="gqa,mmb")
    parser.add_argument("--methods", default="upper_bound,fastv@144,random@144")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, help="write the rounds to this file")
    options = parser.parse_args()
    random.seed(options.seed)
    rounds = []
    with tempfile.TemporaryDirectory() as top:
        whole = Path(top) / "unbroken"
        subprocess.run(command(options, whole), check=True, stdout=subprocess.DEVNULL)
        expected, total = outcome(whole), answers(whole)
        for number in range(options.times):
            folder = Path(top) / f"killed-{number}"
            left = kill(options, folder, random.randrange(1, total))
            subprocess.run(command(options, folder), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            same = outcome(folder).equals(expected) and answers(folder) == total
            rounds.append({"killed_after": left, "of": total, "identical": same})
            print(f"{number + 1}: killed after {left} of {total} rows, resumed: {'identical' if same else 'DIFFERENT'}")
    identical = sum(r["identical"] for r in rounds)
    print(f"{identical} of {len(rounds)} killed runs resumed to identical records")
    if options.json:
        options.json.write_text(json.dumps({"identical": identical, "rounds": rounds}, indent=1), encoding="utf-8")
    sys.exit(identical != len(rounds))


if __name__ == "__main__":
    main()
