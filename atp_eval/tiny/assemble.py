"""Put the trained tower and language model together and write them as `from_pretrained` reads them.

python -m atp_eval.tiny.assemble --work FOLDER --stage all --out atp_eval/assets/tiny
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration

from ..models import tiny
from .features import load_tower
from .stages import STAGES, checkpoint


def assemble(work: Path, stage: str) -> LlavaForConditionalGeneration:
    """The whole model in fp32 after a stage that saw the tower's features; a ValueError for one that saw oracle
    tokens."""
    if STAGES[stage].oracle:
        raise ValueError(f"after stage {stage!r} the model knows oracle tokens only")
    model = tiny.build()
    load_tower(model, work)
    state = {k: v for k, v in load_file(checkpoint(work, stage)).items() if not k.startswith("oracle.")}
    _, unknown = model.load_state_dict(state, strict=False)
    if unknown:
        raise ValueError(f"{checkpoint(work, stage)} has weights that the model has not: {', '.join(unknown)}")
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--stage", choices=STAGES, default="all")
    parser.add_argument("--out", type=Path, default=tiny.folder())
    options = parser.parse_args()
    tiny.save(assemble(options.work, options.stage), options.out)
    size = sum(f.stat().st_size for f in options.out.iterdir())
    print(f"{options.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
