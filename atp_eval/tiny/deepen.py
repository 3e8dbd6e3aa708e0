"""Move the language model's layers down by one, so that it reads the picture one layer later.

    python -m atp_eval.tiny.deepen --work FOLDER

A model trained this far reads nearly everything in its first layer; what is pruned before the second then costs
nothing, and a suite asked of it could not fail a method. Here a layer that adds nothing yet (its output matrices are
zero) comes before the others, the last layer but one is left out to make room, and the stages that follow hide the
visual tokens from the text in the first layer for most rows. Nothing here knows of scores or of pruning.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .stages import checkpoint

LEFT_OUT = 6  # of 8; without any one of layers 2 and 4 to 7 the answers get about equally worse
LAYERS = "model.language_model.layers."


def deepen(state: dict[str, Tensor], layers: int = 8, left_out: int = LEFT_OUT) -> dict[str, Tensor]:
    """The weights of a language model of as many layers, the first of them new: a copy of the old first layer's
    attention and MLP whose outputs are zero."""
    out = {name: tensor for name, tensor in state.items() if not name.startswith(LAYERS)}
    for new, old in enumerate([0, *(i for i in range(layers) if i != left_out)]):
        for name, tensor in state.items():
            if name.startswith(f"{LAYERS}{old}."):
                silent = new == 0 and ("o_proj" in name or "down_proj" in name)
                to = f"{LAYERS}{new}.{name.removeprefix(f'{LAYERS}{old}.')}"
                out[to] = torch.zeros_like(tensor) if silent else tensor.clone()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--start", default="wide", help="the stage to go on from")
    options = parser.parse_args()
    save_file(deepen(load_file(checkpoint(options.work, options.start))), checkpoint(options.work, "deep"))


if __name__ == "__main__":
    main()
