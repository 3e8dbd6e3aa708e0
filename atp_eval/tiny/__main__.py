"""The whole training, from nothing to the folder of the shipped model.

    python -m atp_eval.tiny --work FOLDER --out FOLDER

Every step runs in a process of its own and leaves its result in the work folder; a step whose result is there is
skipped, so that the same command goes on where it stopped. The seconds are those of the shipped model, on two CPU
cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from ..models import tiny
from .stages import STAGES, checkpoint

SECONDS = {
    "vision": 1500, "ground": 400, "skills": 500, "oracle": 2600, "few": 720, "wide": 810, "late": 930, "all": 1800,
}  # fmt: skip


def steps(work: Path, out: Path, scale: float) -> list[tuple[str, Path, list[str]]]:
    """Name, what it leaves, and the module with its arguments."""
    seconds = {k: str(scale * v) for k, v in SECONDS.items()}
    where = ["--work", str(work)]
    language = [
        (name, checkpoint(work, name), ["language", *where, "--stage", name, "--seconds", seconds[name]])
        for name in STAGES
    ]
    deepen = ("deepen", checkpoint(work, "deep"), ["deepen", *where])
    language.insert(list(STAGES).index("late"), deepen)
    return [
        ("pictures", work / "train_labels.npy", ["pictures", *where]),
        ("vision", work / "tower.safetensors", ["vision", *where, "--seconds", seconds["vision"], "--threads", "2"]),
        ("features", work / "train_features.npy", ["features", *where, "--threads", "2"]),
        *language,
        ("assemble", out / "model.safetensors", ["assemble", *where, "--out", str(out)]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m atp_eval.tiny", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="for pictures and states, 7 GB")
    parser.add_argument("--out", type=Path, default=tiny.folder())
    parser.add_argument("--scale", type=float, default=1.0, help="of the seconds that each stage trains")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for name, result, (module, *arguments) in steps(options.work, options.out, options.scale):
        if result.exists() and options.work in result.parents:
            print(f"{name}: done before", flush=True)
            continue
        start = time.time()
        subprocess.run([sys.executable, "-m", f"{__package__}.{module}", *arguments], check=True)
        print(f"{name}: {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
