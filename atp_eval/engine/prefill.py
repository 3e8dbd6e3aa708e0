"""The state of one pruned prefill and of the decoding that follows it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from atp_eval.engine.layout import Layout, Prompts, gather
from atp_eval.engine.point import Attention, PrunePoint
from atp_eval.methods import Geometry, Method
from atp_eval.trace import KeepTrace, Stage


@dataclass
class DeviceStage:
    """A prune point as it lies on the device: [samples with an image, V] bool each."""

    layer: int
    keep: Tensor
    merged: Tensor


class Prefill:
    """Rows of a batch are samples, or `beams` equal rows for each; a method is asked once a sample.

    `layouts[i]` is the layout of prune point i's layer and of those after it, `layouts[-1]` the current one.
    """

    def __init__(
        self, geometry: Geometry, prompts: Prompts, beams: int, input_ids: Tensor, names: list[str] | None
    ) -> None:
        """names: of the samples; None to make them from the prompts."""
        self.geometry = geometry
        self.start = prompts.layout
        self.layouts: list[Layout] = []
        self.stages: list[DeviceStage] = []
        self.rotary: tuple[Tensor, ...] | None = None
        self.has_image = prompts.has_image[::beams]
        self._names = names
        self._input_ids = input_ids
        self._beams = beams
        self._visual = [geometry.cells] * sum(self.has_image)
        firsts = [sample * beams for sample, has in enumerate(self.has_image) if has]
        self._whole = len(firsts) == len(input_ids)
        self._firsts = torch.tensor(firsts, device=input_ids.device)  # the row that stands for each sample
        place = {row: i for i, row in enumerate(firsts)}
        self._place = torch.tensor(
            [place.get(row // beams * beams, 0) for row in range(len(input_ids))], device=input_ids.device
        )
        text = torch.tensor([prompts.text[row] for row in firsts], device=input_ids.device)
        slots = torch.arange(max(prompts.text, default=0), 0, -1, device=input_ids.device)
        self._text = slots <= text[:, None]  # [samples, T]: which of the last T slots are text after the image

    @property
    def layout(self) -> Layout:
        """The layout after the last prune point so far."""
        return self.layouts[-1] if self.layouts else self.start

    def prune(self, method: Method, layer: int, hidden: Tensor, attention: Attention | None) -> Tensor:
        """Ask the method what enters `layer` and return those hidden states: [rows, L, D] -> [rows, L', D].

        Waits for the device only where the method does not say how many tokens stay.
        """
        layout = self.layout
        mine = Layout(self._pick(layout.valid), self._pick(layout.cell), layout.lengths, layout.cells)
        if attention is not None:
            attention = Attention(self._pick(attention.query), self._pick(attention.key), attention.scaling)
        point = PrunePoint(
            layer, self.geometry.grid, mine, self._text, lambda: self._pick(hidden), attention, self._sample_ids
        )
        decision = method.decide(point)
        before = self.stages[-1].merged if self.stages else torch.zeros_like(decision.keep)
        stay, merged = decision.keep & point.kept, before & decision.keep
        if decision.carry is not None and decision.values is not None:
            stay, merged = stay | decision.carry, merged | decision.carry
            hidden = self._replace(hidden, decision.carry, decision.values)
        self.stages.append(DeviceStage(layer, stay & ~merged, merged))
        lengths = self._lengths(stay, decision.count)
        layout, index = layout.drop(self._spread(stay), lengths)
        self.layouts.append(layout)
        assert self.rotary is not None, "set when the first pruned layer is entered"
        self.rotary = tuple(gather(t, index) for t in self.rotary)
        return gather(hidden, index)

    def traces(self) -> list[KeepTrace]:
        """One per sample, in the order of the batch. Waits for the device."""
        stages = [(s.layer, s.keep.cpu().numpy(), s.merged.sum(1).tolist()) for s in self.stages]
        traces, image = [], 0
        for has_image in self.has_image:
            if has_image:
                steps = tuple(Stage(layer, keep[image], merged[image]) for layer, keep, merged in stages)
                traces.append(KeepTrace(self.geometry.grid, self.geometry.num_layers, steps))
                image += 1
            else:
                traces.append(KeepTrace((0, 0), self.geometry.num_layers))
        return traces

    def _pick(self, x: Tensor) -> Tensor:
        """Rows of the batch -> samples with an image."""
        return x if self._whole else x[self._firsts]

    def _spread(self, x: Tensor) -> Tensor:
        """Samples with an image -> rows of the batch; rows without an image have no cells and may hold anything."""
        return x if self._whole else x[self._place]

    def _replace(self, hidden: Tensor, carry: Tensor, values: Tensor) -> Tensor:
        """Put merged tokens into the slots of the cells that carry them."""
        slots = self.layout.to_slots(self._spread(carry), False)
        return torch.where(slots[..., None], self.layout.to_slots(self._spread(values), 0).to(hidden.dtype), hidden)

    def _lengths(self, stay: Tensor, count: int | None) -> list[int]:
        """Tokens of each row once only `stay` [samples, V] stays."""
        now = stay.sum(1).tolist() if count is None else [count] * len(stay)
        lost = iter([before - after for before, after in zip(self._visual, now, strict=True)])
        per_sample = [next(lost) if has else 0 for has in self.has_image]
        self._visual = now
        return [length - per_sample[row // self._beams] for row, length in enumerate(self.layout.lengths)]

    def _sample_ids(self) -> list[str]:
        """Names of the samples with an image; without given ones, a hash of each prompt's token ids."""
        if self._names is not None:
            return [name for name, has in zip(self._names, self.has_image, strict=True) if has]
        ids, valid = self._pick(self._input_ids).cpu(), self._pick(self.start.valid).cpu()
        return [
            hashlib.sha256(row[keep].numpy().astype("<i8").tobytes()).hexdigest()[:16]
            for row, keep in zip(ids, valid, strict=True)
        ]
