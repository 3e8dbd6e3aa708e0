"""Training curves from `log.json`: losses, average tokens, thresholds and gradient norms against steps.

python -m atp_eval.training.curves OUTPUT [OUTPUT ...] --figure curves.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from atp_eval.errors import UserError

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import seaborn as sns

Log = Sequence[Mapping[str, Any]]
PANELS = ("loss_lm", "average_tokens", "theta", "grad_norm_modules")
TITLES = {
    "loss_lm": "language loss (nats an answer token)",
    "average_tokens": "visual tokens a layer, average",
    "theta": "mean thresholds: redundant, spatial (dashed)",
    "grad_norm_modules": "gradient norm of the modules",
}


def draw_curves(logs: Mapping[str, Log], figure: Path) -> None:
    """One figure of some trainings by name: Eq. 13's average and Eq. 14's language loss over steps, theta_r (lines) and
    theta_s (dashed) of each prune layer, and gradient norms, which DeepSpeed does not log."""
    sns.set_theme(style="whitegrid", context="paper")
    panels, axes = plt.subplots(2, 2, figsize=(9, 6), constrained_layout=True, squeeze=False)
    colours = sns.color_palette("colorblind", len(logs))
    for ax, panel in zip(axes.flat, PANELS, strict=True):
        for (name, log), colour in zip(logs.items(), colours, strict=True):
            for key in _keys(log, panel):
                steps, values = series(log, key)
                dashed = key.startswith("theta_s")
                ax.plot(steps, values, color=colour, linestyle="--" if dashed else "-", label=name, linewidth=1.4)
                if panel == "theta" and steps:
                    layer = f"layer {key.rpartition('_')[2]}"
                    ax.annotate(
                        layer, (steps[-1], values[-1]), (3, -2), textcoords="offset points", fontsize=6, color=colour
                    )
        ax.set(title=TITLES[panel], xlabel="step")
        ax.margins(x=0.12 if panel == "theta" else 0.04)
    handles = [plt.Line2D([], [], color=colour) for colour in colours]
    panels.legend(handles, list(logs), loc="outside lower center", ncols=min(4, len(logs)))
    figure.parent.mkdir(parents=True, exist_ok=True)
    panels.savefig(figure, dpi=130)
    plt.close(panels)


def series(log: Log, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one logged number."""
    rows = [row for row in log if key in row]
    return [int(row["step"]) for row in rows], [float(row[key]) for row in rows]


def read_log(output: Path) -> Log:
    """`log.json` of a training's output folder. Raises UserError where there is none."""
    path = output / "log.json"
    try:
        found: Log = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path} is no log of a training; name the output folder of a finished one") from None
    return found


def _keys(log: Log, panel: str) -> Iterable[str]:
    """The logged numbers of a panel."""
    if panel != "theta":
        return [panel]
    return list(dict.fromkeys(key for row in log for key in row if key.startswith("theta_")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", type=Path, nargs="+", help="output folders of trainings, or NAME=FOLDER")
    parser.add_argument("--figure", type=Path, default=Path("curves.png"))
    options = parser.parse_args()
    named = [str(path).partition("=") for path in options.outputs]
    logs = {name if equals else Path(name).name: read_log(Path(folder or name)) for name, equals, folder in named}
    try:
        draw_curves(logs, options.figure)
    except OSError as error:
        raise SystemExit(f"cannot write {options.figure}: {error.strerror}") from None
    print(options.figure)


if __name__ == "__main__":
    main()
