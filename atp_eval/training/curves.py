"""Training curves from `log.json`: losses, average tokens, thresholds and gradient norms against steps.

python -m atp_eval.training.curves OUTPUT [OUTPUT ...] --figure curves.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from atp_eval.errors import UserError
from atp_eval.plotting import PAGE, Chart, colour, write_chart

Log = Sequence[Mapping[str, Any]]
PANELS = ("loss_lm", "average_tokens", "theta", "grad_norm_modules")
TITLES = {
    "loss_lm": "language loss (nats an answer token)",
    "average_tokens": "visual tokens a layer, average",
    "theta": "mean thresholds: redundant, spatial (dashed)",
    "grad_norm_modules": "gradient norm of the modules",
}


def draw_curves(logs: Mapping[str, Log], figure: Path) -> None:
    """Write a figure of some trainings by name, of the kind that its ending says, with its data beside it (CSV)."""
    write_chart(chart(logs, figure.stem), figure.parent, (figure.suffix.lstrip(".") or "png",))


def chart(logs: Mapping[str, Log], name: str) -> Chart:
    """Eq. 13's average and Eq. 14's language loss over steps, theta_r (lines) and theta_s (dashed) of each prune layer,
    and gradient norms, which DeepSpeed does not log."""
    curves = [
        (training, panel, key, number, *series(log, key))
        for panel in PANELS
        for number, (training, log) in enumerate(logs.items(), 1)
        for key in _keys(log, panel)
    ]
    rows = [
        {"training": training, "number": key, "step": step, "value": value}
        for training, _, key, _, steps, values in curves
        for step, value in zip(steps, values, strict=True)
    ]
    ends = [f"{training} {key}: {values[-1]:.4g}" for training, _, key, _, _, values in curves if values]

    def draw(figure: Figure) -> None:
        axes = dict(zip(PANELS, figure.subplots(2, 2).flat, strict=True))
        for _, panel, key, number, steps, values in curves:
            dashed = key.startswith("theta_s")
            axes[panel].plot(steps, values, color=colour(number), linestyle="--" if dashed else "-")
            if panel == "theta" and steps:
                layer, offset = f"layer {key.rpartition('_')[2]}", (3, -2)
                end = (steps[-1], values[-1])
                axes[panel].annotate(layer, end, offset, textcoords="offset points", fontsize=6, color=colour(number))
        for panel, ax in axes.items():
            ax.set(title=TITLES[panel], xlabel="step")
            ax.margins(x=0.12 if panel == "theta" else 0.04)
        handles = [Line2D([], [], color=colour(number)) for number in range(1, len(logs) + 1)]
        figure.legend(handles, list(logs), loc="outside lower center", ncols=min(4, len(logs)))

    alt = f"Training curves: {', '.join(TITLES.values())}. At the end: {'; '.join(ends)}."
    return Chart(name, alt, pd.DataFrame(rows), draw, (PAGE, 5.0))


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
