"""What prefill.py measured, for people: the table, the targets and the figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from side_by_side import shown, spread
from subjects import AS_WRITTEN, NO_RECYCLING
from targets import Target
from targets import markdown as target_table

from atp_eval.methods.budget import PAPER_LAYERS
from atp_eval.plotting import INK, PAGE, SERIES, Chart, Margins, plot_area

AIMS = {"fastv@144": 3.4, "atp@144": 3.4, "fastv@88": 4.3, "atp@88": 4.3}
AS_WRITTEN_AIM = 1.05
UNPRUNED = "upper_bound"
CHOOSING_AIM = 0.5  # per cent of a prefill
CHOOSERS = ("atp@144", "atp@88", "fastv@144", "fastv@88", f"sparsevlm@144{NO_RECYCLING}")


def target_rows(result: dict[str, Any]) -> Iterator[Target]:
    """Of what was measured, what has an aim; all of 32 layers."""
    rows = {row["method"]: row for row in result["rows"]}
    length = result["prompt"]["visual_tokens"] + result["prompt"]["text_tokens"]
    setting = result["setting"]
    about = f"L = {length}, {setting['dtype']}"
    if (layers := result["geometry"]["layers"]) != PAPER_LAYERS:
        about += f", {layers} layers timed, computed for {PAPER_LAYERS}"
    command = result["command"]
    for name, aim in AIMS.items():
        if name in rows and result["rows"][0]["method"] == UNPRUNED:  # what speed-ups are against
            deep = rows[name]["at_32"]
            against = f"unpruned, {setting['attention']}"
            yield Target(f"prefill, `{name}`, {about}", against, aim, deep["speedup"], command=command,
                         by_operations=deep["by_operations"])  # fmt: skip
    for written, plain in ((name, name.removesuffix(AS_WRITTEN)) for name in rows if name.endswith(AS_WRITTEN)):
        if plain in rows:
            one, other = rows[written]["at_32"], rows[plain]["at_32"]
            ratio = spread(np.array(one["seconds"]) / np.array(other["seconds"]))
            yield Target(f"prefill, `{plain}`, {about}", "the same as its authors wrote it", AS_WRITTEN_AIM, ratio,
                         command=command, by_operations=other["by_operations"] / one["by_operations"])  # fmt: skip
    for name in CHOOSERS:
        if name in rows:
            found = rows[name]["at_32"]["choosing_share"]
            shares = [None if share is None else 100 * share for share in found]
            yield Target(f"scores and decisions, `{name}`, {about}", "its prefill", CHOOSING_AIM, shares, "%",
                         "at most", command)  # fmt: skip


def percent(values: Sequence[float | None]) -> str:
    """Shares in per cent."""
    return shown([None if x is None else 100 * x for x in values])


def markdown(result: dict[str, Any]) -> str:
    """Two tables, of methods and of targets, with a line about the setting."""
    setting, prompt, layers = result["setting"], result["prompt"], result["geometry"]["layers"]
    heads = ("method", "tokens", f"{setting['clock']} seconds", "speed-up", "choosing, %", "pruning, %",
             "reads a point", "KV, MB", "at 32: tokens", "speed-up", "by operations", "choosing, %",
             "pruning, %")  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|--:" * (len(heads) - 1) + "|"]
    for row in result["rows"]:
        deep = row["at_32"]
        cells = (
            f"`{row['method']}`",
            f"{row['average_visual_tokens']:.1f}",
            shown(row["seconds"]),
            shown(row["speedup"]),
            percent(row["choosing_share"]),
            percent(row["pruning_share"]),
            f"{row['reads_a_point']:g}",
            f"{row['kv_bytes'] / 1e6:.0f}",
            f"{deep['average_visual_tokens']:.1f}",
            shown(deep["speedup"]),
            f"{deep['by_operations']:.2f}",
            percent(deep["choosing_share"]),
            percent(deep["pruning_share"]),
        )
        lines.append("| " + " | ".join(cells) + " |")
    alike = [
        f"`{row['method']}` kept {same} of the {all_of} cells that atp_eval's keeps. "
        for row in result["rows"]
        if "cells_kept_alike" in row
        for same, all_of in [row["cells_kept_alike"]]
    ]
    lines += [
        "",
        f"Prefill of {prompt['visual_tokens']} visual and {prompt['text_tokens']} text tokens, batch "
        f"{prompt['batch']}, {layers} layers, {setting['dtype']}, {setting['attention']}; {setting['device']}, "
        f"{setting['threads']} threads, load {setting['load']:.1f}; torch {setting['torch']}, transformers "
        f"{setting['transformers']}. Medians of {setting['repeats']} interleaved rounds [95 % interval]; speed-ups "
        "over the first row, within a round. Choosing: scores, modules and decisions; pruning: choosing, dropping and "
        f"masks. At 32: computed for 32 layers from these times. {''.join(alike)}",
    ]
    targets = [Target(**target) for target in result["targets"]]
    return "\n".join(lines) + "\n" + (f"\n{target_table(targets)}" if targets else "")


def chart(result: dict[str, Any]) -> Chart:
    """Speed-ups at 32 layers: measured, by operations, and what is aimed at."""
    rows = [
        {
            "method": row["method"],
            "measured": row["at_32"]["speedup"][0],
            "low": row["at_32"]["speedup"][1],
            "high": row["at_32"]["speedup"][2],
            "by_operations": row["at_32"]["by_operations"],
            "aim": AIMS.get(row["method"]),
        }
        for row in result["rows"][1:]
    ]
    data = pd.DataFrame(rows)

    def draw(figure: Figure) -> None:
        axes = plot_area(figure, MARGINS)
        places = range(len(data))[::-1]
        for place, row in zip(places, rows, strict=True):
            if row["low"] is not None:
                axes.plot([row["low"], row["high"]], [place] * 2, color=SERIES[0], linewidth=2.2)
            if row["aim"] is not None:
                axes.plot([row["aim"]] * 2, [place - 0.32, place + 0.32], color=SERIES[1], linewidth=1.6)
        axes.plot(data["measured"], places, "o", color=SERIES[0], label="measured, median")
        axes.plot(data["by_operations"], places, "D", color=INK, fillstyle="none", label="by operations")
        axes.plot([], [], color=SERIES[1], label="aim")
        axes.set_yticks(list(places), data["method"])
        axes.set_ylim(-0.6, len(data) - 0.4)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"times as fast as {result['rows'][0]['method']}, prefill at 32 layers")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)

    said = ", ".join(f"{r['method']} {r['measured']:.2f} ({r['by_operations']:.2f} by operations)" for r in rows)
    return Chart("prefill", f"Speed-up of prefill at 32 layers: {said}.", data, draw, (PAGE, 1.1 + 0.34 * len(data)))


MARGINS = Margins(left=2.3, bottom=0.5, right=0.15, top=0.36)
