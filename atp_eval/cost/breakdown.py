"""The exact FLOPs of one answer, by parts, as the engine runs it."""

from __future__ import annotations

from dataclasses import dataclass

from atp_eval.cost.flops import decode, engine_prefill, projector, vision_tower
from atp_eval.cost.scorer import Prompt


@dataclass(frozen=True)
class Breakdown:
    """FLOPs of one question about one image.

    layers: of each LLM layer while it reads the prompt, without rows that are dead. scorer: of the method's own
    choosing, None where nobody counted it. lm_head: of the first new token. decode: of the others, LM head included.
    """

    vision_tower: int
    projector: int
    layers: tuple[int, ...]
    scorer: int | None
    lm_head: int
    decode: int

    @property
    def prefill(self) -> int:
        """The LLM's layers and its LM head, once."""
        return sum(self.layers) + self.lm_head

    @property
    def total(self) -> int:
        """All parts that were counted."""
        return self.vision_tower + self.projector + self.prefill + (self.scorer or 0) + self.decode


def breakdown(prompt: Prompt, scorer: int | None = 0, new: int = 1, early: bool = False) -> Breakdown:
    """What `new` tokens after a prompt cost. scorer: `Method.scorer_flops` of the prompt; early: `Method.early`."""
    geometry, lengths = prompt.geometry, prompt.lengths
    read = engine_prefill(geometry, lengths, prompt.full, early)
    return Breakdown(
        vision_tower=vision_tower(geometry),
        projector=projector(geometry),
        layers=read.layers,
        scorer=scorer,
        lm_head=read.lm_head,
        decode=decode(geometry, lengths, new),
    )
