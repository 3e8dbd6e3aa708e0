"""What happened between two log lines: losses, tokens, thresholds, as means over steps and processes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from atp_eval.training.losses import share
from atp_eval.training.model import Passed

EVERY_STEP = ("loss_lm", "grad_norm_modules")  # the others need samples with an image


class Tally:
    """Sums since the last log, each of this process's parts of global means."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, name: str, value: Tensor) -> None:
        """Add a value, a number."""
        self._sums[name] = self._sums.get(name, torch.zeros_like(value, dtype=torch.float32)) + value.float()

    @torch.no_grad()
    def micro_batch(self, passed: Passed, layers: tuple[int, ...], images: Tensor) -> None:
        """Tokens and thresholds of each prune point, and the share of (sample, prune point) pairs that were rescued
        because no token passed. images: samples with an image in the whole step."""
        tokens = share(passed.tokens[: len(passed.theta)].sum(0), images)
        theta = share(passed.theta.sum(0), images)
        for index, layer in enumerate(layers):
            self.add(f"tokens_{layer}", tokens[index])
            self.add(f"theta_r_{layer}", theta[index, 0])
            self.add(f"theta_s_{layer}", theta[index, 1])
        self.add("rescued", share((~passed.passed).float().mean(1).sum(), images))

    def step(self, images: Tensor) -> None:
        """A step is complete."""
        self.add("steps", torch.ones_like(images))
        self.add("steps_with_image", (images > 0).float())

    def means(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Means over the steps since the last call; what needs images over those that had any, or left out.

        reduce: the mean over the processes; every process calls this.
        """
        if not self._sums:
            return {}
        names = sorted(self._sums)
        values = reduce(torch.stack([self._sums[name] for name in names])).tolist()
        found, self._sums = dict(zip(names, values, strict=True)), {}
        steps, pictured = found.pop("steps"), found.pop("steps_with_image")
        means = {name: found[name] / steps for name in EVERY_STEP if name in found}
        return means | ({n: value / pictured for n, value in found.items() if n not in means} if pictured else {})
