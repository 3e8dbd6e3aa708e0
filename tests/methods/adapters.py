"""ATP adapters for the small models of the tests: random threshold modules, saved as training saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from atp_eval.engine import model_geometry
from atp_eval.engine.fingerprint import fingerprint
from atp_eval.methods.atp import Adapter, AdapterConfig, AtpOptions, BaseModelId, new_modules

# Those of the test matrix by name: their options, or None for one that keeps every token.
ADAPTERS: dict[str, dict[str, Any] | None] = {
    "all": None,
    "plain": {},
    "late": {"layers": (2, 4), "score_norm": "rel"},
    "causal": {"score_norm": "rank", "causal_self": True, "rules": "redundant"},
    "spatial": {"layers": (1, 2, 4), "rules": "spatial"},
    "cross": {"scores": "cross", "score_norm": "zscore"},
    "mix": {"learned_mix": True},
    "literal": {"score_norm": "none"},
}


def random_adapter(model: Any, *, seed: int = 1, keep_all: bool = False, **options: Any) -> Adapter:
    """Thresholds that differ from sample to sample and prune point to prune point, or (keep_all) are exactly 0."""
    geometry = model_geometry(model.config)
    chosen = AtpOptions(**{"layers": (1, 3), "hidden": 8, **options})
    base = BaseModelId(id="small", fingerprint=fingerprint(model), num_layers=geometry.num_layers, grid=geometry.grid)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules = new_modules(chosen)
        for module in modules:
            for head in (module.head_r, module.head_s):
                nn.init.normal_(head.weight, std=0.0 if keep_all else 2.0)
                nn.init.constant_(head.bias, -1e4 if keep_all else 0.5)
            if chosen.learned_mix:
                nn.init.normal_(module.mix_logit)
        points = len(chosen.layers)
        theta, counts = torch.rand(points, 2), torch.randint(1, geometry.cells + 1, (20, points))
    counts = counts.sort(1, descending=True).values
    return Adapter(AdapterConfig(base=base, options=chosen), modules.eval().requires_grad_(False), theta, counts)


def write_adapters(model: Any, folder: Path) -> None:
    """Every adapter of the matrix, each in a folder of its name."""
    for name, options in ADAPTERS.items():
        random_adapter(model, keep_all=options is None, **(options or {})).save(folder / name)
