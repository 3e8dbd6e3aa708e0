"""The state of one pruned prefill and of the decoding that follows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atp_eval.engine.attention import Attention
from atp_eval.engine.given import Given, cells_of, names_of
from atp_eval.engine.layout import Layout, Prompts, gather
from atp_eval.engine.packed import Packing, Sharing, packing_of, sharing
from atp_eval.engine.point import PrunePoint
from atp_eval.engine.vision import VisionStates
from atp_eval.errors import UserError
from atp_eval.methods import Decision, Embeddings, Geometry, Method, Vision
from atp_eval.trace import KeepTrace, Stage


@dataclass
class DeviceStage:
    """A prune point as it lies on the device: [samples with an image, V] bool each. count: what the method said."""

    layer: int
    keep: Tensor
    merged: Tensor
    count: int | None


class Prefill:
    """Rows of a batch are samples, or `beams` equal rows for each; a method is asked once a sample.

    `layouts[i]` is the layout of prune point i's layer and of those after it, `layouts[-1]` the current one.
    """

    def __init__(
        self,
        geometry: Geometry,
        prompts: Prompts,
        beams: int,
        input_ids: Tensor,
        given: Given,
        tower: Callable[[VisionStates], Vision],
        final_norm: Callable[[Tensor], Tensor],
    ) -> None:
        """tower: makes of states what a method is shown of the vision tower; final_norm: the LLM's."""
        self.geometry = geometry
        self.given = given
        self.start = prompts.layout
        self.layouts: list[Layout] = []
        self.stages: list[DeviceStage] = []
        self.rotary: tuple[Tensor, ...] | None = None
        self.packing: Packing | None = None
        self.shared: Sharing | None = None
        if given.pictures is not None and beams == 1:
            self.shared = sharing(prompts, input_ids, given.pictures)
        self.began_shared = self.shared is not None
        self.has_image = prompts.has_image[::beams]
        self._prompts = prompts
        self._input_ids = input_ids
        self._tower, self._final_norm = tower, final_norm
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

    @property
    def dropped(self) -> bool:
        """Whether anything is gone by now: what keeps all is to be the untouched model to the bit."""
        return list(self.layout.lengths) != list(self.start.lengths)

    def prune(
        self,
        method: Method,
        layer: int,
        hidden: Tensor,
        attention: Attention | None,
        coming: Callable[[Tensor, tuple[Tensor, ...]], Attention],
    ) -> Tensor:
        """Ask the method what enters `layer` and return those hidden states: [rows, L, D] -> [rows, L', D].

        attention: of the layer before; coming: makes that of `layer` from hidden states and rotary tables. Waits for
        the device only where the method does not say how many tokens stay.
        """
        decision, stay = self._ask(method, layer, attention, hidden, coming)
        hidden = self._put(hidden, decision)
        return gather(hidden, self._drop(decision, stay))

    def prune_early(self, method: Method, layer: int, attention: Attention) -> Tensor:
        """Ask a method that is `early` what enters `layer`, inside of the layer before: [rows, L'], which slots do.

        Waits for the device like `prune`.
        """
        decision, stay = self._ask(method, layer, attention, None, None)
        assert decision.values is None, "a method that is `early` puts nothing in: there are no hidden states yet"
        return self._drop(decision, stay)

    def repack(self, method: Method, possible: bool) -> None:
        """After a prune point, or before the first layer: pack what goes on, where that is `possible` and pays.

        Rows go on to share what they begin with as long as the method looked at nothing else.
        """
        if not possible:
            self.shared = None
        elif self.layouts and self.shared is not None:
            before = self.layouts[-2] if len(self.layouts) > 1 else self.start
            self.shared = None if method.reads_question else self.shared.after(before.lengths, self.layout.lengths)
        worth = possible and (self.dropped or self.shared is not None)
        self.packing = packing_of(self.layout, self.shared) if worth else None

    def _ask(
        self,
        method: Method,
        layer: int,
        attention: Attention | None,
        hidden: Tensor | None,
        coming: Callable[[Tensor, tuple[Tensor, ...]], Attention] | None,
    ) -> tuple[Decision, Tensor]:
        """The method's decision before `layer`, and what stays by it: [samples, V]. Without hidden states a method that
        looks at them fails."""
        layout, rotary = self.layout, self.rotary
        assert rotary is not None, "set when the first pruned layer is entered"

        def entering() -> Tensor:
            assert hidden is not None, f"{method.name} is `early`, but looks at hidden states"
            return self._pick(hidden)

        def ahead() -> Attention:
            assert coming is not None, f"{method.name} is `early`, but looks at the layer to come"
            return coming(entering(), tuple(self._pick(t) for t in rotary))

        if attention is not None:
            attention = Attention(self._pick(attention.query), self._pick(attention.key), attention.scaling)
        point = PrunePoint(
            layer=layer,
            grid=self.geometry.grid,
            layout=Layout(self._pick(layout.valid), self._pick(layout.cell), layout.lengths, layout.cells),
            is_text=self._text,
            attention=attention,
            coming=ahead,
            hidden_states=entering,
            names=self._sample_ids,
            inputs=self._embeddings,
            tower=self._vision,
            final_norm=self._final_norm,
            compared=self._relevance,
            truth=lambda: cells_of(self.given.asked, self.has_image, layout.cells).to(layout.cell.device),
        )
        decision = method.decide(point)
        if wrong := decision.problem(tuple(point.kept.shape)):
            raise UserError(f"{method.label} before layer {layer}: {wrong}")
        return decision, self._note(layer, point.kept, decision)

    def _drop(self, decision: Decision, stay: Tensor) -> Tensor:
        """Shorten layout and rotary tables to what stays; returns the slots [rows, L'] that are taken over."""
        assert self.rotary is not None
        order = None if decision.order is None else self._spread(decision.order)
        layout, index = self.layout.drop(self._spread(stay), self._lengths(stay, decision.count), order)
        self.layouts.append(layout)
        self.rotary = tuple(gather(t, index) for t in self.rotary)
        return index

    def _note(self, layer: int, kept: Tensor, decision: Decision) -> Tensor:
        """Remember for the traces what stays, and return it: [samples, V]."""
        before = self.stages[-1].merged if self.stages else torch.zeros_like(decision.keep)
        stay, merged = decision.keep & kept, before & decision.keep
        if decision.carry is not None:
            stay, merged = stay | decision.carry, merged | decision.carry
        self.stages.append(DeviceStage(layer, stay & ~merged, merged, decision.count))
        return stay

    def traces(self) -> list[KeepTrace]:
        """One per sample, in the order of the batch. Waits for the device.

        Raises UserError where a method's decision kept another number of tokens than its `count` said.
        """
        stages = [(s.layer, s.keep.cpu().numpy(), s.merged.sum(1).tolist()) for s in self.stages]
        for stage, (layer, keep, merged) in zip(self.stages, stages, strict=True):
            tokens = [int(cells.sum()) + more for cells, more in zip(keep, merged, strict=True)]
            if stage.count is not None and tokens != [stage.count] * len(tokens):
                raise UserError(
                    f"a method's decision before layer {layer} says count={stage.count}, but {tokens} tokens stay in "
                    "the samples; leave count out where it depends on the data, and name no cell twice"
                )
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

    def _put(self, hidden: Tensor, decision: Decision) -> Tensor:
        """Put the decision's values into the slots of the cells that they are for."""
        cells = [cells for cells in (decision.carry, decision.rewrite) if cells is not None]
        if not cells or decision.values is None:
            return hidden
        places = cells[0] if len(cells) == 1 else cells[0] | cells[1]
        slots = self.layout.to_slots(self._spread(places), False)
        return torch.where(slots[..., None], self.layout.to_slots(self._spread(decision.values.to(hidden)), 0), hidden)

    def _lengths(self, stay: Tensor, count: int | None) -> list[int]:
        """Tokens of each row once only `stay` [samples, V] stays."""
        now = stay.sum(1).tolist() if count is None else [count] * len(stay)
        lost = iter([before - after for before, after in zip(self._visual, now, strict=True)])
        per_sample = [next(lost) if has else 0 for has in self.has_image]
        self._visual = now
        return [length - per_sample[row // self._beams] for row, length in enumerate(self.layout.lengths)]

    def _sample_ids(self) -> list[str]:
        """Names of the samples with an image; without given ones, a hash of each prompt's token ids."""
        names: Sequence[str | int] | None = self.given.names
        if names is None:
            names = names_of(self._prompts, self._input_ids)[:: self._beams]
        return [str(name) for name, has in zip(names, self.has_image, strict=True) if has]

    def _embeddings(self) -> Embeddings:
        assert self.given.embeddings is not None, "the method's `needs` must name embeddings"
        start, rows = self.start, self._pick(self.given.embeddings)
        layout = Layout(self._pick(start.valid), self._pick(start.cell), start.lengths, start.cells)
        return Embeddings(layout.to_cells(rows, 0), rows[:, -self._text.shape[1] :], self._text)

    def _vision(self) -> Vision:
        assert self.given.vision is not None, "the method's `needs` must name vision"
        return self._tower(self.given.vision)

    def _relevance(self) -> Tensor:
        if self.given.relevance is None:
            raise UserError(
                "this method compares patches with questions by CLIP: give `ClipText.relevance` of them as relevance=, "
                "or choose relevance=llm"
            )
        return self.given.relevance
